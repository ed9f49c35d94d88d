"""Check of the paths of an input file and of its output, before any work is done."""

import shlex
from pathlib import Path

from newsbert.data import readers as row_files
from newsbert.errors import UsageError
from newsbert.inference.batch.resume import rejected_file


def check(file: Path, output: Path) -> None:
    """Refuse an output that cannot be written, before any work is done.

    Raises:
        UsageError: If a file name has no known format, or the output cannot be written there.
    """
    row_files.format_of(file)
    if row_files.format_of(output) != output.suffix.lower().lstrip(".").replace("ndjson", "jsonl").replace(
        "pq", "parquet"
    ):
        raise UsageError(f"{str(output)!r} cannot be written", "name it .csv, .tsv, .json, .jsonl or .parquet, plain")
    try:
        has_parent, is_directory = output.resolve().parent.is_dir(), output.is_dir()
        reads_rejected = file.resolve() == rejected_file(output).resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{str(output)!r} cannot be written: {reason}", "name another file") from error
    if not has_parent:
        raise UsageError(f"no such directory: {str(output.parent)!r}", f"mkdir -p {shlex.quote(str(output.parent))}")
    if is_directory:
        raise UsageError(f"{str(output)!r} is a directory", "name a file")
    if reads_rejected:
        raise UsageError(f"{str(file)!r} is where the bad rows of {str(output)!r} go", "name another --output")
