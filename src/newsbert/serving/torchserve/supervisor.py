"""Supervision of newsbert's own TorchServe: start it, wait until the model answers, stop it completely.

The Java frontend is started directly. TorchServe's launcher would use one pid file for the whole machine and, as PID 1
of a container, ignore SIGTERM. A server writes only to its own directory, so any number of servers can run side by
side.
"""

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import resources, util
from pathlib import Path

from newsbert.core import cpu, loopback, uris, waiting
from newsbert.core.installation import MissingExtraError
from newsbert.core.ports import LOOPBACK
from newsbert.core.processes import die_with_parent
from newsbert.core.settings import ServeSettings
from newsbert.errors import ServingError
from newsbert.serving import archive_check, metrics, metrics_endpoint
from newsbert.serving.archive import ARCHIVE_NAME, served
from newsbert.serving.endpoints import reserved_endpoints
from newsbert.serving.protocol import METRICS_PATH, SERVED_NAME
from newsbert.serving.server_events import ServerEvent
from newsbert.serving.torchserve import java_properties, jvm
from newsbert.serving.torchserve.configuration import (
    ACTIVITY_DIR,
    HEAP_OPTIONS,
    MAX_REQUEST_BYTES,
    METRICS_DIR,
    make_environment,
    make_properties,
    read_configured,
)
from newsbert.serving.torchserve.process import Server

STORE = "store"
"""Subdirectory of a server's directory for the copy of the archive that is served."""
_START_TIMEOUT_S = 60
_BASE_HEAP_MB, _MAX_HEAP_MB = 256, 4096


def _ignore_problem(_problem: ServerEvent) -> None:
    pass


@contextlib.contextmanager
def serving(
    archive: Path,
    settings: ServeSettings,
    work: Path,
    on_log: Callable[[str], None],
    on_problem: Callable[[ServerEvent], None] = _ignore_problem,
) -> Iterator[Server]:
    """Run TorchServe with an archive until the block ends.

    Args:
        archive: The model archive; a copy in `work` is checked and served, so later changes of the file do not matter.
        settings: Host, ports (0 takes a free one), tokens, monitoring and shutdown.
        work: A private directory for all files of the server.
        on_log: Called with every line of the log.
        on_problem: Called with every problem of the server.

    Raises:
        ModelError: If the archive could do more than answer with its model.
        ServingError: If the server cannot be started, for example because a port is in use.
    """
    store = work / STORE
    store.mkdir()
    copy = store / ARCHIVE_NAME
    signed_by = archive_check.take(archive, copy)
    if not served(copy).runtime.startswith("torch"):
        (work / "lib").mkdir()
        shutil.copy(Path(__file__).with_name("torch_stub.py"), work / "lib" / "torch.py")
    with _start(store.resolve(), ARCHIVE_NAME, settings, work, on_log, on_problem) as server:
        server.signed_by = signed_by
        yield server


@contextlib.contextmanager
def empty(model_store: Path, settings: ServeSettings, work: Path, on_log: Callable[[str], None]) -> Iterator[Server]:
    """Run TorchServe without a model until the block ends; models are registered over its management socket.

    The block begins when the socket exists, and the key file if tokens are required.

    Args:
        model_store: Directory of the archives that can be registered.
        settings: See `serving`.
        work: See `serving`.
        on_log: See `serving`.

    Raises:
        ServingError: If the server cannot be started.
    """
    with _start(model_store.resolve(), None, settings, work, on_log, _ignore_problem) as server:

        def has_started() -> bool:
            server.check_process()
            return server.management.exists() and (server.key_file is None or server.key_file.exists())

        if not waiting.poll(has_started, _START_TIMEOUT_S):
            raise ServingError(f"TorchServe does not start within {_START_TIMEOUT_S} s", "free some cores")
        yield server


@contextlib.contextmanager
def _start(
    model_store: Path,
    model: str | None,
    settings: ServeSettings,
    work: Path,
    on_log: Callable[[str], None],
    on_problem: Callable[[ServerEvent], None],
) -> Iterator[Server]:
    frontend = util.find_spec("ts")
    if frontend is None or frontend.origin is None:
        raise MissingExtraError("torchserve", "serve")
    if util.find_spec("prometheus_client") is None:
        raise MissingExtraError("prometheus_client", "serve")
    ts_home = Path(frontend.origin).parent
    java_binary = jvm.find_java()
    for name in ("tmp", "logs", ACTIVITY_DIR, METRICS_DIR):
        (work / name).mkdir()
    with (
        resources.as_file(resources.files("newsbert") / "serving/assets/log4j2.xml") as log_config,
        resources.as_file(resources.files("newsbert") / "serving/assets/metrics.yaml") as metrics_config,
        reserved_endpoints(settings) as address,
        metrics_endpoint.answering(
            address.metrics_host,
            address.metrics_port,
            lambda: metrics.page(work / METRICS_DIR) + _read_frontend_metrics(address.frontend_metrics_port),
        ),
    ):
        configured = read_configured(model_store / model) if model else {}
        # A full queue of the largest bodies, with several copies of every body.
        queue_mb = configured.get("jobQueueSize", settings.queue_size) * MAX_REQUEST_BYTES // 2**20
        heap_mb = min(_BASE_HEAP_MB + 3 * queue_mb, _MAX_HEAP_MB)
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
                f"-Djava.library.path={jvm.native_directory(ts_home / 'frontend', work)}",
                f"-Dlog4j.configurationFile={uris.as_uri(log_config.resolve())}",
                "-Dlog4j2.disableJmx=true",
                # The default on two cores is 1, and with 1 Java starts a thread for every batch of a worker.
                f"-Djava.util.concurrent.ForkJoinPool.common.parallelism={max(2, cpu.cores() - 1)}",
                # The model needs the cores: parallel collection and further compilation cost more than they save.
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                f"-Xmx{heap_mb}m",  # otherwise it grows to a quarter of the memory before a collection
                *HEAP_OPTIONS,
                "-XX:+ExitOnOutOfMemoryError",
                "-XX:-UsePerfData",  # the JVM would write it to /tmp, even with java.io.tmpdir set
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
            cwd=work,  # TorchServe writes its key file there
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


def _read_frontend_metrics(port: int) -> str:
    """Return TorchServe's own metrics, from its port on loopback."""
    url = f"http://{LOOPBACK}:{port}{METRICS_PATH}"
    with loopback.urlopen(url, timeout=metrics_endpoint.TIMEOUT_S) as response:
        return str(response.read().decode())


def _detach_from_signals() -> None:
    """Make the child ignore SIGTERM, and let the kernel kill it if this process is killed (Linux).

    A service manager may send SIGTERM to all processes of a service. Java would then break off the requests in flight,
    so only this process stops the child.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent(signal.SIGKILL)
