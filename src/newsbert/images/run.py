"""Run a serving image in a container."""

import contextlib
import io
import shlex
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from newsbert.bundle import signing
from newsbert.bundle.bundle import Bundle
from newsbert.bundle.contract import CONTRACT_FILE, SIGNATURE_FILE
from newsbert.core import config, loopback, zip_files
from newsbert.core.ports import claim_port
from newsbert.core.settings import TORCHSERVE, ImageSettings, ServeSettings
from newsbert.errors import ModelError, NotFoundError, ServingError, UsageError
from newsbert.images import tags
from newsbert.images.contexts import MODEL_PATH
from newsbert.images.engine.container import Container
from newsbert.images.engine.engine import Engine
from newsbert.images.reference import ImageReference
from newsbert.serving import probe
from newsbert.serving.archive import ARCHIVE_NAME
from newsbert.serving.endpoints import Endpoints, check_ports
from newsbert.tracking import locate

CONTAINER_PORT, CONTAINER_GRPC_PORT, CONTAINER_METRICS_PORT = probe.PORT, 7070, 8082
"""Ports inside a container, independent of those on this machine. They are fixed, so that no two are the same."""

_MAX_ENTRY_BYTES = 2**20
"""Size limit for an entry of an archive in an image, which is read before it is verified."""

PROBE = ("python", "-m", "newsbert.serving.probe")


@dataclass(frozen=True)
class RunningContainer:
    """A container whose model answers."""

    container: Container
    address: Endpoints

    @property
    def id(self) -> str:
        """The engine's id of the container."""
        return self.container.id

    def check(self) -> None:
        """Check that the container runs.

        Raises:
            ServingError: If it has stopped by itself, or was removed.
            EngineError: If the engine is gone.
        """
        _check_running(self.container, "by itself")


def is_image(reference: str) -> bool:
    """Return whether a reference names an image and not a model."""
    return ":" in reference and not reference.startswith(("models:/", "runs:/"))


def image_of(reference: str | None, settings: ImageSettings, tracking_uri: str | None = None) -> str:
    """Return the serving image of `reference`, which is the image's own name or a model.

    Raises:
        UsageError: If it is not a valid image name.
        NotFoundError: If there is no such model, or the engine has no image of it.
    """
    engine = Engine()
    if reference is not None and is_image(reference):
        reference = str(ImageReference.parse(reference))
        if not engine.has_image(reference):
            raise NotFoundError(f"the engine has no image {reference!r}", "newsbert build-image MODEL")
        return reference
    located = locate.locate(reference, tracking_uri=tracking_uri)
    tag = tags.serving_tag(located, Bundle.read(located.path).digest, settings)
    if not engine.has_image(tag):
        server = ["--server", settings.server] if settings.server != TORCHSERVE else []
        command = shlex.join(["newsbert", "build-image", *([reference] if reference else []), *server])
        raise NotFoundError(f"the engine has no image {tag!r}", command)
    return tag


def read_contract(engine: Engine, image: str) -> tuple[bytes, str | None]:
    """Return the contract of the model in a serving image, and the trusted key that signed it, if keys are set.

    Raises:
        ModelError: If it is not a serving image, or its model is not signed by a trusted key.
    """
    contract = engine.read_file(image, f"{MODEL_PATH}/{CONTRACT_FILE}")
    if contract is not None:
        signature = engine.read_file(image, f"{MODEL_PATH}/{SIGNATURE_FILE}")
    else:
        contract, signature = _read_archive(engine, image)
    return contract, signing.check(contract, signature, image, "sign the model, then newsbert build-image MODEL")


def _read_archive(engine: Engine, image: str) -> tuple[bytes, bytes | None]:
    """Return the contract and the signature in TorchServe's archive in an image."""
    content = engine.read_file(image, f"{MODEL_PATH}/{ARCHIVE_NAME}")
    try:
        with zipfile.ZipFile(io.BytesIO(content or b"")) as archive:
            contract, signature = (
                zip_files.read_entry(archive, name, _MAX_ENTRY_BYTES) if name in archive.namelist() else None
                for name in (CONTRACT_FILE, SIGNATURE_FILE)
            )
        if contract is None:
            raise ValueError(f"its archive has no {CONTRACT_FILE}")
    except zip_files.READ_ERRORS as error:
        raise ModelError(f"{image} is no serving image of newsbert: {error}", "newsbert build-image MODEL") from error
    return contract, signature


@contextlib.contextmanager
def serving(
    tag: str, settings: ServeSettings, stop: threading.Event, on_log: Callable[[str], None], *, keep: bool = False
) -> Iterator[RunningContainer | None]:
    """Run a serving image until the block ends; yield `None` if `stop` is set before it answers.

    Args:
        tag: The image.
        settings: Host and ports on this machine (port 0 takes a free one), tokens, stop timeouts, and the threshold
            for reviews, if it is not the image's.
        stop: Event that another thread sets to end the wait.
        on_log: Called with the container's log if it fails.
        keep: Leave it running at the end of the block.

    Raises:
        ModelError: If trusted keys are set, and none of them has signed the model in the image.
        UsageError: If a port is set for two purposes.
        ServingError: If it ends or does not answer in time, or a port is in use.
    """
    check_ports(settings)
    if config.trusted_keys():
        _, signed_by = read_contract(Engine(), tag)
        on_log(f"the model in {tag} is signed by {signed_by}")
    address = Endpoints(settings.host, claim_port(settings.host, settings.port))
    ports = {CONTAINER_PORT: address.port}
    variables = environment(settings)
    if settings.grpc_port is not None:
        ports[CONTAINER_GRPC_PORT] = claim_port(settings.host, settings.grpc_port)
        variables["NEWSBERT_SERVE_GRPC_PORT"] = str(CONTAINER_GRPC_PORT)
        address = replace(address, grpc_host=settings.host, grpc_port=settings.grpc_port)
    if settings.metrics_port is not None:
        ports[CONTAINER_METRICS_PORT] = claim_port(settings.host, settings.metrics_port)
        variables["NEWSBERT_SERVE_METRICS_PORT"] = str(CONTAINER_METRICS_PORT)
        address = replace(address, metrics_host=settings.host, metrics_port=settings.metrics_port)
    container = Engine().run(tag, host=address.host, ports=ports, environment=variables)
    answered = False
    try:
        answered = _wait_ready(container, address, settings, stop)
        yield RunningContainer(container, address) if answered else None
    except ServingError:
        for line in container.logs().splitlines()[-20:]:
            on_log(line)
        answered = False
        raise
    finally:
        if not (keep and answered):
            container.stop(stop_timeout_s(settings))


def environment(settings: ServeSettings) -> dict[str, str]:
    """Return the environment variables that pass the settings to a serving image, without the ports.

    Raises:
        UsageError: If a setting names a file, which a container does not see.
    """
    for name in ("token_file", "tls_cert", "tls_key"):
        if getattr(settings, name) is not None:
            variable = f"NEWSBERT_SERVE_{name.upper()}"
            raise UsageError(
                f"{name} {getattr(settings, name)!r} is a file of this machine, which no container sees",
                f"mount it yourself: docker run -v FILE:/run/{name}:ro -e {variable}=/run/{name} IMAGE",
            )
    variables = {
        "NEWSBERT_SERVE_DRAIN_S": f"{settings.drain_s:g}",
        "NEWSBERT_SERVE_UNRESPONSIVE_TIMEOUT_S": f"{settings.unresponsive_timeout_s:g}",
        "NEWSBERT_SERVE_LOG_FORMAT": settings.log_format,
        "NEWSBERT_TOKEN_AUTH": str(int(settings.token_auth)),
        "NEWSBERT_SERVE_TOKEN_EXPIRY_MIN": f"{settings.token_expiry_min:g}",
    }
    variables |= {
        f"NEWSBERT_SERVE_{name.upper()}": str(getattr(settings, name))
        for name in ("max_connections", "header_timeout_s", "body_timeout_s", "keep_alive_s", "queue_size")
        if getattr(settings, name) != getattr(ServeSettings, name)
    }
    if settings.cascade != ServeSettings.cascade:
        variables["NEWSBERT_SERVE_CASCADE"] = settings.cascade
    if settings.review_threshold is not None:
        variables["NEWSBERT_SERVE_REVIEW_THRESHOLD"] = str(settings.review_threshold)
    if settings.cors_origin is not None:
        variables["NEWSBERT_SERVE_CORS_ORIGIN"] = settings.cors_origin
    return variables


def stop_timeout_s(settings: ServeSettings) -> float:
    """Return the seconds that a container has to stop, in which it answers requests in flight."""
    return settings.drain_s + 5


def _wait_ready(container: Container, address: Endpoints, settings: ServeSettings, stop: threading.Event) -> bool:
    deadline = time.monotonic() + settings.timeout_s
    while not stop.wait(0.1):
        _check_running(container, "while starting")
        with contextlib.suppress(ServingError):
            if settings.token_auth:
                # The keys stay in the container, so the probe runs there.
                if _is_reachable(address) and container.succeeds(PROBE):
                    return True
            else:
                probe.ask(address.url, None, 10)
                return True
        if time.monotonic() > deadline:
            raise ServingError(f"no answer on {address.url} after {settings.timeout_s:g} s", "see its log above")
    return False


def _is_reachable(address: Endpoints) -> bool:
    """Return whether a server answers, even if only with an HTTP error because it requires a token."""
    import httpx2

    try:
        with loopback.make_client(address.url) as http:
            http.get("/ping", timeout=10)
    except httpx2.HTTPError:
        return False
    return True


def _check_running(container: Container, when: str) -> None:
    code = container.exit_code()
    if code == -1:
        raise ServingError(f"somebody removed the container {container.id[:12]}", "newsbert serve container MODEL")
    if code is not None:
        raise ServingError(f"the container stopped {when} (exit code {code})", "see its log above")
