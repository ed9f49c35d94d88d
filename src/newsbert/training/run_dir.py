"""Where training works: a directory beside the bundle's, which is gone when the bundle is there.

A training that is killed can go on, from its latest checkpoint if it had come to one; the next one tells of it. One
that fails can if it has a checkpoint. What tells how it began is there as long as it can go on.
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

from newsbert.core import cache, locks, private_files
from newsbert.core.identifiers import parse_run_id
from newsbert.errors import DivergedError, NewsbertError, NotFoundError, TrackingError, UsageError
from newsbert.tracking import upload

_RUN_FILE = "run.json"
_CHECKPOINTS = "checkpoints"
BUNDLE = "bundle"
"""Where the bundle is until it is finished."""

_DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_FULL_BYTES = 1_000_000


@dataclass(frozen=True)
class RunState:
    """What a training that goes on must know of how it began.

    Attributes:
        run_id: The MLflow run.
        final: The bundle's directory.
        settings: As they were resolved.
        data_digest: Of the rows.
        base_model_sha256: Of the encoder.
        model_name: What the model is registered as when it is done.
        params: What is logged of it.
    """

    run_id: str
    final: str
    settings: dict[str, Any]
    data_digest: str
    base_model_sha256: str
    model_name: str | None
    params: dict[str, Any]


def output_directory(name: str) -> Path:
    """Return the directory that the bundle is to become.

    Raises:
        UsageError: If there is something already, a training under way is to become it, or it cannot be looked at.
    """
    output = Path(name)
    with contextlib.suppress(RuntimeError):  # no such user's home: then it is a name like any other
        output = output.expanduser()
    try:
        taken = is_nonempty(output)
    except OSError as error:
        raise UsageError(f"--output {name} cannot be used: {error.strerror}", "choose another --output") from error
    if taken:
        raise UsageError(f"--output {output} exists and is not an empty directory", "name another, or remove it")
    if any(is_busy(other) for other in output.parent.glob(f".{glob.escape(output.name)}.partial-*")):
        raise UsageError(f"--output {output} is what another training under way is to become", "name another")
    return output


def is_nonempty(output: Path) -> bool:
    """Whether there is something already where a bundle is to be."""
    return output.exists() and (not output.is_dir() or any(output.iterdir()))


def require_new(final: Path, run_id: str) -> None:
    """Refuse to begin a run again that can be gone on with, is still being trained, or is done.

    Raises:
        UsageError: If it is one of these.
    """
    work = _place(final, run_id)
    if is_busy(work):
        raise UsageError(f"run {run_id} is being trained by another process", "wait for it, or stop it")
    if work.exists():
        raise UsageError(f"run {run_id} was begun before", f"{_go_on(work)}; or remove {work}")
    if is_nonempty(final):
        raise UsageError(f"{final} is there already", f"move it away; or begin another run than {run_id}")


def _place(final: Path, run_id: str) -> Path:
    return final.parent / f".{final.name}.partial-{run_id[:8]}"


@contextlib.contextmanager
def create(final: Path, run: RunState) -> Iterator[Path]:
    """Yield a new directory beside `final`, which is gone afterwards, unless an error leaves a checkpoint in it.

    Raises:
        UsageError: If it cannot be made.
        NewsbertError: If the disk cannot hold what is written in the block.
    """
    work = _place(final, run.run_id)
    try:
        require_new(final, run.run_id)
        final.parent.mkdir(parents=True, exist_ok=True)
        work.mkdir(mode=0o700)
        try:
            lock = locks.acquire(work, run.run_id)
            _write_whole(work / _RUN_FILE, json.dumps(asdict(run)))
        except OSError:
            shutil.rmtree(work, ignore_errors=True)
            raise
    except OSError as error:
        raise UsageError(f"cannot write to {final.parent}: {error.strerror}", "choose another --output") from error
    with lock, cleanup_on_exit(work, final):
        yield work


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[RunState]:
    """Keep others out of the directory of a training that ended before it was done; yield how it began.

    Raises:
        NotFoundError: If no training worked there.
        UsageError: If that training is still under way.
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
    """Remove `work` after the block, unless an error leaves a checkpoint in it that can be gone on from.

    Raises:
        NewsbertError: If the disk cannot hold what is written in the block.
    """
    try:
        yield
    except Exception as error:
        # A loss that was no number would be none again.
        resumable = (
            (work / _RUN_FILE).exists()
            and any(checkpoints(work).glob("checkpoint-*"))
            and not isinstance(error, DivergedError)
        )
        on = _go_on(work)
        # A bundle that could not be moved out of it is all that there is of the training.
        if not resumable and not upload.record_of(work / BUNDLE).is_dir():
            _remove(work)
        if _is_disk_error(error, final.parent):
            raise NewsbertError(
                f"the disk of {final.parent.resolve()} cannot hold it: {error}",
                f"make room, then go on: {on}" if resumable else "df -h .",
            ) from error
        if resumable:
            error.add_note(f"it can go on from its latest checkpoint: {on}")
        raise
    except BaseException:  # the user wants it gone
        _remove(work)
        raise
    else:
        _remove(work)


def _go_on(work: Path) -> str:
    """The command that goes on with a training."""
    return shlex.join(["newsbert", "train", "--resume", str(work)])


def _write_whole(file: Path, text: str) -> None:
    """Have a file appear with all of its text, or not at all."""
    part = file.with_name(f".{file.name}")
    part.write_text(text, encoding="utf-8")
    cache.sync(part)
    part.rename(file)


def _remove(work: Path) -> None:
    mark_finished(work)
    shutil.rmtree(work, ignore_errors=True)


def mark_finished(work: Path) -> None:
    """Have nobody go on with a training."""
    (work / _RUN_FILE).unlink(missing_ok=True)


def checkpoints(work: Path) -> Path:
    """Where the checkpoints of a training are."""
    return work / _CHECKPOINTS


def read(work: Path) -> RunState:
    """How a training began.

    Raises:
        NotFoundError: If none did there.
    """
    try:
        private_files.check_owner(work)
        run = RunState(**json.loads((work / _RUN_FILE).read_text(encoding="utf-8")))
        parse_run_id(run.run_id, f"the run in {work / _RUN_FILE}")
        return run
    except (OSError, ValueError, TypeError, TrackingError) as error:
        raise NotFoundError(f"no training worked in {work}", "newsbert runs") from error


def find(run: str, parent: Path) -> Path | None:
    """The directory in `parent` of a training that can go on, told by its run's id or the beginning of it."""
    for file in sorted(parent.glob(f".*.partial-*/{_RUN_FILE}")):
        with contextlib.suppress(NotFoundError):
            if len(run) >= 4 and read(file.parent).run_id.startswith(run):
                return file.parent
    return None


def is_busy(directory: Path) -> bool:
    """Whether the process that works there lives."""
    try:
        locks.try_acquire(directory).close()
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def find_interrupted(parent: Path) -> dict[str, str | None]:
    """Trainings that were killed in `parent`: by their runs' ids, how they go on; those that cannot are removed."""
    found: dict[str, str | None] = {}
    for directory, run_id in locks.iterate_stale(parent, ".*.partial-*"):
        found[run_id] = f"{_go_on(directory)} goes on with it; or remove that directory"
        if not (directory / _RUN_FILE).exists():
            shutil.rmtree(directory, ignore_errors=True)
            found[run_id] = None
            continue
        try:
            final = Path(read(directory).final)
        except NotFoundError:  # its note is broken: nothing can go on with it, and whose it is nobody knows
            del found[run_id]
            continue
        if upload.waits(final, run_id):
            shutil.rmtree(directory, ignore_errors=True)
            found[run_id] = f"its model is finished and in {final}; log and register it: {upload.later(final)}"
    return found


def _is_disk_error(error: Exception, directory: Path) -> bool:
    """Tell whether writing failed for want of room; torch and safetensors say so in exceptions of their own."""
    if isinstance(error, NewsbertError):
        return False
    if isinstance(error, OSError) and error.errno in _DISK_ERRNOS:
        return True
    in_rust = re.search(r"os error (\d+)", str(error))
    return (in_rust is not None and int(in_rust[1]) in _DISK_ERRNOS) or shutil.disk_usage(directory).free < _FULL_BYTES
