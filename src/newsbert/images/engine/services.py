"""Long-running containers of an environment: they use one network and are identified by their labels."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

from newsbert.images.engine.container import Container
from newsbert.images.engine.engine import PIDS_LIMIT, Engine
from newsbert.images.engine.errors import engine_errors

ENVIRONMENT_LABEL, ROLE_LABEL = "newsbert.environment", "newsbert.role"


class Service(Container):
    """A long-running container."""

    @property
    def name(self) -> str:
        """The container's name, which is also its host name in the network."""
        return str(self._container.name)

    @property
    def image(self) -> str:
        """The image that the container was created from, as named at its creation."""
        return str(self._container.attrs["Config"]["Image"])

    @property
    def model(self) -> str:
        """The model in the container, from the image's label; without a label, the image."""
        return str(self._container.labels.get("newsbert.model", self.image))

    @property
    def runtime(self) -> str:
        """The runtime in the container, from the image's label; without a label, empty."""
        return str(self._container.labels.get("newsbert.runtime", ""))

    @property
    def published(self) -> str:
        """The published address on the engine's machine, `127.0.0.1:8080`; empty if no port is published."""
        bindings = [
            binding
            for port_bindings in (self._container.attrs["HostConfig"]["PortBindings"] or {}).values()
            for binding in port_bindings
        ]
        return f"{bindings[0]['HostIp']}:{bindings[0]['HostPort']}" if bindings else ""

    @property
    def labels(self) -> dict[str, str]:
        """The container's labels, including those of its image."""
        return dict(self._container.labels)

    def running(self) -> bool:
        """Return whether the container runs."""
        return self.exit_code() is None and self._container.status == "running"

    def restarts(self) -> int:
        """Return the number of times that the container ended by itself and was restarted."""
        with engine_errors(f"looking for container {self.name} failed"):
            self._container.reload()
        return int(self._container.attrs["RestartCount"])

    def execute(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a command in the container and return its exit code and output.

        Raises:
            EngineError: If the command cannot be run there.
        """
        with engine_errors(f"running {command[0]} in container {self.name} failed"):
            result = self._container.exec_run(list(command))
        return int(result.exit_code), str(result.output.decode("utf-8", "replace"))

    def processes(self) -> set[str]:
        """Return the ids of the container's processes on the engine's machine."""
        with engine_errors(f"looking into container {self.name} failed"):
            table = self._container.top()
        return {row[table["Titles"].index("PID")] for row in table["Processes"]}

    def put(self, directory: str, name: str, content: str) -> None:
        """Write a file that all users in the container can read into a directory that is a volume."""
        buffer, entry = io.BytesIO(), tarfile.TarInfo(name)
        entry.size, entry.mode = len(content.encode()), 0o644
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(entry, io.BytesIO(content.encode()))
        with engine_errors(f"writing {name} into container {self.name} failed"):
            self._container.put_archive(directory, buffer.getvalue())

    def get(self, path: str) -> str | None:
        """Return a file's text, or `None` if there is no such file."""
        from docker.errors import NotFound

        with engine_errors(f"reading {path} of container {self.name} failed"):
            try:
                stream, _ = self._container.get_archive(path)
            except NotFound:
                return None
            with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
                content = archive.extractfile(archive.next() or path)
                return content.read().decode("utf-8") if content is not None else None

    def start(self) -> None:
        """Start the container, if it does not run."""
        with engine_errors(f"starting container {self.name} failed"):
            self._container.start()

    def halt(self, timeout_s: float) -> None:
        """Stop the container within `timeout_s`, but do not remove it."""
        with engine_errors(f"stopping container {self.name} failed"):
            self._container.stop(timeout=round(timeout_s))


class Services:
    """The containers of an environment.

    Args:
        environment: The environment's name.
        address: The engine's address, as in DOCKER_HOST; default: the configured one.

    Raises:
        EngineError: If no engine answers.
    """

    def __init__(self, environment: str, address: str | None = None) -> None:
        self.engine = Engine(address)
        self._client = self.engine.client
        self.environment = environment
        self.network = f"newsbert-{environment}"

    def all(self, role: str) -> list[Service]:
        """Return the containers of a role, running or not, the newest first."""
        labels = [f"{ENVIRONMENT_LABEL}={self.environment}", f"{ROLE_LABEL}={role}"]
        with engine_errors("listing containers failed"):
            containers = self._client.containers.list(all=True, filters={"label": labels}, ignore_removed=True)
        return [Service(container) for container in containers]

    def have(self, image: str) -> None:
        """Pull an image, if the engine has none of that name.

        Raises:
            EngineError: If its registry cannot be reached, or has no such image.
        """
        if not self.engine.has_image(image):
            self.engine.pull(image)

    def make(  # noqa: PLR0913 - options by name
        self,
        role: str,
        image: str,
        name: str,
        *,
        command: Sequence[str] | None = None,
        entrypoint: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        published: tuple[int, str, int] | None = None,
        volume: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Service:
        """Create an unprivileged container that restarts with its engine; it does not run yet.

        Args:
            role: The container's role.
            image: The image.
            name: The container's name.
            command: The command; default: the image's.
            entrypoint: The entrypoint, which runs the command; default: the image's.
            environment: Environment variables.
            user: The user that runs it; default: the image's.
            published: The container's port, and the address and port of it on the engine's machine.
            volume: A directory in the container that gets its own volume.
            labels: Labels, besides those of the image.

        Raises:
            EngineError: If the container cannot be created.
        """
        with engine_errors(f"making container {name} failed"):
            if not self._client.networks.list(names=[f"^{self.network}$"]):
                self._client.networks.create(self.network, labels={ENVIRONMENT_LABEL: self.environment})
            options: dict[str, Any] = {"volumes": {f"{name}-data": {"bind": volume, "mode": "rw"}}} if volume else {}
            if published is not None:
                inside, host, port = published
                options["ports"] = {f"{inside}/tcp": (host, port)}
            container = self._client.containers.create(
                image,
                list(command) if command else None,
                entrypoint=list(entrypoint) if entrypoint else None,
                name=name,
                user=user,
                network=self.network,
                read_only=True,
                tmpfs={"/tmp": "mode=1777"},  # noqa: S108 - the container's, not this machine's
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                pids_limit=PIDS_LIMIT,
                restart_policy={"Name": "unless-stopped"},
                environment=dict(environment or {}),
                labels={**(labels or {}), ENVIRONMENT_LABEL: self.environment, ROLE_LABEL: role},
                **options,
            )
        return Service(container)
