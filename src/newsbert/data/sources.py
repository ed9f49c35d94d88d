"""Sources of labelled rows: the bundled sample, files, directories by split or by class, or a Hub data set.

A source is opened without reading all of it. Its rows are read on iteration.
"""

import bisect
import functools
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path

from newsbert.data import class_folders, row_columns
from newsbert.data import readers as row_files
from newsbert.data.class_folders import SPLIT_NAMES
from newsbert.data.hub import open_hub
from newsbert.data.lines import Row
from newsbert.data.readers import RowFile
from newsbert.data.source import Source, Split
from newsbert.errors import UsageError

AG_NEWS_LABELS = ("World", "Sports", "Business", "Sci/Tech")
SAMPLE = "sample"
_SPLIT_FILE_NAME = re.compile(rf"({'|'.join(SPLIT_NAMES)})(?![a-z])")
"""Pattern of a file name in the layout of the Hub: `train-00000-of-00002.parquet`."""


def check_distinct(labels: Sequence[str]) -> None:
    """Check that label names are distinct.

    Raises:
        UsageError: If two are the same.
    """
    if len(set(labels)) < len(labels):
        raise UsageError(f"--labels names a label twice: {', '.join(labels)}", "name every label once")


def open_source(data: str) -> Source:
    """Open the source that `data` names.

    Args:
        data: `sample`, a path, or the name of a Hub data set.

    Raises:
        UsageError: If there is no such file.
        DataError: If there is no such data set, or a file has no rows.
    """
    if data == SAMPLE:
        with resources.as_file(resources.files("newsbert") / "data/sample.csv") as path:
            file = RowFile(path)
            names = {"label": AG_NEWS_LABELS}
            return Source({"": Split(file.rows, file.columns, "", names)}, _build_identity([path]))
    path = Path(data)
    try:
        with suppress(RuntimeError):  # an unknown user: the file does not exist either
            path = path.expanduser()
        if path.is_file():
            return _open_files({"": path})
        if path.is_dir():
            return _open_directory(path)
    except OSError as error:
        raise UsageError(
            f"{data!r} cannot be read: {error.strerror or error}", "check the path and its rights"
        ) from error
    if path.suffix or data.startswith((".", "/", "~")) or data.count("/") > 1:
        raise UsageError(f"no such file: {data!r}", "check the path; `--data sample` trains on the bundled rows")
    return open_hub(data)


def _open_directory(path: Path) -> Source:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return open_hub(str(path), saved=True)
    named = _find_split_files(path)
    if "train" in named:
        return _open_files(named)
    folders = class_folders.find(_unwrap(path))
    if folders is not None:
        splits = {
            name: Split(functools.partial(class_folders.rows, part), lambda: ["text", "label"], f"{path}/{name}")
            for name, part in folders.splits.items()
        }
        return Source(splits, _build_identity(folders.files()), remarks=folders.notes())
    files = [file for file in sorted(path.iterdir()) if file.is_file() and _has_rows(file)]
    if files and not any(_SPLIT_FILE_NAME.match(file.name.lower()) for file in files):
        return _open_files({"": files[0]}) if len(files) == 1 else _open_parts(path, files)
    return open_hub(str(path))


def _unwrap(directory: Path) -> Path:
    """Return the only folder in a directory without files, as left by an unpacked archive, or the directory."""
    inner = class_folders.subfolders(directory)
    has_files = any(path.is_file() and not path.name.startswith(".") for path in directory.iterdir())
    return directory if has_files or len(inner) != 1 else _unwrap(inner[0])


def _find_split_files(directory: Path) -> dict[str, Path]:
    """Return the files of a directory that are named after splits.

    Raises:
        UsageError: If two files belong to the same split.
    """
    named: dict[str, Path] = {}
    for file in sorted(directory.iterdir()):
        split = SPLIT_NAMES.get(file.name.lower().partition(".")[0], "") if file.is_file() and _has_rows(file) else ""
        if split in named:
            raise UsageError(f"two files hold {split} rows: {named[split]} and {file}", "keep one, or join them")
        if split:
            named[split] = file
    return named


def _has_rows(file: Path) -> bool:
    """Return whether a file has the suffix of a file of rows: `train.csv`, `dev.jsonl.gz`."""
    suffix = file.name.lower().removesuffix(".gz").removesuffix(".zip").rpartition(".")[2]
    return suffix in row_files.FORMATS and not file.name.startswith(".")


def _open_files(paths: dict[str, Path]) -> Source:
    files = {split: RowFile(path) for split, path in paths.items()}
    first = next(iter(files.values()))
    next(iter(first.rows()))  # fail early on an empty file
    splits = {
        split: Split(file.rows, file.columns, str(file.path), file.class_names()) for split, file in files.items()
    }
    return Source(
        splits,
        _build_identity(list(paths.values())),
        first_id=_get_first_id(first),
        files=list(files.values()),
    )


def _open_parts(directory: Path, paths: Sequence[Path]) -> Source:
    """Open several files, such as Spark writes, as one split."""
    files = [RowFile(path) for path in paths]
    names = {column: classes for file in files for column, classes in file.class_names().items()}

    starts: list[int] = []

    def rows() -> Iterator[Row]:
        starts.clear()
        count = 0
        for file in files:
            starts.append(count)
            for row in file.rows():
                count += 1
                yield row

    def place(number: int) -> str:
        part = bisect.bisect_left(starts, number) - 1
        return f"{paths[part]}, row {number - starts[part]}"

    def columns() -> list[str]:
        return list(dict.fromkeys(column for file in files for column in file.columns()))

    notes = [f"the rows of {len(files)} files: {row_columns.show_names([path.name for path in paths])}"]
    split = Split(rows, columns, str(directory), names, place)
    return Source({"": split}, _build_identity(paths), _get_first_id(files[0]), files, notes)


def _get_first_id(file: RowFile) -> int:
    return 1 if file.form.dialect is not None and file.form.dialect.counts_classes else 0


def _build_identity(paths: Sequence[Path]) -> str:
    """Return the paths, sizes and times of files as a key.

    A digest of their content would take as long as preparing the rows again.
    """
    entries = []
    for path in paths:
        stat = path.stat()
        entries.append((str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))
    return repr(entries)
