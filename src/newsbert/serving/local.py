"""Serving of a model on this machine until it is stopped: with TorchServe, or with the native server."""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

from newsbert.bundle.bundle import Bundle
from newsbert.core.ports import claim_port
from newsbert.core.settings import NATIVE, ServeSettings
from newsbert.errors import UsageError
from newsbert.serving import archive, runtime_dir
from newsbert.serving.native import supervisor as native
from newsbert.serving.server_events import ServerEvent
from newsbert.serving.torchserve import process, supervisor
from newsbert.tracking import locate

Server = process.Server | native.Server

_CHECK_INTERVAL_S = 0.5
_ARCHIVE_SUFFIX = ".mar"


_NATIVE_ONLY = ("token_file", "tls_cert", "tls_key")
"""Settings that protect requests, and that TorchServe does not have."""


def check_settings(settings: ServeSettings) -> None:
    """Check that the server can do what the settings promise to clients.

    Raises:
        UsageError: If it cannot.
    """
    if settings.server == NATIVE and settings.token_auth:
        raise UsageError("token_auth is for TorchServe", "the native server takes tokens of a file: --token-file FILE")
    if settings.server != NATIVE:
        for name in _NATIVE_ONLY:
            if getattr(settings, name) is not None:
                raise UsageError(f"TorchServe has no {name}", "serve with --server native, or leave it out")


def serve_locally(  # noqa: PLR0913 - options by name
    reference: str | None,
    settings: ServeSettings,
    *,
    tracking_uri: str | None,
    stop: threading.Event,
    on_ready: Callable[[str, Server], None],
    on_log: Callable[[str], None],
    on_problem: Callable[[ServerEvent], None],
    on_choice: Callable[[str], None] = lambda text: None,
) -> None:
    """Serve a model until `stop` is set.

    Args:
        reference: A reference for `newsbert.load`, or a model archive (`.mar`); `None` for the latest version.
        settings: The server, and its host, port, workers and limits; an archive brings its own workers and batching.
        tracking_uri: MLflow's tracking URI; the configured one if `None`.
        stop: Ends the server when another thread sets it.
        on_ready: Called with the model's name and the server after the first answer.
        on_log: Called with every line that the server logs.
        on_problem: Called with every problem.
        on_choice: Called with the selected run and its owner, if `reference` left the choice open.

    Raises:
        NewsbertError: If the model cannot be served, or the server stops by itself.
    """
    # Before the model is located and packed: a port in use should fail at once.
    claim_port(settings.host, settings.port)
    with runtime_dir.make(settings.run_dir) as work:
        name: str | None = None
        starting: contextlib.AbstractContextManager[Server]
        if reference is not None and reference.endswith(_ARCHIVE_SUFFIX):
            if settings.server == NATIVE:
                raise UsageError(f"{reference} is an archive of TorchServe's", "give the model itself: BertModel/2")
            starting = supervisor.serving(Path(reference), settings, work, on_log, on_problem)
        else:
            bundle, name = _locate(reference, settings, tracking_uri, on_choice)
            if settings.server == NATIVE:
                starting = native.serving(bundle, name, settings, work, on_log, on_problem)
            else:
                model_archive = archive.write(bundle, work, name, settings)
                starting = supervisor.serving(model_archive, settings, work, on_log, on_problem)
        with starting as server:
            if not server.wait_ready(settings.timeout_s, stop):
                return
            # For an archive, the model's name in the checked copy.
            on_ready(name or archive.served(work / supervisor.STORE / archive.ARCHIVE_NAME).model, server)
            while not stop.wait(_CHECK_INTERVAL_S):
                server.check()


def _locate(
    reference: str | None, settings: ServeSettings, tracking_uri: str | None, on_choice: Callable[[str], None]
) -> tuple[Bundle, str]:
    """Return the bundle, and the model's name in answers."""
    located = locate.locate(reference, tracking_uri=tracking_uri)
    if located.choice is not None:
        on_choice(located.choice)
    return Bundle.read(located.path), settings.name or located.name
