"""Where training works: a directory beside the bundle's, gone afterwards, whatever ends the training."""

import contextlib
import errno
import fcntl
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from newsbert.errors import NewsbertError, UsageError

_LOCK_FILE = "lock"
_DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_FULL_BYTES = 1_000_000


def output_directory(name: str) -> Path:
    """Return the directory that the bundle is to become.

    Raises:
        UsageError: If there is something already, or it cannot be looked at.
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
    return output


@contextlib.contextmanager
def beside(final: Path, run_id: str) -> Iterator[Path]:
    """Yield a new directory beside `final`, which is gone afterwards.

    Raises:
        UsageError: If it cannot be made.
        NewsbertError: If the disk cannot hold what is written in the block.
    """
    work = final.parent / f".{final.name}.partial-{run_id[:8]}"
    with contextlib.ExitStack() as stack:
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            work.mkdir()
            stack.callback(shutil.rmtree, work, ignore_errors=True)
            _lock(work, run_id, stack)
        except OSError as error:
            raise UsageError(f"cannot write to {final.parent}: {error.strerror}", "choose another --output") from error
        try:
            yield work
        except Exception as error:
            if not _is_disk_error(error, work):
                raise
            raise NewsbertError(f"the disk of {final.parent.resolve()} cannot hold it: {error}", "df -h .") from error


def _lock(work: Path, run_id: str, stack: contextlib.ExitStack) -> None:
    """Hold a lock in `work` that ends with this process, and note whose it is."""
    unlocked = work / f"{_LOCK_FILE}.new"
    stream = stack.enter_context(unlocked.open("w", encoding="utf-8"))
    stream.write(run_id)
    stream.flush()
    with contextlib.suppress(OSError):  # a file system without locks: then nobody else gets one either
        fcntl.flock(stream, fcntl.LOCK_EX)
    unlocked.rename(work / _LOCK_FILE)  # only now can it be found, so nobody finds it without its lock


def remove_stale(parent: Path) -> list[str]:
    """Remove what trainings that were killed have left in `parent`, and return the ids of their runs."""
    runs = []
    with contextlib.suppress(OSError):
        for lock in parent.glob(f".*.partial-*/{_LOCK_FILE}"):
            # Readable and writable: over NFS an exclusive lock needs the latter.
            with contextlib.suppress(OSError), lock.open("r+", encoding="utf-8") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its process lives
                runs.append(stream.read())
                shutil.rmtree(lock.parent, ignore_errors=True)
    return runs


def _is_disk_error(error: Exception, directory: Path) -> bool:
    """Tell whether writing failed for want of room; torch and safetensors say so in exceptions of their own."""
    if isinstance(error, NewsbertError):
        return False
    if isinstance(error, OSError) and error.errno in _DISK_ERRNOS:
        return True
    in_rust = re.search(r"os error (\d+)", str(error))
    return (in_rust is not None and int(in_rust[1]) in _DISK_ERRNOS) or shutil.disk_usage(directory).free < _FULL_BYTES
