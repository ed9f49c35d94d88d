"""A TorchServe of one's own: start it, wait until the model answers, stop all of it.

The Java frontend is started directly. TorchServe's launcher would keep one pid file for the whole machine and, as
PID 1 of a container, ignore SIGTERM. Everything a server writes is in a directory of its own, so any number of them
run side by side.
"""

import collections
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from importlib import resources, util
from pathlib import Path

from newsbert.core import cpu, uris
from newsbert.core.installation import MissingExtraError
from newsbert.core.processes import die_with_parent
from newsbert.core.settings import ServeSettings
from newsbert.errors import ServingError
from newsbert.serving import archive_check, auth, metrics, probe
from newsbert.serving.archive import ARCHIVE_NAME, served
from newsbert.serving.heartbeat import Activity
from newsbert.serving.protocol import SERVED_NAME
from newsbert.serving.torchserve import java, java_properties, metrics_endpoint, netty, sockets
from newsbert.serving.torchserve.configuration import (
    ACTIVITY_DIR,
    HEAP_OPTIONS,
    MAX_REQUEST_BYTES,
    METRICS_DIR,
    make_environment,
    make_properties,
    read_configured,
)
from newsbert.serving.torchserve.drain import drain
from newsbert.serving.torchserve.endpoints import Address, claimed
from newsbert.serving.torchserve.log_events import Problem, Problems, Record

STORE = "store"
"""Where the copy of the archive is that is served, in a server's directory."""
_ASK_AFTER_S = 10
_HEAP_MB, _MOST_HEAP_MB = 256, 4096

_QUIET_S = 0.15
_LOG_HINT = "see all of its log: newsbert serve locally --debug"
_FATAL = ("Failed to load model", "Backend worker process died")


def _ignore(_problem: Problem) -> None:
    pass


class Server:
    """A running TorchServe.

    Args:
        process: The Java frontend, in a session of its own.
        address: Where it answers.
        work: Its directory.
        settings: How it is watched and stopped.
        batch_delay_s: How long its batches wait to fill.
        on_log: Called with every line that it logs.
        on_problem: Called with every problem that it has.
    """

    def __init__(
        self,
        process: "subprocess.Popen[str]",
        address: Address,
        work: Path,
        settings: ServeSettings,
        batch_delay_s: float,
        on_log: Callable[[str], None],
        on_problem: Callable[[Problem], None],
    ) -> None:
        self.address = address
        self.signed_by: str | None = None
        self.management = work / auth.MANAGEMENT_SOCKET
        self.key_file = work / auth.KEY_FILE if settings.token_auth else None
        self._process = process
        self._settings = settings
        self._batch_delay_s = batch_delay_s
        self._activity = Activity(work / ACTIVITY_DIR)
        self._on_log = on_log
        self._problems = Problems(on_problem)
        self._tail: collections.deque[str] = collections.deque(maxlen=200)
        self._failed = False
        self._ready = False
        self._last_answer = 0
        self._silent_s = 0.0
        self._checked = time.monotonic()
        self._probe: threading.Thread | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_ready(self, timeout_s: float, stop: threading.Event) -> bool:
        """Wait until the model answers a request, or `stop` is set; tell whether it answered.

        Raises:
            ServingError: If the server stops, the model cannot be loaded, or it takes longer than `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while not stop.wait(0.05):
            self.check_process()
            if self._failed:
                raise ServingError(f"the model cannot be loaded: {self._reason()}", _LOG_HINT)
            with contextlib.suppress(ServingError):
                probe.ask(self.address.url, self.key_file, 10)
                self._ready = True
            # gRPC comes last.
            if self._ready and sockets.listening(self._process.pid, self.address.grpc_ports):
                self._answered()
                self._problems.started = True
                # Nobody has business there, and any user of this machine could stop the workers.
                sockets.close(self._process.pid, [self.address.grpc_management_port])
                return True
            if time.monotonic() > deadline:
                raise ServingError(f"no answer after {timeout_s:g} s: {self._reason()}", _LOG_HINT)
        return False

    def check(self) -> None:
        """Do nothing while the server runs and its model answers; to be called every second or oftener.

        A model that nobody has asked for a while is asked whether it answers.

        Raises:
            ServingError: If it has stopped by itself, or its workers are lost.
        """
        self.check_process()
        self._problems.flush()
        now = time.monotonic()
        # At most a second at a time: who has been stopped for an hour himself knows nothing of that hour.
        self._silent_s += min(now - self._checked, 1.0)
        self._checked = now
        last = self._activity.last()
        if last != self._last_answer:
            self._last_answer = last
            self._answered()
        elif self._silent_s > self._settings.lost_s:
            self._ready = False  # nobody is left who could answer what is in flight
            raise ServingError(
                f"the model has not answered for {self._settings.lost_s:g} s: {self._reason()}", "start it again"
            )
        elif self._silent_s > min(_ASK_AFTER_S, self._settings.lost_s / 3) and (
            self._probe is None or not self._probe.is_alive()
        ):
            self._probe = threading.Thread(target=self._ask, daemon=True)
            self._probe.start()

    def stop(self) -> None:
        """Answer what has been asked, then stop the frontend and its workers; returns when none is left."""
        group = self._process.pid
        try:
            if self._ready and self._settings.drain_s and self._process.poll() is None:
                self._drain()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
            self._process.wait()
            self._reader.join(2)
            assert self._process.stdout is not None
            self._process.stdout.close()

    def _drain(self) -> None:
        headers: dict[str, str] = {}
        if self.key_file is not None:
            with contextlib.suppress(ServingError):
                headers = dict([auth.header(auth.valid(self.key_file))])
        drain(
            self._process.pid,
            self.address.connect_host,
            self.address.port,
            other_ports=(self.address.grpc_port,),
            activity=self._activity,
            headers=headers,
            path=urllib.parse.urlsplit(self.address.predictions_url).path,
            quiet_s=self._batch_delay_s + _QUIET_S,
            limit_s=self._settings.drain_s,
            on=lambda: self._process.poll() is None,
        )

    def _answered(self) -> None:
        self._silent_s = 0.0
        self._tail.clear()  # whatever it complained of, it got over it

    def _ask(self) -> None:
        with contextlib.suppress(ServingError):
            probe.ask(self.address.url, self.key_file, _ASK_AFTER_S)
            self._answered()

    def check_process(self) -> None:
        """Do nothing while it runs.

        Raises:
            ServingError: If it has stopped by itself.
        """
        code = self._process.poll()
        if code is not None:
            self._reader.join(2)
            raise ServingError(f"TorchServe stopped by itself (exit code {code}): {self._reason()}", "start it again")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            record = Record.parse(line.rstrip())
            text = record.text
            self._tail.extend(filter(None, [record.message, record.exception.partition("\n")[0]]))
            if any(sign in text for sign in _FATAL):
                self._failed = True
            self._on_log(text)
            self._problems.read(record)
        self._problems.flush(at_once=True)

    def _reason(self) -> str:
        """What looks most like a reason of what it logged since it last answered."""
        lines = list(self._tail)
        telling = [line for line in lines if "Error" in line or "Exception" in line]
        return (telling or lines or ["it logged nothing"])[-1].strip()


@contextlib.contextmanager
def serving(
    archive: Path,
    settings: ServeSettings,
    work: Path,
    on_log: Callable[[str], None],
    on_problem: Callable[[Problem], None] = _ignore,
) -> Iterator[Server]:
    """Run TorchServe with an archive until the block ends.

    Args:
        archive: The model archive; a copy in `work` is checked and served, whatever becomes of the file.
        settings: Host, ports (0 takes a free one), tokens, and how it is watched and stopped.
        work: A private directory, for all that it writes.
        on_log: Called with every line that it logs.
        on_problem: Called with every problem that it has.

    Raises:
        ModelError: If the archive could do anything but answer with its model.
        ServingError: If it cannot be started, a port in use among the reasons.
    """
    store = work / STORE
    store.mkdir()
    copy = store / ARCHIVE_NAME
    signed_by = archive_check.take(archive, copy)
    if not served(copy).runtime.startswith("torch"):
        (work / "lib").mkdir()
        shutil.copy(Path(__file__).with_name("torch_stub.py"), work / "lib" / "torch.py")
    with _started(store.resolve(), ARCHIVE_NAME, settings, work, on_log, on_problem) as server:
        server.signed_by = signed_by
        yield server


@contextlib.contextmanager
def empty(model_store: Path, settings: ServeSettings, work: Path, on_log: Callable[[str], None]) -> Iterator[Server]:
    """Run TorchServe without a model until the block ends; models are registered over its management socket.

    Args:
        model_store: Where the archives are that it may register.
        settings: As of `serving`.
        work: As of `serving`.
        on_log: As of `serving`.

    Raises:
        ServingError: If it cannot be started.
    """
    with _started(model_store.resolve(), None, settings, work, on_log, _ignore) as server:
        yield server


@contextlib.contextmanager
def _started(
    model_store: Path,
    model: str | None,
    settings: ServeSettings,
    work: Path,
    on_log: Callable[[str], None],
    on_problem: Callable[[Problem], None],
) -> Iterator[Server]:
    frontend = util.find_spec("ts")
    if frontend is None or frontend.origin is None:
        raise MissingExtraError("torchserve", "serve")
    if util.find_spec("prometheus_client") is None:
        raise MissingExtraError("prometheus_client", "serve")
    ts_home = Path(frontend.origin).parent
    java_binary = java.find()
    for name in ("tmp", "logs", ACTIVITY_DIR, METRICS_DIR):
        (work / name).mkdir()
    with (
        resources.as_file(resources.files("newsbert") / "serving/assets/log4j2.xml") as log_config,
        resources.as_file(resources.files("newsbert") / "serving/assets/metrics.yaml") as metrics_config,
        claimed(settings) as address,
        metrics_endpoint.answering(
            address.metrics_host,
            address.metrics_port,
            address.frontend_metrics_port,
            lambda: metrics.page(work / METRICS_DIR),
        ),
    ):
        configured = read_configured(model_store / model) if model else {}
        # A full queue of the largest bodies, each held more than once.
        queue_mb = configured.get("jobQueueSize", settings.queue_size) * MAX_REQUEST_BYTES // 2**20
        heap_mb = min(_HEAP_MB + 3 * queue_mb, _MOST_HEAP_MB)
        properties = make_properties(address, model_store, model, work, settings)
        properties["metrics_config"] = metrics_config.resolve()
        try:
            (work / "config.properties").write_bytes(java_properties.dump(properties))
        except ValueError as error:  # a name of bytes that are not UTF-8, which Java cannot open either
            raise ServingError(
                f"TorchServe cannot use a path that is not UTF-8: {error}", "give another: --run-dir /tmp/newsbert"
            ) from error
        process = subprocess.Popen(
            [
                str(java_binary),
                f"-Dmodel_server_home={ts_home.parent}",
                f"-Djava.io.tmpdir={work / 'tmp'}",
                f"-Djava.library.path={netty.directory(ts_home / 'frontend', work)}",
                f"-Dlog4j.configurationFile={uris.as_uri(log_config.resolve())}",
                "-Dlog4j2.disableJmx=true",
                # On two cores it would be 1, and with 1 a thread is started for every batch that goes to a worker.
                f"-Djava.util.concurrent.ForkJoinPool.common.parallelism={max(2, cpu.cores() - 1)}",
                # The cores are the model's: what compiles and collects beside it takes more of them than it saves.
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                f"-Xmx{heap_mb}m",  # otherwise it grows to a quarter of the machine before it collects
                *HEAP_OPTIONS,
                "-XX:+ExitOnOutOfMemoryError",
                "-XX:-UsePerfData",  # it would be written to /tmp, whatever java.io.tmpdir says
                "-cp",
                str(ts_home / "frontend" / "*"),
                "org.pytorch.serve.ModelServer",
                "--python",
                sys.executable,
                "-f",
                str(work / "config.properties"),
                "-s",
                str(model_store),
                "-ncs",
                *(["-m", f"{SERVED_NAME}={model}"] if model else []),
            ],
            cwd=work,  # where it writes its key file
            env=make_environment(work, settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            umask=0o077,
            start_new_session=True,
            preexec_fn=_detach_from_signals,  # noqa: PLW1509 - it makes two system calls and nothing else
        )
        batch_delay_s = configured.get("maxBatchDelay", 0) / 1000
        server = Server(process, address, work, settings, batch_delay_s, on_log, on_problem)
        try:
            yield server
        finally:
            server.stop()


def _detach_from_signals() -> None:
    """In the child: have the kernel end it when we are killed and cannot (Linux), and let it be our part to end it.

    A service manager may send SIGTERM to all that it has started, and Java would cut off at once who is being answered.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent(signal.SIGKILL)
