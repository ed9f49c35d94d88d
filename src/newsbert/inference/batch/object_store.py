"""Files in object stores, `s3://…` and `gs://…`: downloaded before they are read, and uploaded when they are complete.

Credentials and endpoint come from the environment, which pyarrow reads by itself (`AWS_ENDPOINT_URL` for one). Only
this process needs them.
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
    """Yield local paths of input and output; upload the output at the end.

    A remote input is downloaded to a temporary directory (`TMPDIR`). A remote output is written to a cache directory
    that is named after the address, so that the same command resumes an interrupted run.

    Args:
        file: Path or address of the input.
        output: Path or address of the output.
        check: Called with the paths before the download.
        on_phase: Called with a description of the current phase.

    Raises:
        UsageError: If an address cannot be used, or there is nothing at it.
        NewsbertError: If it cannot be read or written.
    """
    with contextlib.ExitStack() as stack:
        local_file, local_output = Path(file), Path(output)
        if is_remote(file):
            local_file = stack.enter_context(temporary.directory()) / _file_name(file)
        work = environment.cache_dir() / "predict" / hashlib.sha256(output.encode()).hexdigest()[:16]
        if is_remote(output):
            local_output = work / _file_name(output)
            stack.enter_context(_translate_errors(output))
            work.mkdir(parents=True, exist_ok=True)
            store, path = _connect(output)
            if not store.get_file_info(path.partition("/")[0]).type:
                raise UsageError(f"no such bucket: {path.partition('/')[0]!r} of {output!r}", _HINT)
        stack.enter_context(_restore_names({str(local_file): file, str(local_output): output}))
        check(local_file, local_output)
        if is_remote(file):
            on_phase(f"fetching {file}")
            _download(file, local_file)
        yield local_file, local_output
        if is_remote(output):
            on_phase(f"storing {output}")
            _upload(local_output, output)
            shutil.rmtree(work, ignore_errors=True)


def is_remote(address: str) -> bool:
    """Return whether an address is not a path."""
    return "://" in address


def _file_name(address: str) -> str:
    return address.rsplit("/", 1)[-1] or "nameless"


def _connect(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the bucket with the key in it.

    Raises:
        UsageError: If the address cannot be used.
    """
    pyarrow()
    from pyarrow.fs import FileSystem

    scheme, _, path = address.partition("://")
    if scheme not in SCHEMES or not path.strip("/").partition("/")[2]:
        raise UsageError(f"{address!r} cannot be used", "give a path, or s3://BUCKET/KEY or gs://BUCKET/KEY")
    # The key separately: in an address, some of its characters have another meaning for Arrow.
    retry_limit = f"?retry_limit_seconds={_RETRY_S}" if scheme == "gs" else ""  # Arrow's default is 15 minutes
    return FileSystem.from_uri(f"{scheme}://{path.partition('/')[0]}{retry_limit}")[0], path


def _download(address: str, target: Path) -> None:
    from pyarrow.fs import FileType

    try:
        store, path = _connect(address)
        before = store.get_file_info(path)
        if before.type != FileType.File:
            raise UsageError(f"no such file: {address!r}", "check the address; of many files, give one at a time")
        with store.open_input_stream(path) as stream, target.open("wb") as copy:
            shutil.copyfileobj(stream, copy, _CHUNK_BYTES)
        after = store.get_file_info(path)
    except (OSError, pyarrow().ArrowException) as error:
        failure = _explain(error, f"{address} cannot be fetched", address)
        raise DataError(failure.message, failure.hint) from error
    if (after.size, after.mtime_ns) != (before.size, before.mtime_ns):
        raise DataError(f"{address} was changed while it was fetched", "run the same command again")


def _upload(output: Path, address: str) -> None:
    """Upload the output and its rejected rows; both appear whole or not at all."""
    from pyarrow.fs import LocalFileSystem, copy_files

    with _translate_errors(address):
        store, path = _connect(address)
        rejected, rejected_path = rejected_file(output), f"{path}.rejected.jsonl"
        if rejected.exists():
            copy_files(str(rejected), rejected_path, LocalFileSystem(), store, chunk_size=_CHUNK_BYTES)
        elif store.get_file_info(rejected_path).is_file:  # from an earlier output
            store.delete_file(rejected_path)
        # In one call: a stream that Python closes on an error would be stored incomplete.
        copy_files(str(output), path, LocalFileSystem(), store, chunk_size=_CHUNK_BYTES)


@contextlib.contextmanager
def _translate_errors(address: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pyarrow().ArrowException) as error:
        failure = _explain(error, f"{address} cannot be written", address)
        raise NewsbertError(failure.message, failure.hint) from error


@contextlib.contextmanager
def _restore_names(names: dict[str, str]) -> Iterator[None]:
    """Replace paths in error messages by the names that the user typed."""
    try:
        yield
    except NewsbertError as error:
        for path, name in names.items():
            error.message = error.message.replace(path, name)
        raise


def _explain(error: BaseException, what: str, address: str) -> NewsbertError:
    return object_stores.store_error([OSError(_extract_message(error))], what, address)


def _extract_message(error: BaseException) -> str:
    """Return the store's error message without the bucket and the key."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text.partition("AWS Error ")[2] or text
