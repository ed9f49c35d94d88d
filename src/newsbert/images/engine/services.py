"""Containers that stay: of one environment, in one network, found again by their labels."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

from newsbert.images.engine.container import Container
from newsbert.images.engine.engine import PIDS_LIMIT, Engine
from newsbert.images.engine.errors import engine_errors

ENVIRONMENT_LABEL, ROLE_LABEL = "newsbert.environment", "newsbert.role"


class Service(Container):
    """A container that stays."""

    @property
    def name(self) -> str:
        """Its name, which is also its host name for its neighbours."""
        return str(self._container.name)

    @property
    def image(self) -> str:
        """The image that it was made of, as it was asked for."""
        return str(self._container.attrs["Config"]["Image"])

    @property
    def model(self) -> str:
        """The model in it, as its image's label has it; the image, if it has none."""
        return str(self._container.labels.get("newsbert.model", self.image))

    @property
    def runtime(self) -> str:
        """What answers in it, as its image's label has it; empty, if it has none."""
        return str(self._container.labels.get("newsbert.runtime", ""))

    @property
    def published(self) -> str:
        """Where its port is on the engine's machine, `127.0.0.1:8080`; empty if it is not published."""
        bindings = [
            each for found in (self._container.attrs["HostConfig"]["PortBindings"] or {}).values() for each in found
        ]
        return f"{bindings[0]['HostIp']}:{bindings[0]['HostPort']}" if bindings else ""

    @property
    def labels(self) -> dict[str, str]:
        """Its labels, those of its image among them."""
        return dict(self._container.labels)

    def running(self) -> bool:
        """Whether it runs now."""
        return self.exit_code() is None and self._container.status == "running"

    def restarts(self) -> int:
        """How often it has ended by itself and was started again."""
        with engine_errors(f"looking for container {self.name} failed"):
            self._container.reload()
        return int(self._container.attrs["RestartCount"])

    def execute(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a command in it; return its exit code and what it printed.

        Raises:
            EngineError: If it cannot be run there.
        """
        with engine_errors(f"running {command[0]} in container {self.name} failed"):
            ran = self._container.exec_run(list(command))
        return int(ran.exit_code), str(ran.output.decode("utf-8", "replace"))

    def processes(self) -> set[str]:
        """The numbers that its processes have on the engine's machine."""
        with engine_errors(f"looking into container {self.name} failed"):
            found = self._container.top()
        return {each[found["Titles"].index("PID")] for each in found["Processes"]}

    def put(self, directory: str, name: str, content: str) -> None:
        """Write a file that everybody in it may read; a directory of its that is a volume."""
        written, entry = io.BytesIO(), tarfile.TarInfo(name)
        entry.size, entry.mode = len(content.encode()), 0o644
        with tarfile.open(fileobj=written, mode="w") as archive:
            archive.addfile(entry, io.BytesIO(content.encode()))
        with engine_errors(f"writing {name} into container {self.name} failed"):
            self._container.put_archive(directory, written.getvalue())

    def get(self, path: str) -> str | None:
        """A file's text; nothing if it has none there."""
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
        """Start it, where it does not run."""
        with engine_errors(f"starting container {self.name} failed"):
            self._container.start()

    def halt(self, timeout_s: float) -> None:
        """Stop it, which it has `timeout_s` for, and keep it."""
        with engine_errors(f"stopping container {self.name} failed"):
            self._container.stop(timeout=round(timeout_s))


class Services:
    """The containers of an environment.

    Args:
        environment: Its name.
        address: The engine's, as in DOCKER_HOST; the configured one if not given.

    Raises:
        EngineError: If no engine answers.
    """

    def __init__(self, environment: str, address: str | None = None) -> None:
        self.engine = Engine(address)
        self._client = self.engine.client
        self.environment = environment
        self.network = f"newsbert-{environment}"

    def all(self, role: str) -> list[Service]:
        """Those for one purpose, the newest first, whether they run or not."""
        labels = [f"{ENVIRONMENT_LABEL}={self.environment}", f"{ROLE_LABEL}={role}"]
        with engine_errors("listing containers failed"):
            found = self._client.containers.list(all=True, filters={"label": labels}, ignore_removed=True)
        return [Service(each) for each in found]

    def have(self, image: str) -> None:
        """Pull an image, where the engine has none of that name.

        Raises:
            EngineError: If its registry cannot be reached, or has none.
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
        """Make a container without rights that starts again with its engine; it does not run yet.

        Args:
            role: What it is for.
            image: Its image.
            name: Its name.
            command: What runs in it, if not the image's own.
            entrypoint: What runs that.
            environment: Its variables.
            user: As whom, if not the image's.
            published: Its port, and the address and port of the engine's machine.
            volume: A directory that is its own volume.
            labels: Its labels, besides those of its image.

        Raises:
            EngineError: If it cannot be made.
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
