"""What a finished training has to say to the tracking server: written down first, delivered now or later."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newsbert import locks
from newsbert.bundle import Bundle
from newsbert.errors import NewsbertError, TrackingError
from newsbert.events import Event, Note

if TYPE_CHECKING:
    from newsbert.run_log import RunLog
    from newsbert.tracking import Tracker, Version

_LOG = "log.json"
_PAUSES_S = (5, 10, 15, 30)
"""How long a server that does not answer is waited for."""

_METRICS_S = 30.0


def write(directory: Path, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
    """Begin a record: a directory, whose other files are artifacts."""
    shutil.rmtree(directory, ignore_errors=True)  # of a training that was killed just here
    directory.mkdir()
    _write(directory, {"metrics": dict(metrics), "tags": dict(tags), "run_id": None, "pending": []})


def metrics_of(bundle: Bundle) -> dict[str, float]:
    """What a bundle tells of itself in numbers."""
    scores = {f"test_{name}": value for name, value in bundle.contract.metrics.items()}
    return {**scores, "temperature": bundle.contract.temperature, "review_below": bundle.contract.review_below}


def deliver_or_keep(run: "RunLog", record: Path, part: Path, final: Path, on_event: Callable[[Event], None]) -> None:
    """Log a finished training and put its bundle in place; what cannot be logged within a minute is kept beside it.

    Args:
        run: Its run.
        record: From `write`.
        part: Where the bundle is.
        final: Where it belongs.
        on_event: Called with what happens.

    Raises:
        TrackingError: If the server does not take it; the hint says how to deliver it later.
    """
    run.metrics(_read(record)["metrics"])
    for pause in (*_PAUSES_S, None):
        try:
            _deliver(run, record, Bundle.read(part))
        except TrackingError as error:
            if pause is not None:
                on_event(Note(f"{error.message}; trying again in {pause} s"))
                time.sleep(pause)
                continue
            _write(record, _read(record) | {"run_id": run.run_id, "pending": run.flush()})
            shutil.copytree(record, _kept(final), dirs_exist_ok=True)
            _place(part, final)
            raise TrackingError(
                f"the model is finished and in {final}, but could not be logged: {error.message}",
                f"when the server is there again, log and register it: newsbert register {final} --model-name NAME",
            ) from error
        _place(part, final)
        return


def _place(part: Path, final: Path) -> None:
    """Move a bundle to where it belongs.

    Raises:
        NewsbertError: If something else is there by now.
    """
    try:
        part.replace(final)
    except OSError as error:
        if not final.is_dir():
            raise
        raise NewsbertError(f"there is something else in {final} by now", "move it away, then go on") from error


def register(bundle: Path, tracker: "Tracker", name: str, alias: str | None) -> "Version":
    """Log a bundle that no tracking server has yet, or not all of, and make it a version.

    Args:
        bundle: Its directory. What a training could not deliver lies beside it; else it gets a run of its own.
        tracker: The server.
        name: The registered model.
        alias: An alias to point at the version.

    Raises:
        ModelError: If the bundle is none, or was altered.
        TrackingError: If the server does not take it, or has no such run.
    """
    found = Bundle.read(bundle)
    found.verify()
    # Of several processes with the same bundle the first logs it, the others take its run.
    with locks.alone(f"register-{found.digest}", "it is being registered", wait=True):
        return _register(found, _kept(bundle), tracker, name, alias)


def _register(found: Bundle, kept: Path, tracker: "Tracker", name: str, alias: str | None) -> "Version":
    if not kept.is_dir():
        run_id = tracker.run_of(found.digest)
        if run_id is None:
            with tracker.run() as run:
                run.metrics(metrics_of(found))
                run.bundle(found)
                _flush(run)
                run_id = run.run_id
        return tracker.register(run_id, name, alias)
    log = _read(kept)
    with tracker.run(log["run_id"], log["pending"]) as run:
        _deliver(run, kept, found)
    shutil.rmtree(kept)
    return tracker.register(log["run_id"], name, alias)


def _deliver(run: "RunLog", record: Path, bundle: Bundle) -> None:
    run.tags(_read(record)["tags"])
    tables_and_pictures = (*bundle.path.glob("*.png"), *bundle.path.glob("*.csv"))
    run.artifacts([*(file for file in record.iterdir() if file.name != _LOG), *tables_and_pictures])
    run.bundle(bundle)
    _flush(run)


def _flush(run: "RunLog") -> None:
    """Have all metrics delivered.

    Raises:
        TrackingError: If some cannot be.
    """
    left = run.flush(_METRICS_S)
    if left:
        raise TrackingError(f"{len(left)} metrics of run {run.run_id} could not be logged", "check the tracking server")


def _kept(bundle: Path) -> Path:
    return bundle.with_name(f".{bundle.name}.undelivered")


def _read(directory: Path) -> dict[str, Any]:
    log: dict[str, Any] = json.loads((directory / _LOG).read_text(encoding="utf-8"))
    return log


def _write(directory: Path, log: Mapping[str, object]) -> None:
    part = directory / f".{_LOG}"
    part.write_text(json.dumps(log), encoding="utf-8")
    part.rename(directory / _LOG)
