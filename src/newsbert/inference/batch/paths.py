"""Check of the paths of an input file and of its output, before any work is done."""

import shlex
from pathlib import Path

from newsbert.data import readers as row_files
from newsbert.errors import UsageError
from newsbert.inference.batch.resume import rejected_file

_OUTPUT_FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


def check(file: Path, output: Path) -> None:
    """Refuse an output that cannot be written, before any work is done.

    Raises:
        UsageError: If a file name has no known format, or the output cannot be written there.
    """
    row_files.format_of(file)
    output_format(output)
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


def output_format(output: Path) -> str:
    """Return the format of an output: `csv`, `tsv`, `jsonl` or `parquet`.

    Raises:
        UsageError: If the file name has no format that is written.
    """
    kind = _OUTPUT_FORMATS.get(output.suffix.lower())
    if kind is not None:
        return kind
    if output.suffix.lower() == ".json":
        raise UsageError(f"{str(output)!r} cannot be written: newsbert writes no JSON arrays", "name it .jsonl")
    raise UsageError(f"{str(output)!r} cannot be written", "name it .csv, .tsv, .jsonl or .parquet")
