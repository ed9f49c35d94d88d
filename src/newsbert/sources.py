"""Where labelled rows come from: the bundled sample, files by split, or a data set in the layout of the Hub.

A source is opened without reading it: its rows are iterated over when they are wanted.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from newsbert import rows as row_files
from newsbert.errors import DataError, MissingExtraError, UsageError, first_line
from newsbert.rows import AG_NEWS_COLUMNS, Row

AG_NEWS_LABELS = ("World", "Sports", "Business", "Sci/Tech")
SAMPLE = "sample"
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_PEEKED = 1000
"""Rows whose columns are taken for those of all."""


Splits = Mapping[str, Callable[[], Iterable[Row]]]


@dataclass(frozen=True)
class Source:
    """Rows that were found, by split; those of no split are under `""`.

    Attributes:
        splits: What yields a split's rows, from the first one on at every call.
        identity: What changes when the rows do.
        label_names: Names in the order of their ids, where the source knows them.
        first_id: The id of the first of them.
    """

    splits: Splits
    identity: str
    label_names: tuple[str, ...] | None = None
    first_id: int = 0

    def columns(self, split: str | None = None) -> list[str]:
        """The columns of a split, or of all."""
        wanted = self.splits if split is None else {split: self.splits[split]}
        return row_files.columns(row for rows in wanted.values() for row in itertools.islice(rows(), _PEEKED))


def check_distinct(labels: Sequence[str]) -> None:
    """Refuse names of labels of which two are the same.

    Raises:
        UsageError: If they are.
    """
    if len(set(labels)) < len(labels):
        raise UsageError(f"--labels names a label twice: {', '.join(labels)}", "name every label once")


def open_source(data: str, label_column: str | None = None) -> Source:
    """Find what `data` names.

    Args:
        data: `sample`, a path, or the name of a Hub data set.
        label_column: Column of the label, if it is not `label`.

    Raises:
        UsageError: If there is no such file.
        DataError: If there is no such data set, or a file has no rows.
    """
    if data == SAMPLE:
        with resources.as_file(resources.files("newsbert") / "sample.csv") as path:
            return Source({"": lambda: row_files.iterate(path)}, _identity({"": path}), AG_NEWS_LABELS)
    path = Path(data)
    try:
        with suppress(RuntimeError):  # no such user's home: then there is no such file either
            path = path.expanduser()
        if path.is_file():
            return _from_files({"": path})
        if path.is_dir():
            named = _named_splits(path)
            return _from_files(named) if "train" in named else _from_hub(str(path), label_column)
    except OSError as error:
        raise UsageError(
            f"{data!r} cannot be read: {error.strerror or error}", "check the path and its rights"
        ) from error
    if path.suffix or data.startswith((".", "/", "~")) or data.count("/") > 1:
        raise UsageError(f"no such file: {data!r}", "check the path; `--data sample` trains on the bundled rows")
    return _from_hub(data, label_column)


def _named_splits(directory: Path) -> dict[str, Path]:
    """The files of a directory that are named after splits.

    Raises:
        UsageError: If two files are of the same split.
    """
    named: dict[str, Path] = {}
    for file in sorted(directory.iterdir()):
        split = _split_of(file) if file.is_file() else ""
        if split in named:
            raise UsageError(f"two files hold {split} rows: {named[split]} and {file}", "keep one, or join them")
        if split:
            named[split] = file
    return named


def _split_of(file: Path) -> str:
    """The split that a file's name tells (`train.csv`, `dev.jsonl.gz`), or nothing."""
    stem, _, suffix = file.name.lower().partition(".")
    return SPLIT_NAMES.get(stem, "") if suffix.removesuffix(".gz") in row_files.FORMATS else ""


def _from_files(files: dict[str, Path]) -> Source:
    splits = {name: _rows_of(path) for name, path in files.items()}
    first = next(iter(next(iter(splits.values()))()))
    identity = _identity(files)
    if tuple(first) == AG_NEWS_COLUMNS:
        return Source(splits, identity, AG_NEWS_LABELS, first_id=1)
    return Source(splits, identity)


def _rows_of(path: Path) -> Callable[[], Iterator[Row]]:
    return lambda: row_files.iterate(path)


def _identity(files: dict[str, Path]) -> str:
    """The files' paths, sizes and times: to read them would take as long as to prepare them anew."""
    found = []
    for split, path in files.items():
        stat = path.stat()
        found.append((split, str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))
    return repr(found)


def _from_hub(name: str, label_column: str | None) -> Source:
    """Load a data set through `datasets`: a Hub name, or a local directory in the Hub's layout."""
    try:
        import datasets
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the HTTP library it uses
    except ImportError as error:
        raise MissingExtraError("datasets", "train") from error
    try:
        loaded = datasets.load_dataset(name)
    except (OSError, ValueError, HTTPError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"no data set {name!r} could be loaded: {first_line(error)}",
            "check the name and the network, or give a file: newsbert train --data rows.csv",
        ) from error
    if not any(len(rows) for rows in loaded.values()):
        raise DataError(f"the data set {name!r} has no rows", "give a few labelled rows for every class")
    parts: dict[str, list[datasets.Dataset]] = {}
    for split, rows in loaded.items():
        if len(rows):
            parts.setdefault(SPLIT_NAMES.get(str(split), str(split)), []).append(rows)
    feature = next(iter(loaded.values())).features.get(label_column or "label")
    names = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None
    kept: dict[str, list[datasets.Dataset]] = {
        split: parts[split] for split in ("train", "validation", "test") if split in parts
    }
    if "train" not in kept:
        kept = {"": [rows for part in parts.values() for rows in part]}
    identity = repr([(split, [rows._fingerprint for rows in part]) for split, part in kept.items()])
    return Source(
        {split: functools.partial(itertools.chain.from_iterable, part) for split, part in kept.items()}, identity, names
    )
