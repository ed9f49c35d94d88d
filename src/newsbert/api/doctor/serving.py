"""Whether a model can be served here: Java, TorchServe itself, its port, and the servers there are."""

import time
import urllib.error
import urllib.request
from pathlib import Path

from newsbert.api.doctor.checks import NoteError
from newsbert.core import config, loopback, ports, temporary
from newsbert.core.settings import ServeSettings
from newsbert.deployment import local_servers
from newsbert.errors import NewsbertError, ServingError
from newsbert.serving import auth, probe
from newsbert.serving.torchserve import java, runtime_dir, supervisor

_START_TIMEOUT_S = 45.0
_ASK_TIMEOUT_S = 10.0


def java_runtime() -> str:
    """Which Java TorchServe would run on.

    Raises:
        ServingError: If there is none.
    """
    found = java.find()
    return f"Java {java.version(found)}, {found}"


def starts() -> str:
    """Start TorchServe without a model, see that it wants tokens and takes its own, and stop it.

    Raises:
        ServingError: If it does not start, or answers whoever asks.
        MissingExtraError: If it is not installed.
    """
    began = time.monotonic()
    settings = ServeSettings(port=0, token_auth=True)
    with (
        temporary.directory() as store,
        runtime_dir.make(None) as work,
        supervisor.empty(store, settings, work, lambda _line: None) as server,
    ):
        assert server.key_file is not None
        while not (server.management.exists() and server.key_file.exists()):
            server.check_process()
            if time.monotonic() - began > _START_TIMEOUT_S:
                raise ServingError(f"TorchServe does not start within {_START_TIMEOUT_S:g} s", "free some cores")
            time.sleep(0.1)
        took = time.monotonic() - began
        if _models(server.management, None) != 400:
            raise ServingError(
                "TorchServe takes commands without a token", "pip install --force-reinstall --no-deps torchserve"
            )
        status = _models(server.management, auth.read(server.key_file).management)
        if status != 200:
            raise ServingError(f"TorchServe answers {status} to its own token", "is the clock right? date")
    return f"it starts in {took:.1f} s, wants tokens and takes its own"


def _ask(server: local_servers.DetachedServer) -> None:
    """Have a detached server's model answer; a container's keys are in there, so there it is asked if it wants any.

    Raises:
        NewsbertError: If it does not.
    """
    try:
        probe.ask(server.url, Path(server.key_file) if server.key_file else None, _ASK_TIMEOUT_S)
        return
    except ServingError as error:
        if not (server.container and "InvalidKeyException" in error.message):
            raise
    from newsbert.images.engine.engine import Engine
    from newsbert.images.run import PROBE

    if not Engine().succeeds(server.container, PROBE):
        raise ServingError("the model does not answer", f"docker logs {server.container[:12]}")


def _models(socket: Path, token: str | None) -> int:
    """The status that TorchServe's management has for who lists its models."""
    request = urllib.request.Request("http://localhost/models", headers=dict([auth.header(token)] if token else []))
    try:
        with loopback.unix_urlopen(str(socket), request, _ASK_TIMEOUT_S) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError as error:
        raise ServingError(f"TorchServe does not answer: {error}", "newsbert serve locally tells more") from error


def port() -> str:
    """Whether the port is free that models are served on.

    Raises:
        NoteError: If another program has it.
    """
    settings = config.resolve(ServeSettings)
    try:
        taken = ports.claim_port(settings.host, settings.port)
    except ServingError as error:
        # Only looked up: which notes are of servers that are gone is the other check's, at the same time.
        if settings.port in local_servers.noted():
            return f"{settings.port}: a detached server has it"
        raise NoteError(error.message, error.hint) from error
    return f"{settings.host}:{taken} is free"


def detached() -> str:
    """Whether the detached servers answer; notes of those that are gone are removed.

    Raises:
        NoteError: If one does not.
    """
    noted, running = len(local_servers.noted()), local_servers.running()
    silent = []
    for each in running:
        try:
            _ask(each)
        except NewsbertError as error:
            silent.append(f"{each.url} ({each.model}): {error.message}")
            mend = f"newsbert serve stop --port {each.port}"
    gone = f"; {noted - len(running)} that are gone were struck out" if noted > len(running) else ""
    if silent:
        raise NoteError("; ".join(silent) + gone, mend)
    return (", ".join(f"{each.model} answers on {each.url}" for each in running) or "none runs") + gone
