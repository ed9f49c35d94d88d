"""Ray clusters: one of this machine's cores for the duration of the work, or one that already runs.

Ray is an optional dependency: this module imports it only when workers are requested.
"""

import contextlib
import importlib.util
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from newsbert.core import cpu, environment, temporary
from newsbert.core.installation import MissingExtraError
from newsbert.core.settings import RaySettings
from newsbert.errors import NewsbertError, UsageError, first_line

_CONNECT_S = 5.0
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_HTTP2_SETTINGS = 4
"""The start of an HTTP/2 connection, including an empty SETTINGS frame, and the type of the frame that answers it.

Source: https://www.rfc-editor.org/rfc/rfc9113 (3.4, 4.1)
"""


@dataclass(frozen=True)
class RayCluster:
    """A cluster to which this process is connected.

    Attributes:
        workers: Number of requested workers.
        worker_cores: Cores per worker.
        node: Ray's id of the node on which this process runs.
    """

    workers: int
    worker_cores: int
    node: str

    def beside(self, kind: type) -> Any:
        """Return a class as a Ray actor that runs on the node of this process, and so lives as long."""
        import ray

        return ray.remote(num_cpus=0, label_selector=self.here)(kind)

    @property
    def here(self) -> dict[str, str]:
        """Ray's label selector for the node of this process."""
        return {"ray.io/node-id": self.node}


def check(settings: RaySettings) -> None:
    """Check that the workers are available, as far as this is possible without Ray.

    Raises:
        MissingExtraError: If Ray is not installed.
        UsageError: If there are fewer cores here than workers, or the address has an unsupported form.
        NewsbertError: If no cluster answers at the address.
    """
    address = _get_address(settings)
    if address is None and settings.workers > cpu.cores():
        raise UsageError(
            f"{settings.workers} workers need as many cores, and here are {cpu.cores()}",
            f"--ray-workers {cpu.cores()}, or --ray-address for a cluster",
        )
    _check_reachable(address)
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("ray", "ray")


def _get_address(settings: RaySettings) -> str | None:
    """Return the address of a cluster; `None` for a cluster of this machine's cores."""
    return None if settings.address == "local" else settings.address


@contextlib.contextmanager
def connected(settings: RaySettings, on_note: Callable[[str], None]) -> Iterator[RayCluster]:
    """Start Ray on this machine, or connect to the cluster at the configured address.

    Args:
        settings: Number of workers, and address of the cluster.
        on_note: Called with messages for the user.

    Raises:
        MissingExtraError: If Ray is not installed.
        UsageError: If there are fewer cores here than workers, or the address has an unsupported form.
        NewsbertError: If there is no cluster, or the connection fails.
    """
    check(settings)
    address = _get_address(settings)
    environment.silence_ray()  # Ray reads the environment when it is imported
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("ray[data]", "ray") from error
    _silence_logging()
    with contextlib.ExitStack() as stack:
        init_options: dict[str, Any] = {"address": address}
        if address is None:
            # Ray's default directory retains the logs of all runs, and a socket's path has at most 107 characters.
            directory = str(stack.enter_context(temporary.directory(Path("/tmp"))))  # noqa: S108 - it is private
            init_options = {
                "address": "local",
                "num_cpus": cpu.cores(),
                "include_dashboard": False,
                "_temp_dir": directory,
            }
            stack.enter_context(_restrict_access())
        handler = signal.getsignal(signal.SIGTERM)
        stack.callback(ray.shutdown)
        try:
            with _redirect_native_output(os.devnull):
                _init_ray(init_options)
        except Exception as error:  # Ray's errors here have no narrower base class
            raise NewsbertError(
                f"Ray cannot be {'started' if address is None else f'reached at {address!r}'}: {first_line(error)}",
                "run this on a node of the cluster, with the cluster's versions of Python and Ray: ray status"
                if address
                else "try again when this machine has less to do",
            ) from error
        finally:
            with contextlib.suppress(ValueError):  # not in the main thread
                signal.signal(signal.SIGTERM, handler)  # Ray has installed its own handler
        cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        worker_cores, room = divide_cores(cores, settings.workers)
        if room < settings.workers:
            on_note(
                f"the cluster has room for {room} of {settings.workers} workers now: "
                "predicting begins with these, training when it has room for all"
            )
        yield RayCluster(settings.workers, worker_cores, ray.get_runtime_context().get_node_id())


@contextlib.contextmanager
def _restrict_access() -> Iterator[None]:
    """Make a cluster of this machine listen on 127.0.0.1 only, and require a token of this process."""
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    def read_environment() -> None:
        """Make Ray read the environment again, which it has read on import."""
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()

    # Ray does the same on systems where it supports no clusters of several machines.
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        with environment.ray_token():
            read_environment()
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        read_environment()


class _EmptyPathList(list[str]):
    """The module paths that Ray puts first on workers, always empty: Ray would add the working directory."""

    def extend(self, paths: Any) -> None:
        """Ignore the paths."""


def _init_ray(where: dict[str, Any]) -> None:
    import ray
    from ray.job_config import JobConfig

    job = JobConfig()
    job._py_driver_sys_path = _EmptyPathList()
    for tries_left in (1, 0) if where["address"] == "local" else (0,):
        try:
            ray.init(**where, job_config=job, log_to_driver=False, logging_level=logging.CRITICAL)
            return
        except Exception:
            # On a busy machine, Ray's processes may need more than the 30 s that Ray waits for them; they are in memory
            # the second time.
            ray.shutdown()
            if not tries_left:
                raise


def divide_cores(cores: Sequence[int], workers: int) -> tuple[int, int]:
    """Return the cores per worker on nodes with these cores, and the number of workers that then fit."""
    for worker_cores in range(max(cores, default=1), 0, -1):
        if sum(node // worker_cores for node in cores) >= workers:
            return worker_cores, workers
    return 1, sum(cores)


def _check_reachable(address: str | None) -> None:
    """Check that a gRPC server answers at the address, as the head of a cluster does.

    This takes seconds; Ray itself tries for minutes.

    Raises:
        UsageError: If the address has an unsupported form.
        NewsbertError: If no gRPC server answers.
    """
    if address is None or address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not port.isdigit() or int(port) > 65_535:
        raise UsageError(
            f"{address!r} is no address of a Ray cluster that can be used from one of its nodes",
            "give HOST:PORT of its head (6379 is usual) or auto; from elsewhere: ray job submit",
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S) as connection:
            connection.sendall(_HTTP2_PREFACE)
            if connection.recv(9)[3:4] != bytes([_HTTP2_SETTINGS]):
                raise ConnectionError("what listens there is none")
    except OSError as error:
        reason = error.strerror or error
        raise NewsbertError(f"no Ray cluster at {address!r}: {reason}", "ray start --head") from error


def _silence_logging() -> None:
    """Keep Ray's own logs off the terminal: failures are raised."""
    import ray._private.worker as driver

    # Ray would report the replacement of a dead worker on standard output, which is for the result. Ray
    # itself turns this off for its debugger.
    driver._worker_logs_enabled = False
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _redirect_native_output(file: str | Path) -> Iterator[None]:
    """Redirect what native code writes to standard output and error to a file: Ray announces there what it will log."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = [(number, os.dup(number)) for number in (1, 2)]
    target = os.open(file, os.O_WRONLY)
    try:
        for number, _ in before:
            os.dup2(target, number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.close(target)
        for number, saved in before:
            os.dup2(saved, number)
            os.close(saved)
