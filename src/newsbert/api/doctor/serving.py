"""Checks of serving on this machine: Java, TorchServe, its port, and the detached servers."""

import time
from pathlib import Path

from newsbert.api.doctor.checks import NoteError
from newsbert.core import config, loopback, ports, temporary
from newsbert.core.settings import ServeSettings
from newsbert.deployment import local_servers
from newsbert.errors import NewsbertError, ServingError
from newsbert.serving import auth, probe, runtime_dir
from newsbert.serving.torchserve import jvm, supervisor

_REQUEST_TIMEOUT_S = 10.0


def java_runtime() -> str:
    """Return the version and path of the Java for TorchServe.

    Raises:
        ServingError: If there is none.
    """
    path = jvm.find_java()
    return f"Java {jvm.java_version(path)}, {path}"


def starts() -> str:
    """Start TorchServe without a model, check that it requires tokens and accepts its own, and stop it.

    Raises:
        ServingError: If it does not start, answers without a token, or rejects its own token.
        MissingExtraError: If it is not installed.
    """
    started = time.monotonic()
    settings = ServeSettings(port=0, token_auth=True)
    with (
        temporary.directory() as store,
        runtime_dir.make(None) as work,
        supervisor.empty(store, settings, work, lambda _line: None) as server,
    ):
        assert server.key_file is not None
        took = time.monotonic() - started
        if _request_models(server.management, None) != 400:
            raise ServingError(
                "TorchServe takes commands without a token", "pip install --force-reinstall --no-deps torchserve"
            )
        status = _request_models(server.management, auth.read(server.key_file).management)
        if status != 200:
            raise ServingError(f"TorchServe answers {status} to its own token", "is the clock right? date")
    return f"it starts in {took:.1f} s, wants tokens and takes its own"


def _probe_server(server: local_servers.DetachedServer) -> None:
    """Send a request to a detached server's model; a container that requires tokens runs the probe itself.

    Raises:
        NewsbertError: If the model does not answer.
    """
    try:
        probe.ask(server.url, Path(server.key_file) if server.key_file else None, _REQUEST_TIMEOUT_S)
        return
    except ServingError as error:
        if not (server.container and "InvalidKeyException" in error.message):
            raise
    from newsbert.images.engine.engine import Engine
    from newsbert.images.run import PROBE

    if not Engine().succeeds(server.container, PROBE):
        raise ServingError("the model does not answer", f"docker logs {server.container[:12]}")


def _request_models(socket: Path, token: str | None) -> int:
    """Return the HTTP status of a request to TorchServe's management API that lists the models."""
    import httpx2

    headers = dict([auth.header(token)] if token else [])
    try:
        with loopback.make_client(f"unix:{socket}") as http:
            return http.get("/models", headers=headers, timeout=_REQUEST_TIMEOUT_S).status_code
    except httpx2.HTTPError as error:
        raise ServingError(f"TorchServe does not answer: {error}", "newsbert serve locally tells more") from error


def port() -> str:
    """Check that the serving port is free.

    Raises:
        NoteError: If another program uses it.
    """
    settings = config.resolve(ServeSettings)
    try:
        free_port = ports.claim_port(settings.host, settings.port)
    except ServingError as error:
        # Only read the notes: the other check removes those of servers that are gone, at the same time.
        if settings.port in local_servers.noted():
            return f"{settings.port}: a detached server has it"
        raise NoteError(error.message, error.hint) from error
    return f"{settings.host}:{free_port} is free"


def detached() -> str:
    """Check that the detached servers answer, and remove the notes of those that are gone.

    Raises:
        NoteError: If a server does not answer.
    """
    noted, running = len(local_servers.noted()), local_servers.running()
    silent = []
    for server in running:
        try:
            _probe_server(server)
        except NewsbertError as error:
            silent.append(f"{server.url} ({server.model}): {error.message}")
            fix = f"newsbert serve stop --port {server.port}"
    gone = f"; {noted - len(running)} that are gone were struck out" if noted > len(running) else ""
    if silent:
        raise NoteError("; ".join(silent) + gone, fix)
    return (", ".join(f"{server.model} answers on {server.url}" for server in running) or "none runs") + gone
