"""A source of labelled rows: its splits, columns and classes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from newsbert.data import row_columns
from newsbert.data.dialect import CLASS_COLUMN
from newsbert.data.lines import Row
from newsbert.data.readers import RowFile
from newsbert.errors import DataError


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
