"""Serving of a model with TorchServe until it is stopped: on this machine, or in a container."""

import threading
from collections.abc import Callable
from pathlib import Path

from newsbert.bundle.bundle import Bundle
from newsbert.core.ports import claim_port
from newsbert.core.settings import ServeSettings
from newsbert.serving import archive, runtime_dir
from newsbert.serving.server_events import ServerEvent
from newsbert.serving.torchserve import process, supervisor
from newsbert.tracking import locate

_CHECK_INTERVAL_S = 0.5


def serve_locally(  # noqa: PLR0913 - options by name
    reference: str | None,
    settings: ServeSettings,
    *,
    tracking_uri: str | None,
    stop: threading.Event,
    on_ready: Callable[[str, process.Server], None],
    on_log: Callable[[str], None],
    on_problem: Callable[[ServerEvent], None],
    on_choice: Callable[[str], None] = lambda text: None,
) -> None:
    """Serve a model with TorchServe until `stop` is set.

    Args:
        reference: A reference for `newsbert.load`, or a model archive (`.mar`); `None` for the latest version.
        settings: Host, port, workers and batching; an archive brings its own workers and batching.
        tracking_uri: MLflow's tracking URI; the configured one if `None`.
        stop: Ends the server when another thread sets it.
        on_ready: Called with the model's name and the server after the first answer.
        on_log: Called with every line that TorchServe logs.
        on_problem: Called with every problem.
        on_choice: Called with the selected run and its owner, if `reference` left the choice open.

    Raises:
        NewsbertError: If the model cannot be served, or the server stops by itself.
    """
    # Before the model is located and packed: a port in use should fail at once.
    claim_port(settings.host, settings.port)
    with runtime_dir.make(settings.run_dir) as work:
        if reference is not None and reference.endswith(".mar"):
            model_archive, name = Path(reference), None
        else:
            located = locate.locate(reference, tracking_uri=tracking_uri)
            name = located.name
            if located.choice is not None:
                on_choice(located.choice)
            model_archive = archive.write(Bundle.read(located.path), work, name, settings)
        with supervisor.serving(model_archive, settings, work, on_log, on_problem) as server:
            if not server.wait_ready(settings.timeout_s, stop):
                return
            # For an archive, the model's name in the checked copy.
            on_ready(name or archive.served(work / supervisor.STORE / archive.ARCHIVE_NAME).model, server)
            while not stop.wait(_CHECK_INTERVAL_S):
                server.check()
