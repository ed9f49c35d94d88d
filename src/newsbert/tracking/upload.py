"""What a finished training has to say to the tracking server: written down first, delivered now or later."""

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
from newsbert.core import locks, temporary
from newsbert.core.events import Event, Note
from newsbert.errors import NewsbertError, RefusedError, TrackingError, first_line
from newsbert.tracking import experiment, registry
from newsbert.tracking.runs import DATA_DIGEST_TAG

if TYPE_CHECKING:
    from newsbert.tracking.client import TrackingClient
    from newsbert.tracking.registry import ModelVersionRef
    from newsbert.tracking.runs import RunLogger

_LOG = "log.json"
_PAUSES_S = (5, 10, 15, 30)
"""How long a server that does not answer is waited for."""

_METRICS_S = 30.0


@dataclass(frozen=True)
class _Log:
    """What is to be logged beside files.

    Attributes:
        run_id: Of the run that is to have it.
        digest: Of the bundle that it is of.
        metrics: By name.
        tags: By name.
        pending: Further metrics, as `RunLog.flush` returns them.
    """

    run_id: str
    digest: str
    metrics: dict[str, float]
    tags: dict[str, str]
    pending: Sequence[Sequence[Any]] = field(default_factory=list)


def record_of(bundle: Path) -> Path:
    """Where that of a bundle is which could not be delivered yet: a directory beside it."""
    return bundle.with_name(f".{bundle.name}.undelivered")


def write(bundle: Bundle, run_id: str, metrics: Mapping[str, float], tags: Mapping[str, str]) -> Path:
    """Begin the record of a bundle, and return its directory, whose other files are artifacts."""
    directory = record_of(bundle.path)
    shutil.rmtree(directory, ignore_errors=True)  # of a training that was killed just here
    directory.mkdir()
    _write(directory, _Log(run_id, bundle.digest, dict(metrics), dict(tags)))
    return directory


def metrics_of(bundle: Bundle) -> dict[str, float]:
    """What a bundle tells of itself in numbers."""
    scores = {f"test_{name}": value for name, value in bundle.contract.metrics.items()}
    return {**scores, "temperature": bundle.contract.temperature, "review_below": bundle.contract.review_below}


def place(part: Path, final: Path, run_id: str) -> Path:
    """Move a finished bundle and its record to where they belong, and return that place.

    Nothing that happens afterwards, to the tracking server or to this process, can lose them.

    Raises:
        NewsbertError: If something else is there by now; the bundle is beside it, or stays, and the message says where.
    """
    problem = None
    for target in (final, final.with_name(f"{final.name}-{run_id[:8]}")):
        try:
            part.replace(target)
        except OSError as error:
            problem = problem or error
            continue
        shutil.rmtree(record_of(target), ignore_errors=True)  # of another bundle that was here
        if record_of(part).is_dir():
            record_of(part).replace(record_of(target))
        if problem is None:
            return target
        part = target
        break
    why = f"there is something else in {final} by now" if final.is_dir() else f"{final} cannot be written: {problem}"
    raise NewsbertError(f"{why}; the model is finished and in {part}, but not logged", _later(part)) from problem


def deliver(run: "RunLogger", bundle: Path, on_event: Callable[[Event], None]) -> None:
    """Log a finished training; a server or a store that cannot be reached is waited for, for a minute.

    Args:
        run: Its run.
        bundle: Where its bundle is, with its record beside it.
        on_event: Called with what happens.

    Raises:
        NewsbertError: If it is not taken, for whatever reason; the hint says how to deliver it later.
    """
    record = record_of(bundle)
    log = _read(record)
    if log is None:
        raise undelivered(bundle, NewsbertError(f"{record} cannot be read"))
    run.metrics(log.metrics)
    try:
        for pause in (*_PAUSES_S, None):
            try:
                _deliver(run, record, log, Bundle.read_unsigned(bundle))
                return
            except TrackingError as error:
                if pause is None or isinstance(error, RefusedError):
                    raise
                on_event(Note(f"{error.message}; trying again in {pause} s"))
                time.sleep(pause)
    except BaseException as error:
        _keep_pending(record, log, run)
        if not isinstance(error, Exception):  # Ctrl+C
            on_event(Note(f"the model is finished and in {bundle}, but not logged; {_later(bundle)}"))
            raise
        raise undelivered(bundle, error) from error


def undelivered(bundle: Path, error: Exception) -> NewsbertError:
    """Return the error that says where a finished bundle is, why it was not logged, and how that is done later."""
    if isinstance(error, NewsbertError):
        reason, mend = error.message, error.hint
    else:
        reason, mend = f"{type(error).__name__}: {first_line(error)}", None
    later = _later(bundle)
    return TrackingError(
        f"the model is finished and in {bundle}, but could not be logged: {reason}",
        f"{mend}; then {later}" if mend else later,
    )


def unregistered(bundle: Path, name: str, error: NewsbertError) -> NewsbertError:
    """Return the error that says where a finished and logged bundle is, and why it is not registered."""
    later = f"register it: {_command(bundle, shlex.quote(name))}"
    return TrackingError(
        f"the model is finished, logged and in {bundle}, but could not be registered: {error.message}",
        f"{error.hint}; then {later}" if error.hint else later,
    )


def done(bundle: Path) -> None:
    """Forget what there was to deliver."""
    shutil.rmtree(record_of(bundle), ignore_errors=True)


def waits(final: Path, run_id: str) -> bool:
    """Whether a finished bundle of this run is there and was not delivered."""
    log = _read(record_of(final))
    return log is not None and log.run_id == run_id and final.is_dir()


def later(bundle: Path) -> str:
    """The command by which an undelivered bundle is logged and registered."""
    return _command(bundle, "NAME")


def register(
    bundle: Path, tracker: "TrackingClient", name: str, alias: str | None, sign: Path | None = None
) -> "ModelVersionRef":
    """Log a bundle that no tracking server has yet, or not all of, and make it a version.

    Args:
        bundle: Its directory. What a training could not deliver lies beside it; else it gets a run of its own.
        tracker: The server.
        name: The registered model.
        alias: An alias to point at the version.
        sign: The private key to sign the bundle with, in its directory and in the registry.

    Raises:
        ModelError: If the bundle is none, or was altered.
        TrackingError: If the server does not take it.
    """
    found = Bundle.read_unsigned(bundle)
    found.verify()
    if sign is not None:
        _write_signature(found, sign)
    # Of several processes with the same bundle the first logs it, the others take its run.
    with locks.exclusive(f"register-{found.digest}", "it is being registered", wait=True):
        run_id = _logged(found, record_of(bundle), tracker)
        return registry.register(tracker, run_id, name, alias, sign=sign, digest=found.digest)


def _write_signature(bundle: Bundle, key: Path) -> None:
    signature, _ = bundle.sign(key)
    try:
        with temporary.directory(bundle.path.resolve().parent) as work:  # a bundle may hold nothing else for a moment
            (work / SIGNATURE_FILE).write_bytes(signature)
            (work / SIGNATURE_FILE).replace(bundle.path / SIGNATURE_FILE)
    except OSError as error:
        raise NewsbertError(f"{bundle.path} cannot be signed: {error.strerror or error}", "check its rights") from error


def _logged(found: Bundle, record: Path, tracker: "TrackingClient") -> str:
    """Return the run that holds a bundle, which is made where there is none."""
    log = _read(record)
    if log is None or log.digest != found.digest:  # none, or of another bundle that was here
        run_id = tracker.run_of(found.digest)
        if run_id is None:
            with experiment.start_run(tracker) as run:
                run.tags({DATA_DIGEST_TAG: str(found.contract.data["sha256"])})  # it is listed as a training
                run.metrics(metrics_of(found))
                run.params(_params_of(found.contract))
                run.artifacts(_tables_and_pictures(found))
                run.bundle(found)
                _flush(run)
                run_id = run.run_id
        return run_id
    known = tracker.get_run(log.run_id)
    here = known is not None and known.info.lifecycle_stage == "active"
    pending = {str(key) for key, *_ in log.pending}
    # A run of its own where this is another server than the one that it was trained with.
    with experiment.start_run(tracker, log.run_id if here else None, log.pending) as run:
        run.metrics({key: value for key, value in log.metrics.items() if key not in pending})
        _deliver(run, record, log, found)
    shutil.rmtree(record)
    return run.run_id


def _deliver(run: "RunLogger", record: Path, log: _Log, bundle: Bundle) -> None:
    run.tags(log.tags)
    written = (file for file in record.iterdir() if file.is_file() and not file.is_symlink() and file.name != _LOG)
    run.artifacts([*written, *_tables_and_pictures(bundle)])
    run.bundle(bundle)
    _flush(run)


def _tables_and_pictures(bundle: Bundle) -> list[Path]:
    return [*bundle.path.glob("*.png"), *bundle.path.glob("*.csv")]


def _params_of(contract: Contract) -> dict[str, Any]:
    """Return what a contract says of its training, by the names that a training logs it by."""
    data = contract.data
    named = {name: data[name] for name in ("text_column", "label_column") if data.get(name) is not None}
    return {
        "base_model_name": contract.base_model["name"],
        "base_model_sha256": contract.base_model["sha256"],
        "data": data["name"],
        "train_rows": data["rows"]["train"],
        "labels": ",".join(contract.labels),
        "max_length": contract.max_length,
        **named,
    }


def _flush(run: "RunLogger") -> None:
    """Have all metrics delivered.

    Raises:
        TrackingError: If some cannot be.
    """
    left = run.flush(_METRICS_S)
    if left:
        raise TrackingError(f"{len(left)} metrics of run {run.run_id} could not be logged", "check the tracking server")


def _later(bundle: Path) -> str:
    return f"log and register it: {later(bundle)}"


def _command(bundle: Path, name: str) -> str:
    return f"newsbert register {shlex.quote(str(bundle))} --model-name {name}"


def _keep_pending(record: Path, log: _Log, run: "RunLogger") -> None:
    """Add to a record the metrics that were not delivered; where the disk is full, the record stays without them."""
    part = record / f".{_LOG}"
    try:
        _write(record, replace(log, pending=run.flush()))
    except OSError:
        part.unlink(missing_ok=True)


def _read(directory: Path) -> _Log | None:
    """What a record says; nothing where there is none, or something else."""
    try:
        log = _Log(**json.loads((directory / _LOG).read_text(encoding="utf-8")))
        valid = (
            re.fullmatch(r"[0-9a-f]{32}", log.run_id) is not None
            and isinstance(log.digest, str)
            and all(isinstance(value, int | float) for value in log.metrics.values())
            and all(isinstance(value, str) for value in log.tags.values())
            and all(isinstance(key, str) and len(more) == 3 for key, *more in log.pending)
            and all(isinstance(number, int | float) for _, *numbers in log.pending for number in numbers)
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return log if valid else None


def _write(directory: Path, log: _Log) -> None:
    part = directory / f".{_LOG}"
    part.write_text(json.dumps(asdict(log)), encoding="utf-8")
    part.rename(directory / _LOG)
