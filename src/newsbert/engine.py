"""The container engine, through the Docker SDK; the only importer of docker."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from newsbert.errors import EngineError, MissingExtraError, NotFoundError

_START_HINT = "start Docker, or point DOCKER_HOST at an engine"
BUILD_TIMEOUT_S = 1800
PIDS_LIMIT = 1024
"""Processes and threads of a container that serves: the frontend has about 60, a worker one and its cores."""


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
        except DockerException as error:
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
        with _errors(f"removing {tag} failed"):
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
        with _errors(f"building {tag} failed"):
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

    def run(self, image: str, *, host: str, ports: Mapping[int, int], environment: Mapping[str, str]) -> "Container":
        """Start a container of `image` that can write to `/tmp` in memory only; `stop` removes it.

        It gets no init process of the engine's: newsbert as process 1 handles signals and leaves no child behind.

        Args:
            image: Its name.
            host: Address of this machine on which ports are published.
            ports: Port of this machine by port of the container.
            environment: Variables by name.

        Raises:
            NotFoundError: If the engine has no such image.
            EngineError: If it cannot be started.
        """
        if not self.has_image(image):
            raise NotFoundError(f"the engine has no image {image!r}", "newsbert build-image MODEL")
        with _errors(f"starting {image} failed"):
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

    def stop(self, container_id: str, timeout_s: float) -> None:
        """Stop and remove a container; one that is gone already is fine."""
        from docker.errors import NotFound

        with _errors(f"looking for container {container_id[:12]} failed"), contextlib.suppress(NotFound):
            Container(self._client.containers.get(container_id)).stop(timeout_s)

    def _image(self, tag: str) -> Any:
        from docker.errors import ImageNotFound

        with _errors(f"looking for {tag} failed"):
            try:
                return self._client.images.get(tag)
            except ImageNotFound:
                return None


class Container:
    """A container that was started."""

    def __init__(self, container: Any) -> None:
        self._container = container

    @property
    def id(self) -> str:
        """The engine's id of it."""
        return str(self._container.id)

    def exit_code(self) -> int | None:
        """What it ended with, or `None` while it runs; -1 if somebody removed it.

        Raises:
            EngineError: If the engine does not say.
        """
        from docker.errors import NotFound

        with _errors(f"looking for container {self.id[:12]} failed"):
            try:
                self._container.reload()
            except NotFound:
                return -1
        if self._container.status in {"created", "running", "restarting", "paused"}:
            return None
        return int(self._container.attrs["State"]["ExitCode"])

    def succeeds(self, command: Sequence[str]) -> bool:
        """Run a command in it and tell whether that ended with 0."""
        from docker.errors import APIError

        with _errors(f"running {command[0]} in container {self.id[:12]} failed"):
            try:
                return bool(self._container.exec_run(list(command)).exit_code == 0)
            except APIError:  # it does not run
                return False

    def logs(self) -> str:
        """What it has printed."""
        from docker.errors import DockerException

        try:
            return str(self._container.logs().decode("utf-8", "replace"))
        except DockerException:
            return ""

    def stop(self, timeout_s: float) -> None:
        """Stop it, which it has `timeout_s` for, and remove it; one that is gone already is fine.

        Raises:
            EngineError: If the engine does not do it.
        """
        from docker.errors import APIError, NotFound

        with _errors(f"stopping container {self.id[:12]} failed"), contextlib.suppress(NotFound):
            self._container.stop(timeout=math.ceil(timeout_s))
            with contextlib.suppress(APIError):  # somebody else is removing it
                self._container.remove(force=True)


@contextlib.contextmanager
def _errors(what: str) -> Iterator[None]:
    import requests
    from docker.errors import DockerException

    try:
        yield
    except (DockerException, requests.RequestException) as error:
        raise EngineError(f"{what}: {_reason(error)}", _START_HINT) from error


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
