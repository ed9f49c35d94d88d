"""A started container: watch, signal and stop it."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

from newsbert.images.engine.errors import engine_errors


class Container:
    """A started container."""

    def __init__(self, container: Any) -> None:
        self._container = container

    @property
    def id(self) -> str:
        """The engine's id of the container."""
        return str(self._container.id)

    def exit_code(self) -> int | None:
        """Return the exit code, `None` while the container runs, or -1 if it was removed.

        Raises:
            EngineError: If the engine does not answer.
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
        """Run a command in the container and return whether its exit code is 0."""
        from docker.errors import APIError

        with engine_errors(f"running {command[0]} in container {self.id[:12]} failed"):
            try:
                return bool(self._container.exec_run(list(command)).exit_code == 0)
            except APIError:  # the container does not run
                return False

    def logs(self) -> str:
        """Return the container's output so far, or an empty text if the engine fails."""
        from docker.errors import DockerException

        try:
            return str(self._container.logs().decode("utf-8", "replace"))
        except DockerException:
            return ""

    def follow(self) -> Iterator[tuple[bytes | None, bytes | None]]:
        """Yield chunks of standard output and standard error, from the container's start until its end.

        Raises:
            EngineError: If the engine goes away.
        """
        with engine_errors(f"container {self.id[:12]} was lost"):
            yield from self._container.attach(stdout=True, stderr=True, stream=True, logs=True, demux=True)

    def send_signal(self, number: int) -> None:
        """Send the container a signal; do nothing if it has ended."""
        from docker.errors import DockerException

        with contextlib.suppress(DockerException):
            self._container.kill(number)

    def wait(self) -> int:
        """Wait for the container's end and return its exit code.

        Raises:
            EngineError: If the engine goes away.
        """
        with engine_errors(f"container {self.id[:12]} was lost"):
            return int(self._container.wait()["StatusCode"])

    def remove(self) -> None:
        """Remove the container, running or not."""
        from docker.errors import DockerException

        with contextlib.suppress(DockerException):
            self._container.remove(force=True)

    def stop(self, timeout_s: float) -> None:
        """Stop the container within `timeout_s` and remove it; do nothing if it is gone already.

        Raises:
            EngineError: If the engine fails to stop it.
        """
        from docker.errors import APIError, NotFound

        with engine_errors(f"stopping container {self.id[:12]} failed"), contextlib.suppress(NotFound):
            self._container.stop(timeout=math.ceil(timeout_s))
            with contextlib.suppress(APIError):  # another client is removing it
                self._container.remove(force=True)
