"""What is done of an output, kept beside it until it is whole, so that a run can go on where another was ended.

The directory `.OUTPUT.partial` holds the encoded rows and the rejected ones, each a file that only grows, and a note
of what run this is, how far it is and how long the files were then. What a killed process wrote behind these lengths
is cut off.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from newsbert.core import private_files
from newsbert.errors import NewsbertError

_ROWS, _REJECTED, _NOTE, _LOCK = "rows", "rejected.jsonl", "progress.json", "lock"


@dataclass(frozen=True)
class ResumeState:
    """How far a run is.

    Attributes:
        records: Rows of the input that are done, unreadable ones included.
        total: Rows of the input.
        rows: Rows of the output.
        skipped: Those of them without an answer.
        unreadable: Rows of the input that are not in the output.
        rows_bytes: Length of the file of rows.
        rejected_bytes: Length of the file of rejected rows.
    """

    records: int
    total: int
    rows: int = 0
    skipped: int = 0
    unreadable: int = 0
    rows_bytes: int = 0
    rejected_bytes: int = 0


def rejected_file(output: Path) -> Path:
    """Where the rows go that got no answer, with the reason."""
    return output.with_name(f"{output.name}.rejected.jsonl")


def kept(output: Path) -> ResumeState | None:
    """How far a run is whose output is not whole."""
    found = _read_note(_directory(output))
    return found[1] if found and found[1].records else None


class Partial:
    """A directory of an unfinished output, locked.

    Attributes:
        kept: How far it is.
        note: What the user should know of what was there before.
    """

    def __init__(
        self, output: Path, directory: Path, job: Mapping[str, object], kept: ResumeState, note: str | None
    ) -> None:
        self.kept = kept
        self.note = note
        self._output = output
        self._directory = directory
        self._job = job

    def append(self, rows: bytes, rejected: bytes, kept: ResumeState) -> None:
        """Keep what belongs to further rows.

        Args:
            rows: Encoded rows.
            rejected: Lines of rejected rows.
            kept: How far the run then is; the files' lengths are seen to here.

        Raises:
            NewsbertError: If it cannot be written.
        """
        with _writing(self._output):
            _append(self._directory / _ROWS, rows)
            _append(self._directory / _REJECTED, rejected)
            self.kept = dataclasses.replace(
                kept,
                rows_bytes=self.kept.rows_bytes + len(rows),
                rejected_bytes=self.kept.rejected_bytes + len(rejected),
            )
            _write_note(self._directory, self._job, self.kept)

    def publish(self, finish: Callable[[Path], Path]) -> Path | None:
        """Make the output and its file of rejected rows appear, and return the latter if there are any.

        Args:
            finish: Turns the file of rows into the output, in the same directory.

        Raises:
            NewsbertError: If it cannot be written.
        """
        side = rejected_file(self._output)
        with _writing(self._output):
            whole = finish(self._directory / _ROWS)
            if self.kept.rejected_bytes:
                # A copy: who is killed before the next line goes on from here.
                copy = self._directory / f"{_REJECTED}.new"
                shutil.copyfile(self._directory / _REJECTED, copy)
                copy.replace(side)
            else:
                side.unlink(missing_ok=True)  # that of an earlier output, which now goes as well
            whole.replace(self._output)
        return side if self.kept.rejected_bytes else None


@contextlib.contextmanager
def opened(output: Path, job: Mapping[str, object], total: int, header: bytes, restart: bool) -> Iterator[Partial]:
    """Go on with what is kept of an output, or begin it anew; it is gone if nothing is kept at the end.

    Args:
        output: The file that is to be.
        job: What this run is, by words that a user knows; only what the same run kept is used.
        total: Rows of the input.
        header: What the file of rows begins with.
        restart: Whether to begin anew in any case.

    Raises:
        NewsbertError: If another process is writing this output, or it cannot be written.
    """
    directory = _directory(output)
    with contextlib.ExitStack() as stack:
        with _writing(output):
            if output.is_dir():
                raise IsADirectoryError(0, "it is a directory")
            _lock(output, directory, stack)
            note = None
            found = _read_note(directory)
            if found is not None and not restart and found[1].records:
                note = _why_not(directory, *found, job)
            if found is None or restart or note or not found[1].records:
                _empty(directory)
                _append(directory / _ROWS, header)
                _append(directory / _REJECTED, b"")
                how_far = ResumeState(0, total, rows_bytes=len(header))
                _write_note(directory, job, how_far)
            else:
                how_far = found[1]
                os.truncate(directory / _ROWS, how_far.rows_bytes)
                os.truncate(directory / _REJECTED, how_far.rejected_bytes)
                note = f"{how_far.records} of {total} rows are done already; --restart does them again"
        partial = Partial(output, directory, job, how_far, note)
        finished = False
        try:
            yield partial
            finished = True
        finally:
            if finished or not partial.kept.records:
                shutil.rmtree(directory, ignore_errors=True)


def _directory(output: Path) -> Path:
    return output.with_name(f".{output.name}.partial")


def _lock(output: Path, directory: Path, stack: contextlib.ExitStack) -> None:
    """Make the directory and hold a lock in it that ends with this process.

    Raises:
        NewsbertError: If another process has it.
    """
    while True:
        private_files.make_directory(directory)
        try:
            stream = private_files.open_lock(directory / _LOCK)
        except FileNotFoundError:  # another process was done with it at this moment
            continue
        stack.enter_context(stream)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NewsbertError(
                f"another newsbert predict is writing {output}", "wait for it, or name another --output"
            ) from error
        except OSError:  # a file system without locks
            return
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), (directory / _LOCK).stat()):
                return


def _why_not(
    directory: Path, kept_job: Mapping[str, object], kept: ResumeState, job: Mapping[str, object]
) -> str | None:
    """Why what is kept cannot be used, or `None` if it can."""
    different = [name for name in job if kept_job.get(name) != job[name]]
    if different:
        return f"beginning anew: the {kept.records} rows that are kept are of another {', another '.join(different)}"
    for name, length in ((_ROWS, kept.rows_bytes), (_REJECTED, kept.rejected_bytes)):
        file = directory / name
        if not file.is_file() or file.stat().st_size < length:
            return f"beginning anew: what is kept of {kept.records} rows is incomplete"
    return None


def _read_note(directory: Path) -> tuple[Mapping[str, object], ResumeState] | None:
    try:
        note = json.loads((directory / _NOTE).read_text(encoding="utf-8"))
        return dict(note["job"]), ResumeState(**note["kept"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_note(directory: Path, job: Mapping[str, object], kept: ResumeState) -> None:
    new = directory / f"{_NOTE}.new"
    new.unlink(missing_ok=True)
    _append(new, json.dumps({"job": job, "kept": dataclasses.asdict(kept)}, indent=1).encode())
    new.replace(directory / _NOTE)


def _append(file: Path, content: bytes) -> None:
    """Write to the disk, not only to the system's memory of it."""
    with file.open("ab", buffering=0) as stream:
        rest = memoryview(content)
        while rest:
            rest = rest[stream.write(rest) :]
        os.fsync(stream)


def _empty(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.name != _LOCK:
            entry.unlink()


@contextlib.contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Turn what may go wrong with writing into an error for the user.

    Raises:
        NewsbertError: If it does.
    """
    try:
        yield
    except OSError as error:
        raise NewsbertError(
            f"{output} cannot be written: {error.strerror or error}", "check the disk: df -h ."
        ) from error
