"""Working directory of a training: beside that of its bundle, and removed when the bundle is complete.

A killed training can be resumed, from its latest checkpoint if it has one; the next training reports it. A failed
training can be resumed if it has a checkpoint. The file with its initial state exists as long as it can be resumed.
"""

import contextlib
import errno
import glob
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from newsbert.core import files, locks, private_files
from newsbert.core.identifiers import MIN_RUN_ID_DIGITS, SHORT_RUN_ID_DIGITS, parse_run_id
from newsbert.errors import DivergedError, NewsbertError, NotFoundError, TrackingError, UsageError
from newsbert.tracking import upload

_RUN_FILE = "run.json"
_CHECKPOINTS = "checkpoints"
BUNDLE = "bundle"
"""Subdirectory of the bundle until it is finished."""

_DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_MIN_FREE_BYTES = 1_000_000


@dataclass(frozen=True)
class RunState:
    """Initial state of a training, for resuming it.

    Attributes:
        run_id: The MLflow run.
        final: The bundle's directory.
        settings: Resolved settings.
        data_digest: Digest of the rows.
        base_model_sha256: Digest of the encoder.
        model_name: Name to register the finished model under.
        params: Parameters to log.
    """

    run_id: str
    final: str
    settings: dict[str, Any]
    data_digest: str
    base_model_sha256: str
    model_name: str | None
    params: dict[str, Any]


def output_directory(name: str) -> Path:
    """Return the output directory of a bundle.

    Raises:
        UsageError: If it is not empty, is the output of another running training, or cannot be read.
    """
    output = Path(name)
    with contextlib.suppress(RuntimeError):  # an unknown user's home: used as a literal name
        output = output.expanduser()
    try:
        taken = is_nonempty(output)
    except OSError as error:
        raise UsageError(
            f"--output-dir {name} cannot be used: {error.strerror}", "choose another --output-dir"
        ) from error
    if taken:
        raise UsageError(f"--output-dir {output} exists and is not an empty directory", "name another, or remove it")
    if any(is_busy(other) for other in output.parent.glob(f".{glob.escape(output.name)}.partial-*")):
        raise UsageError(f"--output-dir {output} is what another training under way is to become", "name another")
    return output


def is_nonempty(output: Path) -> bool:
    """Return whether the output path is a file or a directory with entries."""
    return output.exists() and (not output.is_dir() or any(output.iterdir()))


def require_new(final: Path, run_id: str) -> None:
    """Refuse to start a run again that can be resumed, is still being trained, or is finished.

    Raises:
        UsageError: In these cases.
    """
    work = _get_work_directory(final, run_id)
    if is_busy(work):
        raise UsageError(f"run {run_id} is being trained by another process", "wait for it, or stop it")
    if work.exists():
        raise UsageError(f"run {run_id} was begun before", f"{_format_resume_command(work)}; or remove {work}")
    if is_nonempty(final):
        raise UsageError(f"{final} is there already", f"move it away; or begin another run than {run_id}")


def _get_work_directory(final: Path, run_id: str) -> Path:
    return final.parent / f".{final.name}.partial-{run_id[:SHORT_RUN_ID_DIGITS]}"


@contextlib.contextmanager
def create(final: Path, run: RunState) -> Iterator[Path]:
    """Yield a new directory beside `final`; remove it afterwards, unless an error leaves a checkpoint in it.

    Raises:
        UsageError: If it cannot be created.
        NewsbertError: If the disk is too full for the files of the block.
    """
    work = _get_work_directory(final, run.run_id)
    try:
        require_new(final, run.run_id)
        final.parent.mkdir(parents=True, exist_ok=True)
        work.mkdir(mode=0o700)
        try:
            lock = locks.acquire(work, run.run_id)
            files.write_atomically(work / _RUN_FILE, json.dumps(asdict(run)), durable=True)
        except OSError:
            shutil.rmtree(work, ignore_errors=True)
            raise
    except OSError as error:
        raise UsageError(f"cannot write to {final.parent}: {error.strerror}", "choose another --output-dir") from error
    with lock, cleanup_on_exit(work, final):
        yield work


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[RunState]:
    """Lock the directory of an unfinished training and yield its initial state.

    Raises:
        NotFoundError: If no training worked there.
        UsageError: If that training is still running.
    """
    run = read(directory)
    try:
        lock = locks.try_acquire(directory)
    except OSError as error:
        raise UsageError(
            f"run {run.run_id} is being trained by another process: {error.strerror}", "wait for it, or stop it"
        ) from error
    with lock:
        yield run


@contextlib.contextmanager
def cleanup_on_exit(work: Path, final: Path) -> Iterator[None]:
    """Remove `work` after the block, unless an error leaves a checkpoint in it to resume from.

    Raises:
        NewsbertError: If the disk is too full for the files of the block.
    """
    try:
        yield
    except Exception as error:
        # A training that diverged would diverge again.
        resumable = (
            (work / _RUN_FILE).exists()
            and any(checkpoints(work).glob("checkpoint-*"))
            and not isinstance(error, DivergedError)
        )
        command = _format_resume_command(work)
        # A bundle that could not be moved out is the only result of the training.
        if not resumable and not upload.record_of(work / BUNDLE).is_dir():
            _remove(work)
        if _is_disk_error(error, final.parent):
            raise NewsbertError(
                f"the disk of {final.parent.resolve()} cannot hold it: {error}",
                f"make room, then go on: {command}" if resumable else "df -h .",
            ) from error
        if resumable:
            error.add_note(f"it can go on from its latest checkpoint: {command}")
        raise
    except BaseException:  # the user cancelled it
        _remove(work)
        raise
    else:
        _remove(work)


def _format_resume_command(work: Path) -> str:
    """Return the command that resumes a training."""
    return shlex.join(["newsbert", "train", "--resume", str(work)])


def _remove(work: Path) -> None:
    mark_finished(work)
    shutil.rmtree(work, ignore_errors=True)


def mark_finished(work: Path) -> None:
    """Prevent a training from being resumed."""
    (work / _RUN_FILE).unlink(missing_ok=True)


def checkpoints(work: Path) -> Path:
    """Return the directory of a training's checkpoints."""
    return work / _CHECKPOINTS


def read(work: Path) -> RunState:
    """Return the initial state of a training.

    Raises:
        NotFoundError: If no training started there.
    """
    try:
        private_files.check_owner(work)
        run = RunState(**json.loads((work / _RUN_FILE).read_text(encoding="utf-8")))
        parse_run_id(run.run_id, f"the run in {work / _RUN_FILE}")
        return run
    except (OSError, ValueError, TypeError, TrackingError) as error:
        raise NotFoundError(f"no training worked in {work}", "newsbert runs") from error


def find(run: str, parent: Path) -> Path | None:
    """Return the directory in `parent` of a resumable training, by its run id or the beginning of that."""
    for file in sorted(parent.glob(f".*.partial-*/{_RUN_FILE}")):
        with contextlib.suppress(NotFoundError):
            if len(run) >= MIN_RUN_ID_DIGITS and read(file.parent).run_id.startswith(run):
                return file.parent
    return None


def is_busy(directory: Path) -> bool:
    """Return whether the process that works there is alive."""
    try:
        locks.try_acquire(directory).close()
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def find_interrupted(parent: Path) -> dict[str, str | None]:
    """Return hints on resuming the trainings killed in `parent`, by run id; remove those that cannot be resumed."""
    hints: dict[str, str | None] = {}
    for directory, run_id in locks.iterate_stale(parent, ".*.partial-*"):
        hints[run_id] = f"{_format_resume_command(directory)} goes on with it; or remove that directory"
        if not (directory / _RUN_FILE).exists():
            shutil.rmtree(directory, ignore_errors=True)
            hints[run_id] = None
            continue
        try:
            final = Path(read(directory).final)
        except NotFoundError:  # its state is broken: it cannot be resumed, and its owner is unknown
            del hints[run_id]
            continue
        if upload.waits(final, run_id):
            shutil.rmtree(directory, ignore_errors=True)
            hints[run_id] = f"its model is finished and in {final}; log and register it: {upload.later(final)}"
    return hints


def _is_disk_error(error: Exception, directory: Path) -> bool:
    """Return whether a write failed for lack of space; torch and safetensors raise exceptions of their own."""
    if isinstance(error, NewsbertError):
        return False
    if isinstance(error, OSError) and error.errno in _DISK_ERRNOS:
        return True
    match = re.search(r"os error (\d+)", str(error))
    return (match is not None and int(match[1]) in _DISK_ERRNOS) or shutil.disk_usage(directory).free < _MIN_FREE_BYTES
