"""Progress of an unfinished output, saved beside it, so that an interrupted run can resume.

The directory `.OUTPUT.partial` holds the encoded rows, the rejected rows and a note. The two files of rows only grow.
The note has the identity of the run, its progress and the length of the files at that time. Bytes after these lengths
come from a killed process and are cut off.
"""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from newsbert.core import files, locks, private_files
from newsbert.errors import NewsbertError

_ROWS, _REJECTED, _NOTE, _LOCK = "rows", "rejected.jsonl", "progress.json", "lock"


@dataclass(frozen=True)
class ResumeState:
    """Progress of a run.

    Attributes:
        records: Number of input rows that are done, unreadable ones included.
        total: Number of input rows.
        rows: Number of output rows.
        skipped: Number of output rows without a prediction.
        unreadable: Number of input rows that are not in the output.
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
    """Return the path of the file for rows without a prediction, with the reasons."""
    return output.with_name(f"{output.name}.rejected.jsonl")


def read_state(output: Path) -> ResumeState | None:
    """Return the progress of an unfinished output, or `None` if there is none."""
    saved = _read_note(_directory(output))
    return saved[1] if saved and saved[1].records else None


class Partial:
    """The directory of an unfinished output, locked.

    Attributes:
        state: Progress of the run.
        note: Note for the user about earlier progress.
    """

    def __init__(
        self, output: Path, directory: Path, job: Mapping[str, object], state: ResumeState, note: str | None
    ) -> None:
        self.state = state
        self.note = note
        self._output = output
        self._directory = directory
        self._job = job

    def append(self, rows: bytes, rejected: bytes, state: ResumeState) -> None:
        """Append further rows and save the progress.

        Args:
            rows: Encoded rows.
            rejected: Lines of rejected rows.
            state: Progress after these rows; the lengths of the files are filled in here.

        Raises:
            NewsbertError: If it cannot be written.
        """
        with _translate_errors(self._output):
            _append(self._directory / _ROWS, rows)
            _append(self._directory / _REJECTED, rejected)
            self.state = dataclasses.replace(
                state,
                rows_bytes=self.state.rows_bytes + len(rows),
                rejected_bytes=self.state.rejected_bytes + len(rejected),
            )
            _write_note(self._directory, self._job, self.state)

    def publish(self, finish: Callable[[Path], Path]) -> Path | None:
        """Publish the output and its file of rejected rows; return the latter if there are any.

        Args:
            finish: Turns the file of rows into the output, in the same directory.

        Raises:
            NewsbertError: If it cannot be written.
        """
        rejected = rejected_file(self._output)
        with _translate_errors(self._output):
            complete = finish(self._directory / _ROWS)
            if self.state.rejected_bytes:
                # A copy: a process that is killed before the next line resumes from here.
                copy = self._directory / f"{_REJECTED}.new"
                shutil.copyfile(self._directory / _REJECTED, copy)
                copy.replace(rejected)
            else:
                rejected.unlink(missing_ok=True)  # from an earlier output, which is now replaced too
            complete.replace(self._output)
        return rejected if self.state.rejected_bytes else None


@contextlib.contextmanager
def opened(output: Path, job: Mapping[str, object], total: int, header: bytes, restart: bool) -> Iterator[Partial]:
    """Resume an unfinished output, or start a new one; at the end, remove its directory unless progress remains.

    Args:
        output: Path of the output.
        job: Identity of the run, in words that a user knows; only progress of an identical run is used.
        total: Number of input rows.
        header: Beginning of the file of rows.
        restart: Whether to start over in any case.

    Raises:
        NewsbertError: If another process is writing this output, or it cannot be written.
    """
    directory = _directory(output)
    with contextlib.ExitStack() as stack:
        with _translate_errors(output):
            if output.is_dir():
                raise IsADirectoryError(0, "it is a directory")
            _acquire_lock(output, directory, stack)
            note = None
            saved = _read_note(directory)
            if saved is not None and not restart and saved[1].records:
                note = _explain_mismatch(directory, *saved, job)
            if saved is None or restart or note or not saved[1].records:
                _clear(directory)
                _append(directory / _ROWS, header)
                _append(directory / _REJECTED, b"")
                progress = ResumeState(0, total, rows_bytes=len(header))
                _write_note(directory, job, progress)
            else:
                progress = saved[1]
                os.truncate(directory / _ROWS, progress.rows_bytes)
                os.truncate(directory / _REJECTED, progress.rejected_bytes)
                note = f"{progress.records} of {total} rows are done already; --restart does them again"
        partial = Partial(output, directory, job, progress, note)
        finished = False
        try:
            yield partial
            finished = True
        finally:
            if finished or not partial.state.records:
                shutil.rmtree(directory, ignore_errors=True)


def _directory(output: Path) -> Path:
    return output.with_name(f".{output.name}.partial")


def _acquire_lock(output: Path, directory: Path, stack: contextlib.ExitStack) -> None:
    """Create the directory and acquire a lock in it, which ends with this process.

    Raises:
        NewsbertError: If another process holds the lock.
    """
    busy = NewsbertError(f"another newsbert predict is writing {output}", "wait for it, or name another --output")
    while True:
        private_files.make_directory(directory)
        try:
            stream = private_files.open_lock(directory / _LOCK)
        except FileNotFoundError:  # another process removed it at this moment
            continue
        stack.enter_context(stream)
        try:
            locks.lock(stream, busy)
        except OSError:  # a file system without locks
            return
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), (directory / _LOCK).stat()):
                return


def _explain_mismatch(
    directory: Path, saved_job: Mapping[str, object], state: ResumeState, job: Mapping[str, object]
) -> str | None:
    """Return the reason why saved progress cannot be used, or `None` if it can."""
    differences = [name for name in job if saved_job.get(name) != job[name]]
    if differences:
        return f"starting again: the {state.records} saved rows are of another {', another '.join(differences)}"
    for name, length in ((_ROWS, state.rows_bytes), (_REJECTED, state.rejected_bytes)):
        file = directory / name
        if not file.is_file() or file.stat().st_size < length:
            return f"starting again: what was saved of {state.records} rows is incomplete"
    return None


def _read_note(directory: Path) -> tuple[Mapping[str, object], ResumeState] | None:
    try:
        note = json.loads((directory / _NOTE).read_text(encoding="utf-8"))
        return dict(note["job"]), ResumeState(**note["state"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_note(directory: Path, job: Mapping[str, object], state: ResumeState) -> None:
    note = json.dumps({"job": job, "state": dataclasses.asdict(state)}, indent=1)
    files.write_atomically(directory / _NOTE, note, durable=True)


def _append(file: Path, content: bytes) -> None:
    """Append to a file and sync it to the disk."""
    with file.open("ab", buffering=0) as stream:
        rest = memoryview(content)
        while rest:
            rest = rest[stream.write(rest) :]
        os.fsync(stream)


def _clear(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.name != _LOCK:
            entry.unlink()


@contextlib.contextmanager
def _translate_errors(output: Path) -> Iterator[None]:
    """Turn write errors into an error for the user.

    Raises:
        NewsbertError: If writing fails.
    """
    try:
        yield
    except OSError as error:
        raise NewsbertError(
            f"{output} cannot be written: {error.strerror or error}", "check the disk: df -h ."
        ) from error
