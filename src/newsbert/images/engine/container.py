"""A container that was started: watching, signalling and ending it."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

from newsbert.images.engine.errors import engine_errors


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

        with engine_errors(f"looking for container {self.id[:12]} failed"):
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

        with engine_errors(f"running {command[0]} in container {self.id[:12]} failed"):
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

    def follow(self) -> Iterator[tuple[bytes | None, bytes | None]]:
        """What it writes to standard output and to standard error, from the beginning until it ends.

        Raises:
            EngineError: If the engine goes away.
        """
        with engine_errors(f"container {self.id[:12]} was lost"):
            yield from self._container.attach(stdout=True, stderr=True, stream=True, logs=True, demux=True)

    def send_signal(self, number: int) -> None:
        """Send it a signal; one that has ended is fine."""
        from docker.errors import DockerException

        with contextlib.suppress(DockerException):
            self._container.kill(number)

    def wait(self) -> int:
        """Wait for its end and return its exit code.

        Raises:
            EngineError: If the engine goes away.
        """
        with engine_errors(f"container {self.id[:12]} was lost"):
            return int(self._container.wait()["StatusCode"])

    def remove(self) -> None:
        """Remove it, running or not."""
        from docker.errors import DockerException

        with contextlib.suppress(DockerException):
            self._container.remove(force=True)

    def stop(self, timeout_s: float) -> None:
        """Stop it, which it has `timeout_s` for, and remove it; one that is gone already is fine.

        Raises:
            EngineError: If the engine does not do it.
        """
        from docker.errors import APIError, NotFound

        with engine_errors(f"stopping container {self.id[:12]} failed"), contextlib.suppress(NotFound):
            self._container.stop(timeout=math.ceil(timeout_s))
            with contextlib.suppress(APIError):  # somebody else is removing it
                self._container.remove(force=True)
