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
    """A split of a source.

    Attributes:
        rows: Function that yields the rows, from the first one at every call.
        columns: Function that returns the columns.
        name: Name in messages.
        class_names: Class names in id order, by column, if the source knows them.
        place: Function from the number of a row to its name in messages; by default the split's name and the number.
    """

    rows: Callable[[], Iterable[Row]]
    columns: Callable[[], list[str]]
    name: str
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    place: Callable[[int], str] | None = None


@dataclass(frozen=True)
class Columns:
    """The columns of a split that are used in training.

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
    """Labelled rows by split; the split is `""` if there are no splits.

    Attributes:
        splits: The splits.
        identity: Key that changes when the rows change.
        first_id: Id of the first class.
        files: Files of the rows.
        remarks: Notes on an unusual location of the rows.
    """

    splits: Mapping[str, Split]
    identity: str
    first_id: int = 0
    files: Sequence[RowFile] = ()
    remarks: Sequence[str] = ()

    def columns(self) -> list[str]:
        """Return the columns of all splits."""
        return list(dict.fromkeys(name for split in self.splits.values() for name in split.columns()))

    def label_column(self, columns: Sequence[str], requested: str | None, data: str = "") -> str:
        """Return the column of the label.

        Args:
            columns: All columns.
            requested: Name of the column, if it is not the usual one.
            data: Name of the data, for the error.

        Raises:
            DataError: If there is no such column.
        """
        if len(columns) == 1 and requested is None:
            where = f"{data}: " if data else ""
            raise DataError(
                f"{where}the only column is {columns[0]!r:.60}, and labelled rows have another with the label",
                "add a column `label`",
            )
        return row_columns.find_label(columns, requested or (CLASS_COLUMN if self.first_id else "label"), data)

    def find_columns(
        self,
        text_column: str | None,
        label_column: str | None,
        likely_texts: Sequence[str | None] = (),
        likely_labels: Sequence[str | None] = (),
    ) -> tuple[dict[str, Columns], list[str]]:
        """Return the columns by split, and notes on splits without labels, which are left out.

        Args:
            text_column: Column of the text, if it is not the usual one.
            label_column: Column of the label, if it is not the usual one.
            likely_texts: Text columns that take precedence over the usual one if they exist and none is named.
            likely_labels: Label columns that do the same.

        Raises:
            DataError: If a split lacks its text column, or the training split its label column. Without a training
                split, every split needs a label column.
        """
        columns, notes = {}, []
        labelled = ["train"] if "train" in self.splits else list(self.splits)
        for name, split in self.splits.items():
            available = split.columns()
            try:
                column = row_columns.choose(available, label_column, likely_labels)
                label = self.label_column(available, column, split.name)
            except DataError:
                if name in labelled:
                    raise
                notes.append(f"{split.name} has no column {label_column or 'label'!r} and is left out")
                continue
            column = row_columns.choose(available, text_column, likely_texts)
            columns[name] = Columns(*row_columns.find_texts(available, column, split.name), label)
        return columns, notes

    @property
    def has_class_names(self) -> bool:
        """True if classes have names, as in a data set of the Hub, where -1 stands for no label."""
        return any(split.class_names for split in self.splits.values())

    def class_names(self, columns: Mapping[str, Columns]) -> tuple[str, ...] | None:
        """Return the class names in id order, if the source knows them."""
        named = (split.class_names.get(columns[name].label) for name, split in self.splits.items() if name in columns)
        return next((names for names in named if names), None)

    def where(self, split: str, number: int) -> str:
        """Return the name of a row in messages."""
        place = self.splits[split].place if split in self.splits else None
        if place is not None:
            return place(number)
        name = self.splits[split].name if split in self.splits else ""
        return f"{name}, row {number}" if name else f"row {number}"

    def notes(self) -> list[str]:
        """Return notes on unusual properties of the source; complete after all rows were read."""
        return [*self.remarks, *(note for file in self.files if (note := file.note()))]
