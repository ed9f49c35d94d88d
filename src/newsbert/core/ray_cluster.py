"""Ray: a cluster of this machine's cores for as long as it takes, or one that runs already.

Ray comes with an extra; nothing here imports it before workers are asked for.
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
"""What begins a connection, an empty frame of settings behind it, and the type of frame that answers.

Source: https://www.rfc-editor.org/rfc/rfc9113 (3.4, 4.1)
"""


@dataclass(frozen=True)
class RayCluster:
    """A cluster that this process is connected to.

    Attributes:
        workers: How many workers are wanted.
        worker_cores: Cores for each of them.
        node: Ray's id of the node on which this process runs.
    """

    workers: int
    worker_cores: int
    node: str

    def beside(self, kind: type) -> Any:
        """A class as a Ray actor that runs beside this process, and so lives as long."""
        import ray

        return ray.remote(num_cpus=0, label_selector=self.here)(kind)

    @property
    def here(self) -> dict[str, str]:
        """What Ray calls the node of this process."""
        return {"ray.io/node-id": self.node}


def check(settings: RaySettings) -> None:
    """See whether the workers can be had, as far as that takes no Ray.

    Raises:
        MissingExtraError: If Ray is not installed.
        UsageError: If there are fewer cores here than workers, or the address is none that Ray can be reached at.
        NewsbertError: If there is nothing at it.
    """
    address = _address(settings)
    if address is None and settings.workers > cpu.cores():
        raise UsageError(
            f"{settings.workers} workers need as many cores, and here are {cpu.cores()}",
            f"--workers {cpu.cores()}, or --ray-address for a cluster",
        )
    _look_for(address)
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("ray", "ray")


def _address(settings: RaySettings) -> str | None:
    """Of a cluster; nothing for one of this machine's cores."""
    return None if settings.address == "local" else settings.address


@contextlib.contextmanager
def connected(settings: RaySettings, on_note: Callable[[str], None]) -> Iterator[RayCluster]:
    """Start Ray on this machine, or connect to the cluster at the given address.

    Args:
        settings: How many workers, and where.
        on_note: Called with what the user should know.

    Raises:
        MissingExtraError: If Ray is not installed.
        UsageError: If there are fewer cores here than workers, or the address is none that Ray can be reached at.
        NewsbertError: If there is no cluster, or it cannot be connected to.
    """
    check(settings)
    address = _address(settings)
    environment.silence_ray()  # Ray reads the environment when it is imported
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("ray[data]", "ray") from error
    _quiet()
    with contextlib.ExitStack() as stack:
        where: dict[str, Any] = {"address": address}
        if address is None:
            # Ray's own place keeps the logs of every run; a socket's path in it may have no more than 107 characters.
            directory = str(stack.enter_context(temporary.directory(Path("/tmp"))))  # noqa: S108 - it is ours alone
            where = {"address": "local", "num_cpus": cpu.cores(), "include_dashboard": False, "_temp_dir": directory}
            stack.enter_context(_closed())
        handler = signal.getsignal(signal.SIGTERM)
        stack.callback(ray.shutdown)
        try:
            with _native_output_into(os.devnull):
                _init(where)
        except Exception as error:  # what Ray raises there has no base class but this
            raise NewsbertError(
                f"Ray cannot be {'started' if address is None else f'reached at {address!r}'}: {first_line(error)}",
                "run this on a node of the cluster, with the cluster's versions of Python and Ray: ray status"
                if address
                else "try again when this machine has less to do",
            ) from error
        finally:
            with contextlib.suppress(ValueError):  # not in the main thread
                signal.signal(signal.SIGTERM, handler)  # Ray has put its own there
        cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        worker_cores, room = share(cores, settings.workers)
        if room < settings.workers:
            on_note(
                f"the cluster has room for {room} of {settings.workers} workers now: "
                "predicting begins with these, training when it has room for all"
            )
        yield RayCluster(settings.workers, worker_cores, ray.get_runtime_context().get_node_id())


@contextlib.contextmanager
def _closed() -> Iterator[None]:
    """Have a cluster of this machine listen on 127.0.0.1 alone, and obey whoever has a token of this process."""
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    def read_environment() -> None:
        """Have Ray read what it read when it was imported."""
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()

    # As on systems for which Ray knows no clusters of several machines.
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        with environment.ray_token():
            read_environment()
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        read_environment()


class _NoPaths(list[str]):
    """Where Ray has workers look for modules before all other places: it would add the working directory."""

    def extend(self, paths: Any) -> None:
        """Leave them out."""


def _init(where: dict[str, Any]) -> None:
    import ray
    from ray.job_config import JobConfig

    job = JobConfig()
    job._py_driver_sys_path = _NoPaths()
    for tries_left in (1, 0) if where["address"] == "local" else (0,):
        try:
            ray.init(**where, job_config=job, log_to_driver=False, logging_level=logging.CRITICAL)
            return
        except Exception:
            # A machine that has much to do may take longer than the 30 s that Ray waits for its own processes; they
            # are in memory the second time.
            ray.shutdown()
            if not tries_left:
                raise


def share(cores: Sequence[int], workers: int) -> tuple[int, int]:
    """How many cores each worker can have, of nodes with these, and how many of the workers then have room."""
    for each in range(max(cores, default=1), 0, -1):
        if sum(node // each for node in cores) >= workers:
            return each, workers
    return 1, sum(cores)


def _look_for(address: str | None) -> None:
    """See in seconds whether gRPC is spoken there, as by the head of a cluster: Ray itself tries for minutes.

    Raises:
        UsageError: If the address is not of a form that can be used here.
        NewsbertError: If nothing does.
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


def _quiet() -> None:
    """Keep Ray's own account of what it does off the terminal: what fails is raised."""
    import ray._private.worker as driver

    # A worker that died and is replaced would be told of on standard output, which is for the result: this is what
    # Ray itself turns off for its debugger.
    driver._worker_logs_enabled = False
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _native_output_into(file: str | Path) -> Iterator[None]:
    """Send there what is written past Python to standard output and error: Ray says there how much it will log."""
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
        for number, kept in before:
            os.dup2(kept, number)
            os.close(kept)
