"""Files in object stores, `s3://…` and `gs://…`: fetched before they are read, and put there when they are whole.

Credentials and endpoint are those of the environment, which pyarrow reads by itself (`AWS_ENDPOINT_URL` for one), and
this process alone needs them.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from newsbert.core import environment, object_stores, temporary
from newsbert.errors import DataError, NewsbertError, UsageError
from newsbert.inference.batch.parquet import pyarrow
from newsbert.inference.batch.resume import rejected_file

SCHEMES = ("s3", "gs")
_CHUNK_BYTES = 8 << 20
_RETRY_S = 30
_HINT = "check the credentials in the environment, and AWS_ENDPOINT_URL where the store is not Amazon's"


@contextlib.contextmanager
def staged(
    file: str, output: str, check: Callable[[Path, Path], None], on_phase: Callable[[str], None]
) -> Iterator[tuple[Path, Path]]:
    """Give paths on this machine for input and output; what was written goes where it belongs at the end.

    A remote input is fetched into a temporary directory (`TMPDIR`). A remote output is written in a directory of the
    cache that has its name from the address, so that the same command goes on where another was ended.

    Args:
        file: Path or address of the input.
        output: Path or address of the output.
        check: Called with the paths before anything is fetched.
        on_phase: Called with what is done.

    Raises:
        UsageError: If an address is none that can be used, or there is nothing at it.
        NewsbertError: If it cannot be read or written.
    """
    with contextlib.ExitStack() as stack:
        here, there = Path(file), Path(output)
        if is_remote(file):
            here = stack.enter_context(temporary.directory()) / _name(file)
        work = environment.cache_dir() / "predict" / hashlib.sha256(output.encode()).hexdigest()[:16]
        if is_remote(output):
            there = work / _name(output)
            stack.enter_context(_storing(output))
            work.mkdir(parents=True, exist_ok=True)
            store, path = _store(output)
            if not store.get_file_info(path.partition("/")[0]).type:
                raise UsageError(f"no such bucket: {path.partition('/')[0]!r} of {output!r}", _HINT)
        stack.enter_context(_as_called({str(here): file, str(there): output}))
        check(here, there)
        if is_remote(file):
            on_phase(f"fetching {file}")
            _fetch(file, here)
        yield here, there
        if is_remote(output):
            on_phase(f"storing {output}")
            _put(there, output)
            shutil.rmtree(work, ignore_errors=True)


def is_remote(address: str) -> bool:
    """Whether it is no path."""
    return "://" in address


def _name(address: str) -> str:
    return address.rsplit("/", 1)[-1] or "nameless"


def _store(address: str) -> tuple[Any, str]:
    """The file system of an address, and the bucket with the key in it.

    Raises:
        UsageError: If it is none that can be used.
    """
    pyarrow()
    from pyarrow.fs import FileSystem

    scheme, _, path = address.partition("://")
    if scheme not in SCHEMES or not path.strip("/").partition("/")[2]:
        raise UsageError(f"{address!r} cannot be used", "give a path, or s3://BUCKET/KEY or gs://BUCKET/KEY")
    # The key by itself: in an address, Arrow takes some of its characters for something else.
    patience = f"?retry_limit_seconds={_RETRY_S}" if scheme == "gs" else ""  # Arrow's own is a quarter of an hour
    return FileSystem.from_uri(f"{scheme}://{path.partition('/')[0]}{patience}")[0], path


def _fetch(address: str, target: Path) -> None:
    from pyarrow.fs import FileType

    try:
        store, path = _store(address)
        before = store.get_file_info(path)
        if before.type != FileType.File:
            raise UsageError(f"no such file: {address!r}", "check the address; of many files, give one at a time")
        with store.open_input_stream(path) as stream, target.open("wb") as copy:
            shutil.copyfileobj(stream, copy, _CHUNK_BYTES)
        after = store.get_file_info(path)
    except (OSError, pyarrow().ArrowException) as error:
        found = _explained(error, f"{address} cannot be fetched", address)
        raise DataError(found.message, found.hint) from error
    if (after.size, after.mtime_ns) != (before.size, before.mtime_ns):
        raise DataError(f"{address} was changed while it was fetched", "run the same command again")


def _put(output: Path, address: str) -> None:
    """Store the output and its rejected rows; what is stored appears whole or not at all."""
    from pyarrow.fs import LocalFileSystem, copy_files

    with _storing(address):
        store, path = _store(address)
        side, side_path = rejected_file(output), f"{path}.rejected.jsonl"
        if side.exists():
            copy_files(str(side), side_path, LocalFileSystem(), store, chunk_size=_CHUNK_BYTES)
        elif store.get_file_info(side_path).is_file:  # that of an earlier output
            store.delete_file(side_path)
        # In one call: a stream that Python closes on an error would be stored as far as it came.
        copy_files(str(output), path, LocalFileSystem(), store, chunk_size=_CHUNK_BYTES)


@contextlib.contextmanager
def _storing(address: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pyarrow().ArrowException) as error:
        found = _explained(error, f"{address} cannot be written", address)
        raise NewsbertError(found.message, found.hint) from error


@contextlib.contextmanager
def _as_called(names: dict[str, str]) -> Iterator[None]:
    """Have errors say what the user has called a file."""
    try:
        yield
    except NewsbertError as error:
        for path, name in names.items():
            error.message = error.message.replace(path, name)
        raise


def _explained(error: BaseException, what: str, address: str) -> NewsbertError:
    return object_stores.store_error([OSError(_words(error))], what, address)


def _words(error: BaseException) -> str:
    """What the store said, without which key of which bucket it was about."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text.partition("AWS Error ")[2] or text
