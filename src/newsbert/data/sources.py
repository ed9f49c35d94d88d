"""Where labelled rows come from: the bundled sample, files, directories by split or by class, or a Hub data set.

A source is opened without reading it: its rows are iterated over when they are wanted.
"""

import bisect
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from newsbert.core.installation import MissingExtraError
from newsbert.data import class_folders, row_columns
from newsbert.data import readers as row_files
from newsbert.data.class_folders import SPLIT_NAMES
from newsbert.data.dialect import CLASS_COLUMN
from newsbert.data.readers import Row, RowFile
from newsbert.errors import DataError, UsageError, first_line

AG_NEWS_LABELS = ("World", "Sports", "Business", "Sci/Tech")
SAMPLE = "sample"
_OF_SPLIT = re.compile(rf"({'|'.join(SPLIT_NAMES)})(?![a-z])")
"""The name of a file in the Hub's layout: `train-00000-of-00002.parquet`."""


@dataclass(frozen=True)
class Split:
    """Rows of a source.

    Attributes:
        rows: What yields them, from the first one on at every call.
        columns: What returns their columns.
        name: What messages call them.
        class_names: By column, names in the order of their ids, where the source knows them.
        place: What messages call a row of some number, if not by the split's name and its number.
    """

    rows: Callable[[], Iterable[Row]]
    columns: Callable[[], list[str]]
    name: str
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    place: Callable[[int], str] | None = None


@dataclass(frozen=True)
class Columns:
    """Where a split has what is trained on.

    Attributes:
        title: Column of the title, if any.
        text: Column of the text.
        label: Column of the label.
    """

    title: str | None
    text: str
    label: str


@dataclass(frozen=True)
class Source:
    """Rows that were found, by split; those of no split are under `""`.

    Attributes:
        splits: The splits.
        identity: What changes when the rows do.
        first_id: The id of the first class.
        files: Those that were read.
        remarks: What is not plain about where the rows were found.
    """

    splits: Mapping[str, Split]
    identity: str
    first_id: int = 0
    files: Sequence[RowFile] = ()
    remarks: Sequence[str] = ()

    def columns(self) -> list[str]:
        """Return the columns of all splits."""
        return list(dict.fromkeys(name for split in self.splits.values() for name in split.columns()))

    def label_column(self, columns: Sequence[str], wanted: str | None, data: str = "") -> str:
        """Return which of the columns is that of the label.

        Args:
            columns: All of them.
            wanted: Its name, if it is not the usual one.
            data: Where they are, for the error.

        Raises:
            DataError: If there is no such column.
        """
        if len(columns) == 1 and wanted is None:
            where = f"{data}: " if data else ""
            raise DataError(
                f"{where}the only column is {columns[0]!r:.60}, and labelled rows have another with the label",
                "add a column `label`",
            )
        return row_columns.find_label(columns, wanted or (CLASS_COLUMN if self.first_id else "label"), data)

    def find_columns(
        self,
        text_column: str | None,
        label_column: str | None,
        likely_texts: Sequence[str | None] = (),
        likely_labels: Sequence[str | None] = (),
    ) -> tuple[dict[str, Columns], list[str]]:
        """Return the columns by split, and a note on each split without labels: it is left out.

        Args:
            text_column: Column of the text, if it is not the usual one.
            label_column: Column of the label, if it is not the usual one.
            likely_texts: Columns that go before the usual one where they are there and none is named.
            likely_labels: The same of labels.

        Raises:
            DataError: If a split that is trained on, or all of them, have no such column.
        """
        columns, notes = {}, []
        labelled = ["train"] if "train" in self.splits else list(self.splits)
        for name, split in self.splits.items():
            there = split.columns()
            try:
                wanted = row_columns.choose(there, label_column, likely_labels)
                label = self.label_column(there, wanted, split.name)
            except DataError:
                if name in labelled:
                    raise
                notes.append(f"{split.name} has no column {label_column or 'label'!r} and is left out")
                continue
            wanted = row_columns.choose(there, text_column, likely_texts)
            columns[name] = Columns(*row_columns.find_texts(there, wanted, split.name), label)
        return columns, notes

    @property
    def has_class_names(self) -> bool:
        """Whether classes have names, as in a data set of the Hub: rows without a label have -1 there."""
        return any(split.class_names for split in self.splits.values())

    def class_names(self, columns: Mapping[str, Columns]) -> tuple[str, ...] | None:
        """Return the classes' names in the order of their ids, where the source knows them."""
        named = (split.class_names.get(columns[name].label) for name, split in self.splits.items() if name in columns)
        return next((names for names in named if names), None)

    def where(self, split: str, number: int) -> str:
        """Return how messages name a row."""
        place = self.splits[split].place if split in self.splits else None
        if place is not None:
            return place(number)
        name = self.splits[split].name if split in self.splits else ""
        return f"{name}, row {number}" if name else f"row {number}"

    def notes(self) -> list[str]:
        """Return what is not plain about the source, once it was read to its end."""
        return [*self.remarks, *(note for file in self.files if (note := file.note()))]


def check_distinct(labels: Sequence[str]) -> None:
    """Refuse names of labels of which two are the same.

    Raises:
        UsageError: If they are.
    """
    if len(set(labels)) < len(labels):
        raise UsageError(f"--labels names a label twice: {', '.join(labels)}", "name every label once")


def open_source(data: str) -> Source:
    """Find what `data` names.

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
            return Source({"": Split(file.rows, file.columns, "", names)}, _identity([path]))
    path = Path(data)
    try:
        with suppress(RuntimeError):  # no such user's home: then there is no such file either
            path = path.expanduser()
        if path.is_file():
            return _from_files({"": path})
        if path.is_dir():
            return _from_directory(path)
    except OSError as error:
        raise UsageError(
            f"{data!r} cannot be read: {error.strerror or error}", "check the path and its rights"
        ) from error
    if path.suffix or data.startswith((".", "/", "~")) or data.count("/") > 1:
        raise UsageError(f"no such file: {data!r}", "check the path; `--data sample` trains on the bundled rows")
    return _from_hub(data)


def _from_directory(path: Path) -> Source:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _from_hub(str(path), saved=True)
    named = _named_splits(path)
    if "train" in named:
        return _from_files(named)
    folders = class_folders.find(_unwrapped(path))
    if folders is not None:
        splits = {
            name: Split(functools.partial(class_folders.rows, part), lambda: ["text", "label"], f"{path}/{name}")
            for name, part in folders.splits.items()
        }
        return Source(splits, _identity(folders.files()), remarks=folders.notes())
    files = [file for file in sorted(path.iterdir()) if file.is_file() and _has_rows(file)]
    if files and not any(_OF_SPLIT.match(file.name.lower()) for file in files):
        return _from_files({"": files[0]}) if len(files) == 1 else _from_parts(path, files)
    return _from_hub(str(path))


def _unwrapped(directory: Path) -> Path:
    """Return the folder in a directory that has nothing else, as an archive may be unpacked to."""
    inner = class_folders.subfolders(directory)
    has_files = any(path.is_file() and not path.name.startswith(".") for path in directory.iterdir())
    return directory if has_files or len(inner) != 1 else _unwrapped(inner[0])


def _named_splits(directory: Path) -> dict[str, Path]:
    """Return the files of a directory that are named after splits.

    Raises:
        UsageError: If two files are of the same split.
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
    """Return whether a file's name is that of rows: `train.csv`, `dev.jsonl.gz`."""
    suffix = file.name.lower().removesuffix(".gz").removesuffix(".zip").rpartition(".")[2]
    return suffix in row_files.FORMATS and not file.name.startswith(".")


def _from_files(paths: dict[str, Path]) -> Source:
    files = {split: RowFile(path) for split, path in paths.items()}
    first = next(iter(files.values()))
    next(iter(first.rows()))  # an empty file is refused before anything is made of it
    splits = {
        split: Split(file.rows, file.columns, str(file.path), file.class_names()) for split, file in files.items()
    }
    return Source(
        splits,
        _identity(list(paths.values())),
        first_id=_first_id(first),
        files=list(files.values()),
    )


def _from_parts(directory: Path, paths: Sequence[Path]) -> Source:
    """Return the rows of several files, such as Spark writes, as those of one."""
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
    return Source({"": split}, _identity(paths), _first_id(files[0]), files, notes)


def _first_id(file: RowFile) -> int:
    return 1 if file.form.dialect is not None and file.form.dialect.counts_classes else 0


def _identity(paths: Sequence[Path]) -> str:
    """Return the files' paths, sizes and times: to read them would take as long as to prepare them anew."""
    found = []
    for path in paths:
        stat = path.stat()
        found.append((str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))
    return repr(found)


def _from_hub(name: str, *, saved: bool = False) -> Source:
    """Load a data set through `datasets`.

    Args:
        name: Its Hub name, or a local directory.
        saved: Whether it is a directory that `save_to_disk` has made; else it has the Hub's layout.
    """
    try:
        import datasets
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the HTTP library it uses
    except ImportError as error:
        raise MissingExtraError("datasets", "train") from error
    try:
        loaded: Any = datasets.load_from_disk(name) if saved else datasets.load_dataset(name)
    except (OSError, ValueError, HTTPError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"no data set {name!r} could be loaded: {first_line(error)}",
            "check the name and the network, or give a file: newsbert train --data rows.csv",
        ) from error
    if isinstance(loaded, datasets.Dataset):
        loaded = {"all": loaded}
    if not any(len(rows) for rows in loaded.values()):
        raise DataError(f"the data set {name!r} has no rows", "give a few labelled rows for every class")
    parts: dict[str, list[datasets.Dataset]] = {}
    for split, rows in loaded.items():
        if len(rows):
            parts.setdefault(SPLIT_NAMES.get(str(split), str(split)), []).append(rows)
    usable: dict[str, list[datasets.Dataset]] = {
        split: parts[split] for split in ("train", "validation", "test") if split in parts
    }
    if "train" not in usable:
        usable = {"": [rows for part in parts.values() for rows in part]}
    identity = repr([(split, [rows._fingerprint for rows in part]) for split, part in usable.items()])
    splits = {split: _of_hub(f"split {split}" if split else name, part) for split, part in usable.items()}
    return Source(splits, identity)


def _of_hub(name: str, part: Sequence[Any]) -> Split:
    """Return a split of one or several `datasets.Dataset`."""
    features = {column: feature for rows in part for column, feature in rows.features.items()}
    names = {column: tuple(feature.names) for column, feature in features.items() if hasattr(feature, "names")}
    return Split(functools.partial(itertools.chain.from_iterable, part), lambda: list(features), name, names)
