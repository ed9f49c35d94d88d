"""Where training works: a directory beside the bundle's, which is gone when the bundle is there.

A training that is killed can go on, from its latest checkpoint if it had come to one; the next one tells of it. One
that fails can if it has a checkpoint.
"""

import contextlib
import errno
import fcntl
import glob
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from newsbert.errors import DivergedError, NewsbertError, NotFoundError, UsageError

_LOCK_FILE = "lock"
_RUN_FILE = "run.json"
_CHECKPOINTS = "checkpoints"
_DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_FULL_BYTES = 1_000_000


@dataclass(frozen=True)
class RunFile:
    """What a training that goes on must know of how it began.

    Attributes:
        run_id: The MLflow run.
        final: The bundle's directory.
        settings: As they were resolved.
        data_digest: Of the rows.
        base_model_sha256: Of the encoder.
        model_name: What the model is registered as when it is done.
    """

    run_id: str
    final: str
    settings: dict[str, Any]
    data_digest: str
    base_model_sha256: str
    model_name: str | None


def output_directory(name: str) -> Path:
    """Return the directory that the bundle is to become.

    Raises:
        UsageError: If there is something already, a training under way is to become it, or it cannot be looked at.
    """
    output = Path(name)
    with contextlib.suppress(RuntimeError):  # no such user's home: then it is a name like any other
        output = output.expanduser()
    try:
        taken = output.exists() and (not output.is_dir() or any(output.iterdir()))
    except OSError as error:
        raise UsageError(f"--output {name} cannot be used: {error.strerror}", "choose another --output") from error
    if taken:
        raise UsageError(f"--output {output} exists and is not an empty directory", "name another, or remove it")
    if any(is_busy(other) for other in output.parent.glob(f".{glob.escape(output.name)}.partial-*")):
        raise UsageError(f"--output {output} is what another training under way is to become", "name another")
    return output


@contextlib.contextmanager
def beside(final: Path, run: RunFile) -> Iterator[Path]:
    """Yield a new directory beside `final`, which is gone afterwards, unless an error leaves a checkpoint in it.

    Raises:
        UsageError: If it cannot be made.
        NewsbertError: If the disk cannot hold what is written in the block.
    """
    work = final.parent / f".{final.name}.partial-{run.run_id[:8]}"
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        work.mkdir()
        (work / _RUN_FILE).write_text(json.dumps(asdict(run)), encoding="utf-8")
        lock = _lock(work, run.run_id)
    except OSError as error:
        shutil.rmtree(work, ignore_errors=True)
        raise UsageError(f"cannot write to {final.parent}: {error.strerror}", "choose another --output") from error
    with lock, _working(work, final):
        yield work


@contextlib.contextmanager
def again(directory: Path) -> Iterator[Path]:
    """Yield the directory of a training that ended before it was done; afterwards as `beside` has it.

    Raises:
        UsageError: If that training is still under way.
        NewsbertError: If the disk cannot hold what is written in the block.
    """
    run = read(directory)
    try:
        lock = (directory / _LOCK_FILE).open("r+", encoding="utf-8")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise UsageError(
            f"run {run.run_id} is being trained by another process: {error.strerror}", "wait for it, or stop it"
        ) from error
    with lock, _working(directory, Path(run.final)):
        yield directory


@contextlib.contextmanager
def _working(work: Path, final: Path) -> Iterator[None]:
    """Remove `work` afterwards, unless an error leaves a checkpoint in it."""
    try:
        yield
    except Exception as error:
        # A loss that was no number would be none again.
        resumable = _has_checkpoint(work) and not isinstance(error, DivergedError)
        on = shlex.join(["newsbert", "train", "--resume", str(work)])
        if not resumable:
            shutil.rmtree(work, ignore_errors=True)
        if _is_disk_error(error, final.parent):
            raise NewsbertError(
                f"the disk of {final.parent.resolve()} cannot hold it: {error}",
                f"make room, then go on: {on}" if resumable else "df -h .",
            ) from error
        if resumable:
            error.add_note(f"it can go on from its latest checkpoint: {on}")
        raise
    except BaseException:  # the user wants it gone
        shutil.rmtree(work, ignore_errors=True)
        raise
    else:
        shutil.rmtree(work, ignore_errors=True)


def _lock(work: Path, run_id: str) -> TextIO:
    """Hold a lock in `work` that ends with this process, and note whose it is."""
    unlocked = work / f"{_LOCK_FILE}.new"
    stream = unlocked.open("w", encoding="utf-8")
    stream.write(run_id)
    stream.flush()
    with contextlib.suppress(OSError):  # a file system without locks: then nobody else gets one either
        fcntl.flock(stream, fcntl.LOCK_EX)
    unlocked.rename(work / _LOCK_FILE)  # only now can it be found, so nobody finds it without its lock
    return stream


def checkpoints(work: Path) -> Path:
    """Where the checkpoints of a training are."""
    return work / _CHECKPOINTS


def _has_checkpoint(work: Path) -> bool:
    return any(checkpoints(work).glob("checkpoint-*"))


def read(work: Path) -> RunFile:
    """How a training began.

    Raises:
        NotFoundError: If none did there.
    """
    try:
        return RunFile(**json.loads((work / _RUN_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise NotFoundError(f"no training worked in {work}", "newsbert runs") from error


def find(run: str, parent: Path) -> Path | None:
    """The directory in `parent` of a training that can go on, told by its run's id or the beginning of it."""
    for file in sorted(parent.glob(f".*.partial-*/{_RUN_FILE}")):
        if len(run) >= 4 and read(file.parent).run_id.startswith(run):
            return file.parent
    return None


def is_busy(directory: Path) -> bool:
    """Whether the process that works there lives."""
    try:
        with (directory / _LOCK_FILE).open("r+", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def left(parent: Path) -> dict[str, Path]:
    """The directories in `parent` of trainings that were killed, by their runs' ids."""
    found = {}
    with contextlib.suppress(OSError):
        for lock in sorted(parent.glob(f".*.partial-*/{_LOCK_FILE}")):
            # Readable and writable: over NFS an exclusive lock needs the latter.
            with contextlib.suppress(OSError), lock.open("r+", encoding="utf-8") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its process lives
                found[stream.read()] = lock.parent
    return found


def _is_disk_error(error: Exception, directory: Path) -> bool:
    """Tell whether writing failed for want of room; torch and safetensors say so in exceptions of their own."""
    if isinstance(error, NewsbertError):
        return False
    if isinstance(error, OSError) and error.errno in _DISK_ERRNOS:
        return True
    in_rust = re.search(r"os error (\d+)", str(error))
    return (in_rust is not None and int(in_rust[1]) in _DISK_ERRNOS) or shutil.disk_usage(directory).free < _FULL_BYTES
