"""Upload of a finished training: recorded on disk first, delivered to the tracking server now or later."""

import json
import re
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newsbert.bundle.bundle import Bundle
from newsbert.bundle.contract import SIGNATURE_FILE, Contract
from newsbert.core import files, locks, temporary
from newsbert.core.events import Event, Note
from newsbert.core.identifiers import SHORT_RUN_ID_DIGITS
from newsbert.errors import NewsbertError, RefusedError, TrackingError, first_line
from newsbert.tracking import experiment, registry
from newsbert.tracking.runs import DATA_DIGEST_TAG

if TYPE_CHECKING:
    from newsbert.tracking.client import TrackingClient
    from newsbert.tracking.registry import ModelVersionRef
    from newsbert.tracking.runs import RunLogger

_LOG = "log.json"
RETRY_PAUSES_S = (5, 10, 15, 30)
"""Pauses between attempts while the server does not answer."""

_METRICS_S = 30.0


@dataclass(frozen=True)
class _Log:
    """Data to log besides files.

    Attributes:
        run_id: The run to log to.
        digest: The bundle's digest.
        metrics: Metrics by name.
        tags: Tags by name.
        pending: Further metrics, as `RunLogger.flush` returns them.
    """

    run_id: str
    digest: str
    metrics: dict[str, float]
    tags: dict[str, str]
    pending: Sequence[Sequence[Any]] = field(default_factory=list)


def record_of(bundle: Path) -> Path:
    """Return the directory beside a bundle that holds its undelivered record."""
    return bundle.with_name(f".{bundle.name}.undelivered")


def write(bundle: Bundle, run_id: str, metrics: Mapping[str, float], tags: Mapping[str, str]) -> Path:
    """Create the record of a bundle, and return its directory; all other files in it are artifacts."""
    directory = record_of(bundle.path)
    shutil.rmtree(directory, ignore_errors=True)  # left by a training that was killed at this point
    directory.mkdir()
    _write(directory, _Log(run_id, bundle.digest, dict(metrics), dict(tags)))
    return directory


def metrics_of(bundle: Bundle) -> dict[str, float]:
    """Return the metrics that a bundle's contract holds, by their logged names."""
    scores = {f"test_{name}": value for name, value in bundle.contract.metrics.items()}
    return {**scores, "temperature": bundle.contract.temperature, "review_threshold": bundle.contract.review_threshold}


def place(part: Path, final: Path, run_id: str) -> Path:
    """Move a finished bundle and its record to their final path, and return that path.

    After that, no failure of the tracking server or of this process can lose them.

    Raises:
        NewsbertError: If the path is taken or not writable. The bundle is then beside it or unmoved; the message says
            where.
    """
    problem = None
    for target in (final, final.with_name(f"{final.name}-{run_id[:SHORT_RUN_ID_DIGITS]}")):
        try:
            part.replace(target)
        except OSError as error:
            problem = problem or error
            continue
        shutil.rmtree(record_of(target), ignore_errors=True)  # left by an earlier bundle at this path
        if record_of(part).is_dir():
            record_of(part).replace(record_of(target))
        if problem is None:
            return target
        part = target
        break
    cause = f"there is something else in {final} by now" if final.is_dir() else f"{final} cannot be written: {problem}"
    raise NewsbertError(f"{cause}; the model is finished and in {part}, but not logged", _make_hint(part)) from problem


def deliver(run: "RunLogger", bundle: Path, on_event: Callable[[Event], None]) -> None:
    """Log a finished training; retry for a minute if the server or the store cannot be reached.

    Args:
        run: Its run.
        bundle: The path of its bundle, with its record beside it.
        on_event: Called with events.

    Raises:
        NewsbertError: If it cannot be logged, for any reason; the hint has the command to deliver it later.
    """
    record = record_of(bundle)
    log = _read(record)
    if log is None:
        raise undelivered(bundle, NewsbertError(f"{record} cannot be read"))
    run.metrics(log.metrics)
    try:
        for pause in (*RETRY_PAUSES_S, None):
            try:
                _deliver(run, record, log, Bundle.read_unsigned(bundle))
                return
            except TrackingError as error:
                if pause is None or isinstance(error, RefusedError):
                    raise
                on_event(Note(f"{error.message}; trying again in {pause} s"))
                time.sleep(pause)
    except BaseException as error:
        _save_pending(record, log, run)
        if not isinstance(error, Exception):  # Ctrl+C
            on_event(Note(f"the model is finished and in {bundle}, but not logged; {_make_hint(bundle)}"))
            raise
        raise undelivered(bundle, error) from error


def undelivered(bundle: Path, error: Exception) -> NewsbertError:
    """Return the error for an unlogged bundle: its path, the reason, and the command to log it later."""
    if isinstance(error, NewsbertError):
        reason, hint = error.message, error.hint
    else:
        reason, hint = f"{type(error).__name__}: {first_line(error)}", None
    later = _make_hint(bundle)
    return TrackingError(
        f"the model is finished and in {bundle}, but could not be logged: {reason}",
        f"{hint}; then {later}" if hint else later,
    )


def unregistered(bundle: Path, name: str, error: NewsbertError) -> NewsbertError:
    """Return the error for a logged but unregistered bundle: its path, the reason, and the command to register it."""
    later = f"register it: {_make_command(bundle, shlex.quote(name))}"
    return TrackingError(
        f"the model is finished, logged and in {bundle}, but could not be registered: {error.message}",
        f"{error.hint}; then {later}" if error.hint else later,
    )


def done(bundle: Path) -> None:
    """Delete the record of a delivered bundle."""
    shutil.rmtree(record_of(bundle), ignore_errors=True)


def waits(final: Path, run_id: str) -> bool:
    """Return whether there is a finished, undelivered bundle of this run."""
    log = _read(record_of(final))
    return log is not None and log.run_id == run_id and final.is_dir()


def later(bundle: Path) -> str:
    """Return the command that logs and registers an undelivered bundle."""
    return _make_command(bundle, "NAME")


def register(
    bundle: Path, tracker: "TrackingClient", name: str, alias: str | None, sign: Path | None = None
) -> "ModelVersionRef":
    """Log a bundle, unless that was completed before, and register it as a version.

    Args:
        bundle: Its directory. Without an undelivered record beside it, it gets a new run.
        tracker: The server.
        name: The registered model.
        alias: An alias for the version.
        sign: The private key to sign the bundle with, in its directory and in the registry.

    Raises:
        ModelError: If it is no bundle, or was altered.
        TrackingError: If the server refuses it.
    """
    loaded = Bundle.read_unsigned(bundle)
    loaded.verify()
    if sign is not None:
        _write_signature(loaded, sign)
    # If several processes register the same bundle, the first one logs it and the others use its run.
    with locks.exclusive(f"register-{loaded.digest}", "it is being registered", wait=True):
        run_id = _ensure_logged(loaded, record_of(bundle), tracker)
        return registry.register(tracker, run_id, name, alias, sign=sign, digest=loaded.digest)


def _write_signature(bundle: Bundle, key: Path) -> None:
    signature, _ = bundle.sign(key)
    try:
        with temporary.directory(bundle.path.resolve().parent) as work:  # a bundle must never hold other files
            (work / SIGNATURE_FILE).write_bytes(signature)
            (work / SIGNATURE_FILE).replace(bundle.path / SIGNATURE_FILE)
    except OSError as error:
        raise NewsbertError(f"{bundle.path} cannot be signed: {error.strerror or error}", "check its rights") from error


def _ensure_logged(bundle: Bundle, record: Path, tracker: "TrackingClient") -> str:
    """Return the id of the run that holds a bundle, after logging the bundle if there is none."""
    log = _read(record)
    if log is None or log.digest != bundle.digest:  # no record, or the record of an earlier bundle at this path
        run_id = tracker.run_of(bundle.digest)
        if run_id is None:
            with experiment.start_run(tracker) as run:
                run.tags({DATA_DIGEST_TAG: str(bundle.contract.data["sha256"])})  # marks it as a training run
                run.metrics(metrics_of(bundle))
                run.params(_collect_params(bundle.contract))
                run.artifacts(_list_reports(bundle))
                run.bundle(bundle)
                _flush(run)
                run_id = run.run_id
        return run_id
    logged_run = tracker.get_run(log.run_id)
    is_active = logged_run is not None and logged_run.info.lifecycle_stage == "active"
    pending = {str(key) for key, *_ in log.pending}
    # On another server than that of the training, the bundle gets a new run.
    with experiment.start_run(tracker, log.run_id if is_active else None, log.pending) as run:
        run.metrics({key: value for key, value in log.metrics.items() if key not in pending})
        _deliver(run, record, log, bundle)
    shutil.rmtree(record)
    return run.run_id


def _deliver(run: "RunLogger", record: Path, log: _Log, bundle: Bundle) -> None:
    run.tags(log.tags)
    written = (file for file in record.iterdir() if file.is_file() and not file.is_symlink() and file.name != _LOG)
    run.artifacts([*written, *_list_reports(bundle)])
    run.bundle(bundle)
    _flush(run)


def _list_reports(bundle: Bundle) -> list[Path]:
    return [*bundle.path.glob("*.png"), *bundle.path.glob("*.csv")]


def _collect_params(contract: Contract) -> dict[str, Any]:
    """Return the training parameters in a contract, by their logged names."""
    data = contract.data
    columns = {name: data[name] for name in ("text_column", "label_column") if data.get(name) is not None}
    return {
        "base_model_name": contract.base_model["name"],
        "base_model_sha256": contract.base_model["sha256"],
        "data": data["name"],
        "train_rows": data["rows"]["train"],
        "labels": ",".join(contract.labels),
        "max_length": contract.max_length,
        **columns,
    }


def _flush(run: "RunLogger") -> None:
    """Deliver all metrics.

    Raises:
        TrackingError: If some cannot be delivered.
    """
    left = run.flush(_METRICS_S)
    if left:
        raise TrackingError(f"{len(left)} metrics of run {run.run_id} could not be logged", "check the tracking server")


def _make_hint(bundle: Path) -> str:
    return f"log and register it: {later(bundle)}"


def _make_command(bundle: Path, name: str) -> str:
    return f"newsbert register {shlex.quote(str(bundle))} --model-name {name}"


def _save_pending(record: Path, log: _Log, run: "RunLogger") -> None:
    """Add the undelivered metrics to a record; if the disk is full, leave the record without them."""
    part = record / f".{_LOG}"
    try:
        _write(record, replace(log, pending=run.flush()))
    except OSError:
        part.unlink(missing_ok=True)


def _read(directory: Path) -> _Log | None:
    """Return the log in a record, or `None` if it is missing or invalid."""
    try:
        log = _Log(**json.loads((directory / _LOG).read_text(encoding="utf-8")))
        valid = (
            re.fullmatch(r"[0-9a-f]{32}", log.run_id) is not None
            and isinstance(log.digest, str)
            and all(isinstance(value, int | float) for value in log.metrics.values())
            and all(isinstance(value, str) for value in log.tags.values())
            and all(isinstance(key, str) and len(values) == 3 for key, *values in log.pending)
            and all(isinstance(number, int | float) for _, *numbers in log.pending for number in numbers)
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return log if valid else None


def _write(directory: Path, log: _Log) -> None:
    files.write_atomically(directory / _LOG, json.dumps(asdict(log)))
