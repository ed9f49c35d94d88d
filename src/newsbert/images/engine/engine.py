"""The container engine, through the Docker SDK; no code outside this package imports docker."""

import contextlib
import io
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from newsbert.core.environment import child_environment
from newsbert.core.installation import MissingExtraError
from newsbert.errors import EngineError, NotFoundError
from newsbert.images.engine.addresses import check_safe, split_tag
from newsbert.images.engine.container import Container
from newsbert.images.engine.errors import START_HINT, build_hint, cause, engine_errors, push_hint, reason
from newsbert.images.engine.layers import ANSI, Layer, describe_step

__all__ = ["Container", "Engine", "Layer"]

_PRUNE_TRIES = 20
BUILD_TIMEOUT_S = 1800
PIDS_LIMIT = 1024
"""Processes and threads of a container that serves: the frontend has about 60, a worker one and its cores."""


class Engine:
    """A client of a container engine.

    Args:
        address: The engine's address, with the certificates of DOCKER_CERT_PATH; default: the address in DOCKER_HOST.

    Raises:
        EngineError: If no engine answers.
        UsageError: If the address is another machine's, and there are no certificates.
    """

    def __init__(self, address: str | None = None) -> None:
        try:
            import docker
            from docker.errors import DockerException
        except ImportError as error:
            raise MissingExtraError("docker", "image") from error
        try:
            environment = child_environment(**({"DOCKER_HOST": address} if address else {}))
            if address and "tls" not in docker.utils.kwargs_from_env(environment):
                check_safe(address, docker.utils.parse_host(address))
            self._client = docker.from_env(timeout=BUILD_TIMEOUT_S, environment=environment)
            self._client.ping()
        except (DockerException, ValueError) as error:  # ValueError: an invalid address
            where = environment.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
            raise EngineError(f"no container engine answers on {where}: {cause(error)}", START_HINT) from error

    @property
    def client(self) -> Any:
        """The SDK's client, for the other modules of this package."""
        return self._client

    def version(self) -> str:
        """Return the engine's name and version."""
        with engine_errors("asking the engine for its version failed"):
            info = self._client.version()
        name = next((component["Name"] for component in info.get("Components") or []), "Engine")
        return f"{'Docker' if name == 'Engine' else name} {info['Version']}"

    def reads(self, repository: str) -> bool:
        """Check that the engine may read from a registry, and return whether it has credentials for that.

        Raises:
            EngineError: If the registry does not answer, or denies access.
        """
        from docker.auth import resolve_repository_name
        from docker.errors import NotFound

        tag = f"{repository}/newsbert:none"
        try:
            with contextlib.suppress(NotFound), engine_errors(f"asking the registry of {repository} failed"):
                self._client.api.inspect_distribution(tag)
        except EngineError as error:
            if "manifest unknown" not in error.message:
                raise EngineError(error.message, push_hint(tag, error.message)) from error
        host, _ = resolve_repository_name(tag)
        return self._client.api._auth_configs.resolve_authconfig(host) is not None

    def has_image(self, tag: str) -> bool:
        """Return whether the engine has an image of that name."""
        return self._find_image(tag) is not None

    def layers(self, tag: str) -> list[Layer]:
        """Return the layers of an image that are not empty, the lowest first."""
        image = self._find_image(tag)
        with engine_errors(f"looking at {tag} failed"):
            steps = image.history() if image is not None else []
        return [Layer(describe_step(step["CreatedBy"]), int(step["Size"])) for step in reversed(steps) if step["Size"]]

    def labels(self, tag: str) -> dict[str, str]:
        """Return an image's labels.

        Raises:
            NotFoundError: If the engine has no such image.
        """
        return dict(self._get_image(tag).labels)

    def read_file(self, tag: str, path: str) -> bytes | None:
        """Return the content of a file in an image, or `None` if there is no such file.

        Raises:
            NotFoundError: If the engine has no such image.
        """
        from docker.errors import NotFound

        self._get_image(tag)
        with engine_errors(f"looking into {tag} failed"):
            container = self._client.containers.create(tag, command=["true"])
            try:
                stream, _ = container.get_archive(path)
                with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
                    content = archive.extractfile(archive.next() or path)
                    return content.read() if content is not None else None
            except NotFound:
                return None
            finally:
                container.remove(force=True)

    def pull(self, tag: str) -> None:
        """Pull an image, even if the engine has one of that name.

        Raises:
            EngineError: If its registry cannot be reached, or has no such image.
        """
        with engine_errors(f"pulling {tag} failed"):
            self._client.images.pull(*split_tag(tag))

    def tag_image(self, tag: str, alias: str) -> None:
        """Add another name to an image."""
        with engine_errors(f"calling {tag} {alias} failed"):
            self._get_image(tag).tag(*split_tag(alias))

    def remove_stages(self, label: str) -> None:
        """Remove the build stages with a label, so that no file copied into them stays on this disk."""
        from docker.errors import APIError

        with engine_errors(f"removing the build stages {label} failed"):
            for attempt in range(_PRUNE_TRIES):
                try:
                    self._client.images.prune({"dangling": True, "label": label})
                    return
                except APIError as error:
                    if error.status_code != HTTPStatus.CONFLICT or attempt == _PRUNE_TRIES - 1:
                        raise
                time.sleep(1)  # another build prunes; the engine allows one at a time

    def push(self, tag: str, on_progress: Callable[[str, int, int], None]) -> str:
        """Push an image to its registry, with the credentials in Docker's own configuration.

        Args:
            tag: The image, including its registry's name.
            on_progress: Called with a layer's id, its bytes pushed so far, and its size in bytes.

        Returns:
            The image's digest in the registry: `sha256:…`.

        Raises:
            EngineError: If the registry cannot be reached, or refuses the image.
        """
        self._get_image(tag)
        digest = ""
        with engine_errors(f"pushing {tag} failed"):
            for event in self._client.api.push(*split_tag(tag), stream=True, decode=True):
                if "error" in event:
                    raise EngineError(f"pushing {tag} failed: {event['error'].strip()}", push_hint(tag, event["error"]))
                digest = (event.get("aux") or {}).get("Digest", digest)
                detail = event.get("progressDetail") or {}
                if event.get("id") and detail.get("total"):
                    on_progress(event["id"], min(detail.get("current", 0), detail["total"]), detail["total"])
        if not digest:
            raise EngineError(f"pushing {tag} ended early: the registry gave no digest", "push it again")
        return str(digest)

    def image_id(self, tag: str) -> str:
        """Return the engine's id of an image, or an empty text if there is no such image."""
        image = self._find_image(tag)
        return str(image.id) if image is not None else ""

    def build(  # noqa: PLR0913 - options by name
        self,
        context: Path,
        tag: str,
        *,
        build_args: Mapping[str, str],
        labels: Mapping[str, str],
        network: str | None,
        extra_hosts: Mapping[str, str],
        on_line: Callable[[str], None],
        fresh: bool = False,
    ) -> None:
        """Build a context and name the image `tag`.

        Args:
            context: A tar archive with a Dockerfile.
            tag: The image's name.
            build_args: Values of the Dockerfile's ARGs.
            labels: The image's labels.
            network: Network of the build's steps; the engine's default if `None`.
            extra_hosts: Addresses by host name, known to the build's steps.
            on_line: Called with every line of the engine's output.
            fresh: Build without the cache of earlier builds.

        Raises:
            EngineError: If the build fails; the message is the engine's, after the output of the failing step.
        """
        tail: list[str] = []
        with engine_errors(f"building {tag} failed"), contextlib.ExitStack() as stack:
            try:
                stream = stack.enter_context(context.open("rb"))
                for event in self._client.api.build(
                    fileobj=stream,
                    custom_context=True,
                    tag=tag,
                    rm=True,
                    forcerm=True,
                    nocache=fresh,
                    decode=True,
                    buildargs=dict(build_args),
                    labels=dict(labels),
                    network_mode=network,
                    extra_hosts=dict(extra_hosts) or None,
                ):
                    if "error" in event:
                        messages = "; ".join(line for line in tail if line.lower().startswith("error: "))
                        raise EngineError(
                            f"building {tag} failed: {event['error'].strip()}{f' ({messages})' if messages else ''}",
                            build_hint(event["error"], tail),
                        )
                    for line in str(event.get("stream") or event.get("status") or "").splitlines():
                        plain = ANSI.sub("", line).strip()
                        if plain:
                            tail = [*tail[-20:], plain]
                            on_line(plain)
            except OSError as error:
                raise EngineError(f"building {tag} failed: {reason(error)}", START_HINT) from error

    def run(self, image: str, *, host: str, ports: Mapping[int, int], environment: Mapping[str, str]) -> Container:
        """Start a container of `image` that can write to `/tmp` in memory only; `stop` removes it.

        The engine adds no init process: newsbert as process 1 handles signals and leaves no child process behind.

        Args:
            image: The image.
            host: Address of this machine on which ports are published.
            ports: Port of this machine by port of the container.
            environment: Variables by name.

        Raises:
            NotFoundError: If the engine has no such image.
            EngineError: If it cannot be started.
        """
        if not self.has_image(image):
            raise NotFoundError(f"the engine has no image {image!r}", "newsbert build-image MODEL")
        with engine_errors(f"starting {image} failed"):
            container = self._client.containers.run(
                image,
                detach=True,
                read_only=True,
                tmpfs={"/tmp": "mode=1777"},  # noqa: S108 - the container's, not this machine's
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                pids_limit=PIDS_LIMIT,
                ports={f"{inside}/tcp": (host, outside) for inside, outside in ports.items()},
                environment=dict(environment),
                labels={"newsbert.serve": image},
            )
        return Container(container)

    def start(
        self,
        image: str,
        command: list[str],
        *,
        user: str,
        directory: Path,
        mounts: Mapping[Path, bool],
        environment: Mapping[str, str],
        network: str | None,
    ) -> Container:
        """Start a command in a container with files of this machine.

        Args:
            image: The image.
            command: The command.
            user: The user that runs it, `UID:GID`.
            directory: The working directory.
            mounts: Files and directories to mount under the same path; true if they are writable.
            environment: Environment variables.
            network: The network; the engine's default if `None`.

        Raises:
            EngineError: If it cannot be started.
        """
        with engine_errors(f"starting {image} failed"):
            container = self._client.containers.run(
                image,
                command,
                detach=True,
                user=user,
                working_dir=str(directory),
                volumes=[f"{path}:{path}:{'rw' if write else 'ro'}" for path, write in mounts.items()],
                environment=dict(environment),
                network_mode=network,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                labels={"newsbert.train": image},
            )
        return Container(container)

    def stop(self, container_id: str, timeout_s: float) -> None:
        """Stop and remove a container; do nothing if it is gone already."""
        from docker.errors import NotFound

        with engine_errors(f"looking for container {container_id[:12]} failed"), contextlib.suppress(NotFound):
            Container(self._client.containers.get(container_id)).stop(timeout_s)

    def succeeds(self, container_id: str, command: Sequence[str]) -> bool:
        """Run a command in a running container and return whether its exit code is 0.

        Raises:
            EngineError: If there is no such container, or it does not run.
        """
        with engine_errors(f"looking for container {container_id[:12]} failed"):
            container = Container(self._client.containers.get(container_id))
        return container.succeeds(command)

    def _get_image(self, tag: str) -> Any:
        image = self._find_image(tag)
        if image is None:
            raise NotFoundError(f"the engine has no image {tag!r}", "newsbert build-image MODEL")
        return image

    def _find_image(self, tag: str) -> Any:
        from docker.errors import ImageNotFound

        with engine_errors(f"looking for {tag} failed"):
            try:
                return self._client.images.get(tag)
            except ImageNotFound:
                return None
