"""MLflow's server as a child process: start it, wait for it, stop it."""

import contextlib
import functools
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

from newsbert.core import bounded_log, environment, loopback, processes, uris
from newsbert.core.ports import bind_port
from newsbert.core.settings import TrackingServerSettings
from newsbert.errors import NewsbertError, TrackingError, UsageError
from newsbert.tracking import sqlite
from newsbert.tracking.server import accounts, artifacts, database
from newsbert.tracking.server.hosts import is_loopback, origins, own_names, with_ports
from newsbert.tracking.server.state import ServerInfo, ServerState, StoreConfig, private_umask

START_TIMEOUT_S = 180
STOP_TIMEOUT_S = 30
_ALL_INTERFACES = "0.0.0.0"  # noqa: S104


@dataclass(frozen=True)
class Plan:
    """Plan of a server to start.

    Attributes:
        home: Its directory.
        database: The URL of its database.
        artifacts: The location of its artifacts.
        host: The address it listens on.
        port: The port.
        auth: Whether it asks for a name and a password.
        allowed_hosts: The names that it answers to.
        default_permission: The permission of an account on resources of others.
        workers: The number of its processes.
    """

    home: ServerState
    database: str
    artifacts: str
    host: str
    port: int
    auth: bool
    allowed_hosts: list[str]
    default_permission: str
    workers: int

    @property
    def url(self) -> str:
        """The base URL to reach it by from this machine."""
        return f"http://{'127.0.0.1' if self.host == _ALL_INTERFACES else self.host}:{self.port}"


@contextlib.contextmanager
def planned(settings: TrackingServerSettings) -> Iterator[Plan]:
    """Resolve the settings that depend on this machine, and hold the port during the block.

    Raises:
        UsageError: If a setting is invalid, or the server would be open to everybody.
        TrackingError: If a server runs in this directory, or the port is not available.
    """
    home, stores = places(settings)
    if home.path.is_dir():
        with home.locked():  # reports a server that runs here, which its occupied port would not
            pass
    exposed = not is_loopback(settings.host)
    with _reserve_port(settings) as port:
        yield Plan(
            home,
            stores.database,
            stores.artifacts,
            settings.host,
            port,
            exposed if settings.auth is None else settings.auth,
            [*settings.allowed_hosts, *own_names(exposed and not settings.allowed_hosts)],
            settings.default_permission,
            settings.workers,
        )


def places(settings: TrackingServerSettings) -> tuple[ServerState, StoreConfig]:
    """Return a server's directory and the locations of its data.

    The locations come from the settings, else from the last start, else they are in the directory.

    Raises:
        UsageError: If a location is invalid.
    """
    home = ServerState(settings.directory)
    previous = home.read_previous_store() or StoreConfig(home.database, home.artifacts)
    url = settings.backend_store or previous.database
    located = artifacts.located(settings.artifacts or previous.artifacts)
    file = sqlite.path_of(url)
    for path in (str(home.path), *([str(file)] if file is not None else []), *([] if "://" in located else [located])):
        if re.search("[%?#]", path):  # only parts of MLflow read it as a URL: files would be in two places
            raise UsageError(f"{path!r} cannot hold a tracking server's data: it has one of % ? # in it", "rename it")
    if file is not None:  # valid from any working directory of the next start
        url = uris.sqlite_uri(file.expanduser().absolute())
    database.parse(url)
    return home, StoreConfig(url, located)


def prepare(plan: Plan, on_log: Callable[[str], None]) -> str | None:
    """Prepare database, artifacts and accounts.

    Returns:
        The password of the account `admin`, if that was created now; it is not stored.

    Raises:
        TrackingError: If one of them cannot be used.
    """
    plan.home.make()
    with plan.home.locked():
        _silence_logging()
        with private_umask():
            database.prepare(plan.database, on_log)
        artifacts.check(plan.artifacts)
        plan.home.save_store(StoreConfig(plan.database, plan.artifacts))
        if not plan.auth:
            return None
        accounts.configure(plan.home, plan.database, plan.default_permission)
        return accounts.make_admin(plan.home, plan.database)


def serve(plan: Plan, stop: threading.Event, on_ready: Callable[[ServerInfo], None]) -> None:
    """Run the server until `stop` is set.

    Args:
        plan: The prepared plan.
        stop: Set to stop it.
        on_ready: Called when it answers.

    Raises:
        TrackingError: If it does not start, or ends unexpectedly.
    """
    home = plan.home
    with home.locked(), _run_server(plan) as process:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _is_healthy(plan.url):
            if stop.wait(0.1):
                return
            _check_alive(process, home)
            if time.monotonic() > deadline:
                raise TrackingError(f"no answer on {plan.url} after {START_TIMEOUT_S} s", f"see {home.log}")
        server = _make_server_info(plan)
        home.note(server)
        try:
            on_ready(server)
            while not stop.wait(0.5):
                _check_alive(process, home)
                bounded_log.trim(home.log)
        finally:
            home.forget()


def start_detached(plan: Plan) -> ServerInfo:
    """Run the server in the background.

    Raises:
        NewsbertError: If it does not start; this is the server's own error.
    """
    home = plan.home
    arguments = ["tracking", "up", "--prepared", "--directory", str(home.path), "--artifacts", plan.artifacts]
    arguments += [
        "--default-permission",
        plan.default_permission,
        "--host",
        plan.host,
        "--port",
        str(plan.port),
        "--workers",
        str(plan.workers),
    ]
    arguments += ["--allowed-hosts", ",".join(plan.allowed_hosts), "--auth" if plan.auth else "--no-auth"]

    def noted(pid: int) -> ServerInfo | None:
        server = home.noted()
        return server if server is not None and server.pid == pid else None

    try:
        return processes.start(
            arguments, home.path / "up.log", noted, START_TIMEOUT_S + 10, MLFLOW_BACKEND_STORE_URI=plan.database
        )
    except OSError as error:
        raise TrackingError(f"{home.path} cannot be written: {error.strerror}", "make room: df -h .") from error


def status(home: ServerState) -> ServerInfo:
    """Return the running server of a directory, after checking that it answers.

    Raises:
        TrackingError: If none runs there, or it does not answer.
    """
    server = home.noted()
    if server is None:
        raise TrackingError(f"no tracking server runs in {home.path}", f"newsbert tracking up{home.option}")
    if not _is_healthy(server.url):
        raise TrackingError(f"the tracking server {server.url} runs but does not answer", f"see {home.log}")
    return server


def down(home: ServerState) -> ServerInfo:
    """Stop the server of a directory.

    Raises:
        TrackingError: If none runs there, or it does not stop.
    """
    server = home.noted()
    if server is None:
        raise TrackingError(f"no tracking server runs in {home.path}", f"newsbert tracking up{home.option}")
    processes.stop(server.pid, lambda: processes.started(server.pid) == server.started, STOP_TIMEOUT_S)
    return server


def _silence_logging() -> None:
    """Silence MLflow's logging; newsbert reports MLflow's errors itself."""
    environment.silence_mlflow()
    import mlflow  # noqa: F401 - it sets up its own logging

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _make_server_info(plan: Plan) -> ServerInfo:
    pid = os.getpid()
    return ServerInfo(
        pid,
        processes.started(pid) or 0,
        plan.url,
        plan.host,
        database.shown(plan.database),
        plan.artifacts,
        plan.auth,
        list(dict.fromkeys(plan.allowed_hosts)),
        metadata.version("mlflow"),
    )


@contextlib.contextmanager
def _run_server(plan: Plan) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "mlflow", "server", "--host", plan.host, "--port", str(plan.port)]
    command += ["--workers", str(plan.workers), *(["--app-name", "basic-auth"] if plan.auth else [])]
    # On a busy machine a worker's imports take longer than the 5 s after which uvicorn kills one that does not answer.
    command += ["--uvicorn-opts", f"--timeout-worker-healthcheck {START_TIMEOUT_S}"]
    variables = {
        # In the environment, since any user of this machine can read a command line.
        "MLFLOW_BACKEND_STORE_URI": plan.database,
        "MLFLOW_ARTIFACTS_DESTINATION": plan.artifacts,
        "MLFLOW_SERVE_ARTIFACTS": "true",
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(with_ports(plan.allowed_hosts)),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(
            [*origins(plan.allowed_hosts, plan.port), *environment.further_origins()]
        ),
        # MLflow's job runner and gateway are for language models. The runner takes a process and memory; the gateway
        # calls addresses that an account chooses.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_AI_GATEWAY": "false",
        "MLFLOW_ENABLE_REMOTE_ASSISTANT": "false",
        # MLflow's routes without a permission check are closed to accounts, even if its default changes.
        "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
        "MLFLOW_SERVER_ENABLE_GRAPHQL_AUTH": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    if plan.auth:
        variables["MLFLOW_AUTH_CONFIG_PATH"] = str(plan.home.auth_config)
        variables["MLFLOW_FLASK_SERVER_SECRET_KEY"] = plan.home.secret_key()
    log = plan.home.log
    with contextlib.suppress(FileNotFoundError):
        log.replace(log.with_name("server.log.1"))
    with plan.home.private(log) as stream:
        process = subprocess.Popen(
            command,
            env=environment.child_environment(**variables),
            cwd=plan.home.path,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            umask=0o077,
            start_new_session=True,
            preexec_fn=functools.partial(processes.die_with_parent, signal.SIGTERM),  # noqa: PLW1509 - it makes one system call and nothing else
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)  # it lets its workers finish their requests
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S - 10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _check_alive(process: "subprocess.Popen[bytes]", home: ServerState) -> None:
    code = process.poll()
    if code is not None:
        raise TrackingError(f"MLflow's server ended (exit code {code}): {_find_reason(home)}", f"see {home.log}")


def _find_reason(home: ServerState) -> str:
    """Return the last logged line that mentions an error, else the last line."""
    try:
        lines = [line.strip() for line in home.log.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        lines = []
    error_lines = [line for line in lines if "rror" in line]
    return (error_lines or [line for line in lines if line] or ["it logged nothing"])[-1]


def _is_healthy(url: str) -> bool:
    try:
        with loopback.urlopen(f"{url}/health", timeout=5):
            return True
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def _reserve_port(settings: TrackingServerSettings) -> Iterator[int]:
    try:
        bound = bind_port(settings.host, settings.port)
    except UsageError:
        raise
    except NewsbertError as error:
        raise TrackingError(error.message, "newsbert tracking up --port 0 takes a free port") from error
    with bound:
        yield int(bound.getsockname()[1])
