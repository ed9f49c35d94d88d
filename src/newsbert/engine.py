"""The container engine, through the Docker SDK; the only importer of docker."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from newsbert.errors import EngineError, MissingExtraError, NotFoundError

_START_HINT = "start Docker, or point DOCKER_HOST at an engine"
BUILD_TIMEOUT_S = 1800


class Engine:
    """A container engine that answered.

    Raises:
        EngineError: If none does.
    """

    def __init__(self) -> None:
        try:
            import docker
            from docker.errors import DockerException
        except ImportError as error:
            raise MissingExtraError("docker", "image") from error
        try:
            self._client = docker.from_env(timeout=BUILD_TIMEOUT_S)
            self._client.ping()
        except (DockerException, ValueError) as error:  # the latter of an address that is none
            reason = _reason(error)
            raise EngineError(f"no container engine answers: {reason}", _START_HINT) from error

    def has_image(self, tag: str) -> bool:
        """Tell whether the engine has an image of that name."""
        return self._image(tag) is not None

    def image_size(self, tag: str) -> int:
        """Size of an image over all its layers, in bytes."""
        image = self._image(tag)
        return int(image.attrs["Size"]) if image is not None else 0

    def image_id(self, tag: str) -> str:
        """The engine's id of an image; empty if there is none of that name."""
        image = self._image(tag)
        return str(image.id) if image is not None else ""

    def remove_image(self, tag: str) -> None:
        """Take a name from an image, and the image away if it was the last one."""
        with self._errors(f"removing {tag} failed"):
            self._client.images.remove(tag, force=True)

    def build(
        self,
        context: Path,
        tag: str,
        *,
        build_args: Mapping[str, str],
        labels: Mapping[str, str],
        network: str | None,
        extra_hosts: Mapping[str, str],
        on_line: Callable[[str], None],
    ) -> None:
        """Build the directory `context` and name the image `tag`.

        Args:
            context: Directory with a Dockerfile.
            tag: The image's name.
            build_args: Values of the Dockerfile's ARGs.
            labels: The image's labels.
            network: Network of the build's steps; the engine's default if `None`.
            extra_hosts: Addresses by host name, known to the build's steps.
            on_line: Called with what the engine says.

        Raises:
            EngineError: If the build fails; the message is the engine's, after what the failing step printed.
        """
        from docker.errors import DockerException

        tail: list[str] = []
        with self._errors(f"building {tag} failed"):
            try:
                for event in self._client.api.build(
                    path=str(context),
                    tag=tag,
                    rm=True,
                    forcerm=True,
                    decode=True,
                    buildargs=dict(build_args),
                    labels=dict(labels),
                    network_mode=network,
                    extra_hosts=dict(extra_hosts) or None,
                ):
                    if "error" in event:
                        said = "; ".join(line for line in tail[-3:] if line.startswith("ERROR")) or ""
                        raise EngineError(
                            f"building {tag} failed: {event['error'].strip()}{f' ({said})' if said else ''}",
                            _build_hint(event["error"], tail),
                        )
                    for line in str(event.get("stream") or event.get("status") or "").splitlines():
                        if line.strip():
                            tail = [*tail[-20:], line.strip()]
                            on_line(line.strip())
            except (OSError, DockerException) as error:
                raise EngineError(f"building {tag} failed: {_reason(error)}", _START_HINT) from error

    def run(self, image: str, *, host: str, port: int, container_port: int) -> "Container":
        """Start a container of `image` with `container_port` published on `host:port`; `stop` removes it.

        Raises:
            NotFoundError: If the engine has no such image.
            EngineError: If it cannot be started.
        """
        if not self.has_image(image):
            raise NotFoundError(f"the engine has no image {image!r}", "newsbert build-image MODEL")
        with self._errors(f"starting {image} failed"):
            container = self._client.containers.run(
                image,
                detach=True,
                init=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                ports={f"{container_port}/tcp": (host, port)},
                labels={"newsbert.serve": image},
            )
        return Container(container)

    def stop(self, container_id: str) -> None:
        """Stop and remove a container; one that is gone already is fine."""
        from docker.errors import NotFound

        with self._errors("stopping the container failed"), contextlib.suppress(NotFound):
            Container(self._client.containers.get(container_id)).stop()

    def _image(self, tag: str) -> Any:
        from docker.errors import ImageNotFound

        with self._errors(f"looking for {tag} failed"):
            try:
                return self._client.images.get(tag)
            except ImageNotFound:
                return None

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        import requests
        from docker.errors import DockerException

        try:
            yield
        except (DockerException, requests.RequestException) as error:
            raise EngineError(f"{what}: {_reason(error)}", _START_HINT) from error


class Container:
    """A container that was started."""

    def __init__(self, container: Any) -> None:
        self._container = container

    @property
    def id(self) -> str:
        """The engine's id of it."""
        return str(self._container.id)

    def exit_code(self) -> int | None:
        """What it ended with, or `None` while it runs; -1 if somebody removed it."""
        from docker.errors import DockerException

        try:
            self._container.reload()
        except DockerException:
            return -1
        if self._container.status in {"created", "running", "restarting"}:
            return None
        return int(self._container.attrs["State"]["ExitCode"])

    def logs(self) -> str:
        """What it has printed."""
        from docker.errors import DockerException

        try:
            return str(self._container.logs().decode("utf-8", "replace"))
        except DockerException:
            return ""

    def stop(self) -> None:
        """Stop and remove it."""
        from docker.errors import DockerException

        with contextlib.suppress(DockerException):
            self._container.stop(timeout=15)
        with contextlib.suppress(DockerException):
            self._container.remove(force=True)


def _reason(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error).strip().splitlines()[-1][:500]


def _build_hint(error: str, tail: list[str]) -> str:
    lowered = error.lower()
    if any(
        sign in lowered for sign in ("pull access denied", "manifest", "lookup", "registry", "dial tcp", "not found:")
    ):
        return "the root image cannot be had: name another with --root-image, or load it into the engine first"
    if "no space left" in lowered or any("no space left" in line.lower() for line in tail):
        return "the engine's disk is full: docker system df; docker system prune"
    return "pip's index can be set with --pip-option index-url=URL, the network with --build-network host"
