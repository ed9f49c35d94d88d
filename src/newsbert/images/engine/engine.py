"""The container engine, through the Docker SDK; nothing outside of this package imports docker."""

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
    """A container engine that answered.

    Args:
        address: Where it is, if not where DOCKER_HOST says; with the certificates that DOCKER_CERT_PATH says.

    Raises:
        EngineError: If none does.
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
        except (DockerException, ValueError) as error:  # the latter of an address that is none
            where = environment.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
            raise EngineError(f"no container engine answers on {where}: {cause(error)}", START_HINT) from error

    @property
    def client(self) -> Any:
        """The SDK's, for the others of this package."""
        return self._client

    def version(self) -> str:
        """What engine it is, and its version."""
        with engine_errors("asking the engine for its version failed"):
            found = self._client.version()
        name = next((each["Name"] for each in found.get("Components") or []), "Engine")
        return f"{'Docker' if name == 'Engine' else name} {found['Version']}"

    def reads(self, repository: str) -> bool:
        """Have the engine ask a registry whether it may read there; tell whether it had credentials for that.

        Raises:
            EngineError: If the registry does not answer, or does not let it in.
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
        """Tell whether the engine has an image of that name."""
        return self._image(tag) is not None

    def layers(self, tag: str) -> list[Layer]:
        """The layers of an image that take room, the lowest first."""
        image = self._image(tag)
        with engine_errors(f"looking at {tag} failed"):
            steps = image.history() if image is not None else []
        return [Layer(describe_step(each["CreatedBy"]), int(each["Size"])) for each in reversed(steps) if each["Size"]]

    def labels(self, tag: str) -> dict[str, str]:
        """An image's labels.

        Raises:
            NotFoundError: If the engine has no such image.
        """
        return dict(self._found(tag).labels)

    def read_file(self, tag: str, path: str) -> bytes | None:
        """A file of an image; `None` if it has none there.

        Raises:
            NotFoundError: If the engine has no such image.
        """
        from docker.errors import NotFound

        self._found(tag)
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
        """Fetch an image anew.

        Raises:
            EngineError: If its registry cannot be reached, or has none of that name.
        """
        with engine_errors(f"pulling {tag} failed"):
            self._client.images.pull(*split_tag(tag))

    def tag_image(self, tag: str, alias: str) -> None:
        """Give an image another name."""
        with engine_errors(f"calling {tag} {alias} failed"):
            self._found(tag).tag(*split_tag(alias))

    def remove_stages(self, label: str) -> None:
        """Remove what is kept of build stages with a label, so that nothing copied into them stays on this disk."""
        from docker.errors import APIError

        with engine_errors(f"removing the build stages {label} failed"):
            for attempt in range(_PRUNE_TRIES):
                try:
                    self._client.images.prune({"dangling": True, "label": label})
                    return
                except APIError as error:
                    if error.status_code != HTTPStatus.CONFLICT or attempt == _PRUNE_TRIES - 1:
                        raise
                time.sleep(1)  # another build is at it; the engine does one at a time

    def push(self, tag: str, on_progress: Callable[[str, int, int], None]) -> str:
        """Push an image to its registry, with the credentials that Docker's own configuration has for it.

        Args:
            tag: The image, its registry's name in front.
            on_progress: Called with a layer's id, its bytes that are there, and all of them.

        Returns:
            The digest by which the registry knows it: `sha256:…`.

        Raises:
            EngineError: If the registry cannot be reached, or refuses.
        """
        self._found(tag)
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
        """The engine's id of an image; empty if there is none of that name."""
        image = self._image(tag)
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
            on_line: Called with what the engine says.
            fresh: Use nothing of earlier builds.

        Raises:
            EngineError: If the build fails; the message is the engine's, after what the failing step printed.
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
                        said = "; ".join(line for line in tail if line.lower().startswith("error: "))
                        raise EngineError(
                            f"building {tag} failed: {event['error'].strip()}{f' ({said})' if said else ''}",
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
        """Start a command in a container that sees files of this machine.

        Args:
            image: The image.
            command: What runs in it.
            user: `UID:GID` as whom.
            directory: Its working directory.
            mounts: Files and directories it sees under the same path; true where it may write.
            environment: Its variables.
            network: The engine's default if `None`.

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
                volumes=[f"{each}:{each}:{'rw' if write else 'ro'}" for each, write in mounts.items()],
                environment=dict(environment),
                network_mode=network,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                labels={"newsbert.train": image},
            )
        return Container(container)

    def stop(self, container_id: str, timeout_s: float) -> None:
        """Stop and remove a container; one that is gone already is fine."""
        from docker.errors import NotFound

        with engine_errors(f"looking for container {container_id[:12]} failed"), contextlib.suppress(NotFound):
            Container(self._client.containers.get(container_id)).stop(timeout_s)

    def succeeds(self, container_id: str, command: Sequence[str]) -> bool:
        """Run a command in a container that runs; tell whether it succeeds.

        Raises:
            EngineError: If there is no such container, or it does not run.
        """
        with engine_errors(f"looking for container {container_id[:12]} failed"):
            container = Container(self._client.containers.get(container_id))
        return container.succeeds(command)

    def _found(self, tag: str) -> Any:
        image = self._image(tag)
        if image is None:
            raise NotFoundError(f"the engine has no image {tag!r}", "newsbert build-image MODEL")
        return image

    def _image(self, tag: str) -> Any:
        from docker.errors import ImageNotFound

        with engine_errors(f"looking for {tag} failed"):
            try:
                return self._client.images.get(tag)
            except ImageNotFound:
                return None
