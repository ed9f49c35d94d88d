"""A TorchServe of one's own: start it, wait until the model answers, stop all of it.

The Java frontend is started directly. TorchServe's launcher would keep one pid file for the whole machine and, as
PID 1 of a container, ignore SIGTERM. Everything a server writes is in a directory of its own, so any number of them
run side by side.
"""

import collections
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources, util
from pathlib import Path

from newsbert import config, java, loopback, runtimes
from newsbert.archive import SERVED_NAME, served
from newsbert.config import ServeSettings
from newsbert.errors import MissingExtraError, ServingError, UsageError

MAX_REQUEST_BYTES = 1024 * 1024
STOP_TIMEOUT_S = 10
_LOOPBACK = "127.0.0.1"
_PR_SET_PDEATHSIG = 1
_FATAL = ("Failed to load model", "Backend worker process died")


@dataclass(frozen=True)
class Address:
    """Where a server's model answers."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The base URL to reach it by from this machine."""
        return f"http://{_LOOPBACK if self.host == '0.0.0.0' else self.host}:{self.port}"  # noqa: S104

    @property
    def predictions_url(self) -> str:
        """The URL that takes texts."""
        return f"{self.url}/predictions/{SERVED_NAME}"


class Server:
    """A running TorchServe.

    Args:
        process: The Java frontend, in a session of its own.
        address: Where it answers.
        on_log: Called with every line that it logs.
    """

    def __init__(self, process: "subprocess.Popen[str]", address: Address, on_log: Callable[[str], None]) -> None:
        self.address = address
        self._process = process
        self._on_log = on_log
        self._tail: collections.deque[str] = collections.deque(maxlen=200)
        self._failed = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_ready(self, timeout_s: float, stop: threading.Event) -> bool:
        """Wait until the model answers a request, or `stop` is set; tell whether it answered.

        Raises:
            ServingError: If the server stops, the model cannot be loaded, or it takes longer than `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        request = urllib.request.Request(
            self.address.predictions_url, b"ready?", {"Content-Type": "text/plain", "Accept": "text/plain"}
        )
        while not stop.wait(0.05):
            self.check()
            if self._failed:
                raise ServingError(f"the model cannot be loaded: {self._reason()}", "see its log above")
            with contextlib.suppress(OSError), loopback.urlopen(request, timeout=10):
                return True
            if time.monotonic() > deadline:
                raise ServingError(f"no answer after {timeout_s:g} s: {self._reason()}", "see its log above")
        return False

    def check(self) -> None:
        """Do nothing while the server runs.

        Raises:
            ServingError: If it has stopped by itself.
        """
        code = self._process.poll()
        if code is not None:
            self._reader.join(2)
            raise ServingError(f"TorchServe stopped by itself (exit code {code}): {self._reason()}", "start it again")

    def stop(self) -> None:
        """Stop the frontend and its workers; returns when none is left."""
        group = self._process.pid
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
            self._process.wait()
            self._reader.join(2)
            assert self._process.stdout is not None
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._tail.append(line.rstrip())
            if any(sign in line for sign in _FATAL):
                self._failed = True
            self._on_log(line.rstrip())

    def _reason(self) -> str:
        """The last thing it logged that looks like a reason."""
        lines = list(self._tail)
        telling = [line for line in lines if "Error" in line or "Exception" in line]
        return (telling or lines or ["it logged nothing"])[-1].strip()


@contextlib.contextmanager
def serving(archive: Path, settings: ServeSettings, on_log: Callable[[str], None]) -> Iterator[Server]:
    """Run TorchServe with an archive; it is stopped and its directory removed on the way out.

    Args:
        archive: The model archive.
        settings: Host, port (0 takes a free one) and workers.
        on_log: Called with every line that it logs.

    Raises:
        ServingError: If it cannot be started, a port in use among the reasons.
    """
    frontend = util.find_spec("ts")
    if frontend is None or frontend.origin is None:
        raise MissingExtraError("torchserve", "serve")
    ts_home = Path(frontend.origin).parent
    java_binary, archive_runtime = java.find(), served(archive).runtime
    archive = archive.resolve()
    address = Address(settings.host, claim_port(settings.host, settings.port))
    # A short path, since the sockets between frontend and workers are in it, and ours alone.
    with tempfile.TemporaryDirectory(prefix="newsbert-") as directory:
        work = Path(directory)
        (work / "tmp").mkdir()
        if archive_runtime == runtimes.DEFAULT:
            (work / "lib").mkdir()
            shutil.copy(Path(__file__).with_name("torch_standin.py"), work / "lib" / "torch.py")
        (work / "config.properties").write_text(_properties(address, archive, work), encoding="utf-8")
        with resources.as_file(resources.files("newsbert") / "log4j2.xml") as log_config:
            process = subprocess.Popen(
                [
                    str(java_binary),
                    f"-Dmodel_server_home={ts_home.parent}",
                    f"-Djava.io.tmpdir={work / 'tmp'}",
                    f"-Dlog4j.configurationFile={log_config.resolve().as_uri()}",
                    "-Dlog4j2.disableJmx=true",
                    "-cp",
                    str(ts_home / "frontend" / "*"),
                    "org.pytorch.serve.ModelServer",
                    "--python",
                    sys.executable,
                    "-f",
                    str(work / "config.properties"),
                    "-s",
                    str(archive.parent),
                    "-ncs",
                    "-m",
                    f"{SERVED_NAME}={archive.name}",
                ],
                cwd=work,
                env=_environment(work),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - it calls prctl and nothing else
            )
            server = Server(process, address, on_log)
            try:
                yield server
            finally:
                server.stop()


def claim_port(host: str, port: int) -> int:
    """Return `port` if it is free on `host`, or a free one for 0.

    Raises:
        UsageError: If the host is empty or an IPv6 address.
        ServingError: If it is in use or no port, or the host is none of this machine's.
    """
    if not host:
        raise UsageError("--host is empty", "give an address of this machine, such as 127.0.0.1")
    if ":" in host:
        raise UsageError(f"--host {host}: TorchServe listens on IPv4 addresses only", "give one, such as 127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, UnicodeError, OverflowError) as error:  # the latter: no name, no port that could be
            reason = getattr(error, "strerror", None) or str(error)
            raise ServingError(
                f"cannot listen on {host}:{port}: {reason}", "newsbert serve locally --port 0 takes a free port"
            ) from error
        return int(probe.getsockname()[1])


def _properties(address: Address, archive: Path, work: Path) -> str:
    """TorchServe's configuration: the model on the given address, metrics and gRPC on loopback.

    Management is a socket in a directory of ours alone: on a port, any user of this machine could stop the workers.
    """
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(4):
            # Held until all are chosen, so that no two are the same.
            probe = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            probe.bind((_LOOPBACK, 0))
            ports.append(probe.getsockname()[1])
    metrics, grpc_inference, grpc_management, workers = ports
    values = {
        "inference_address": f"http://{address.host}:{address.port}",
        "management_address": f"unix:{work / 'management.sock'}",
        "metrics_address": f"http://{_LOOPBACK}:{metrics}",
        "grpc_inference_address": _LOOPBACK,
        "grpc_management_address": _LOOPBACK,
        "grpc_inference_port": grpc_inference,
        "grpc_management_port": grpc_management,
        "initial_worker_port": workers,
        "model_store": archive.parent,
        "load_models": f"{SERVED_NAME}={archive.name}",
        "default_workers_per_model": 1,
        "allowed_urls": "file:///nowhere",
        "enable_model_api": "false",
        "disable_token_authorization": "true",
        "disable_system_metrics": "true",
        "enable_envvars_config": "false",
        # Bodies go to the handler as bytes: decoded here, broken JSON would be passed on as if it were text.
        "decode_input_request": "false",
        "install_py_dep_per_model": "false",
        "number_of_gpu": 0,
        "max_request_size": MAX_REQUEST_BYTES,
        "max_response_size": 16 * MAX_REQUEST_BYTES,
        "default_startup_timeout": 120,
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())


def _environment(work: Path) -> dict[str, str]:
    """The frontend's and its workers' environment."""
    return config.child_environment(
        LOG_LOCATION=str(work / "logs"),
        METRICS_LOCATION=str(work / "logs"),
        TEMP=str(work / "tmp"),
        TMPDIR=str(work / "tmp"),
        PYTHONUNBUFFERED="1",
        PYTHONPATH=os.pathsep.join(filter(None, [str(work / "lib"), config.python_path()])),
    )


def _die_with_parent() -> None:
    """Have the kernel stop the frontend when we are killed and cannot (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
