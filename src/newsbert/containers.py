"""From a registered model to its image, and from the image to a running container."""

import contextlib
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from newsbert import api, image, loopback, torchserve
from newsbert.bundle import Bundle
from newsbert.config import ImageSettings, ServeSettings
from newsbert.engine import Container, Engine
from newsbert.errors import NewsbertError, NotFoundError, ServingError, UsageError
from newsbert.image import Context
from newsbert.torchserve import Address

CONTAINER_PORT = 8080


@dataclass(frozen=True)
class Built:
    """An image that is there now; `cached` if it was before."""

    tag: str
    id: str
    size_bytes: int
    cached: bool


@dataclass(frozen=True)
class Running:
    """A container whose model answers."""

    container: Container
    address: Address

    @property
    def id(self) -> str:
        """The engine's id of the container."""
        return self.container.id

    def check(self) -> None:
        """Do nothing while it runs.

        Raises:
            ServingError: If it has stopped by itself.
        """
        code = self.container.exit_code()
        if code is not None:
            raise ServingError(f"the container stopped by itself (exit code {code})", "start it again")


@contextlib.contextmanager
def contexts(
    reference: str | None, settings: ImageSettings, tracking_uri: str | None = None
) -> Iterator[tuple[Context, Context]]:
    """Render the contexts of the base and the serving image of a model; their files last as long as the block.

    Raises:
        NewsbertError: If there is no such model, or it was altered after training.
    """
    located = api.locate(reference, tracking_uri=tracking_uri)
    bundle = Bundle.read(located.path)
    with tempfile.TemporaryDirectory(prefix="newsbert-image-") as directory:
        base = image.render_base(settings, Path(directory))
        yield base, image.render_serving(bundle, located.name, base.tag, settings, Path(directory))


def build(context: Context, settings: ImageSettings, on_line: Callable[[str], None], *, reuse: bool) -> Built:
    """Build a context.

    Args:
        context: What to build.
        settings: Network and hosts of the build.
        on_line: Called with what the engine says.
        reuse: Whether an image of that name is as good: true where the name holds a hash of the content.

    Raises:
        EngineError: If there is no engine, or the build fails.
        UsageError: If an extra host is not HOST:IP.
    """
    engine = Engine()
    hosts = dict(_host(each) for each in settings.extra_hosts)
    cached = reuse and engine.has_image(context.tag)
    if not cached:
        try:
            with tempfile.TemporaryDirectory(prefix="newsbert-context-") as directory:
                context.write(Path(directory))
                engine.build(
                    Path(directory),
                    context.tag,
                    build_args=context.build_args,
                    labels=context.labels,
                    network=settings.build_network,
                    extra_hosts=hosts,
                    on_line=on_line,
                )
        except OSError as error:
            raise NewsbertError(
                f"the build context cannot be written: {error}", "check the disk: df -h /tmp"
            ) from error
    return Built(context.tag, engine.image_id(context.tag), engine.image_size(context.tag), cached)


def image_of(reference: str | None, settings: ImageSettings, tracking_uri: str | None = None) -> str:
    """Return the serving image that `reference` means: an image's own name, or the one of a model.

    Raises:
        NotFoundError: If there is no such model, or the engine has no image of it.
    """
    engine = Engine()
    if reference is not None and ":" in reference and not reference.startswith(("models:/", "runs:/")):
        if not engine.has_image(reference):
            raise NotFoundError(f"the engine has no image {reference!r}", "newsbert build-image MODEL")
        return reference
    located = api.connect(tracking_uri).locate(reference)
    tag = image.serving_tag(located.name, settings)
    if not engine.has_image(tag):
        raise NotFoundError(f"the engine has no image {tag!r}", f"newsbert build-image {located.name}")
    return tag


@contextlib.contextmanager
def serving(
    tag: str, settings: ServeSettings, stop: threading.Event, on_log: Callable[[str], None], *, keep: bool = False
) -> Iterator[Running | None]:
    """Run a serving image until the block ends; `None` if `stop` was set before it answered.

    Args:
        tag: The image.
        settings: Host and port on this machine; port 0 takes a free one.
        stop: Set by somebody else to give up waiting.
        on_log: Called with the container's log if it fails.
        keep: Leave it running at the end of the block.

    Raises:
        ServingError: If it ends or does not answer in time.
    """
    address = Address(settings.host, torchserve.claim_port(settings.host, settings.port))
    container = Engine().run(tag, host=address.host, port=address.port, container_port=CONTAINER_PORT)
    answered = False
    try:
        answered = _wait_ready(container, address, settings.timeout_s, stop)
        yield Running(container, address) if answered else None
    except ServingError:
        for line in container.logs().splitlines()[-20:]:
            on_log(line)
        answered = False
        raise
    finally:
        if not (keep and answered):
            container.stop()


def _wait_ready(container: Container, address: Address, timeout_s: float, stop: threading.Event) -> bool:
    request = urllib.request.Request(address.predictions_url, b"ready?", {"Content-Type": "text/plain"})
    deadline = time.monotonic() + timeout_s
    while not stop.wait(0.1):
        code = container.exit_code()
        if code is not None:
            raise ServingError(f"the container stopped while starting (exit code {code})", "see its log above")
        with contextlib.suppress(OSError), loopback.urlopen(request, timeout=10):
            return True
        if time.monotonic() > deadline:
            raise ServingError(f"no answer on {address.url} after {timeout_s:g} s", "see its log above")
    return False


def _host(entry: str) -> tuple[str, str]:
    host, _, address = entry.partition(":")
    if not host or not address:
        raise UsageError(f"the extra host {entry!r} is not HOST:IP", "such as --extra-host pypi.local:10.0.0.5")
    return host, address
