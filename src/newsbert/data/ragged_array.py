"""Rows of different lengths in two files: as many as fit on the disk, read on access.

Values are read and not mapped into memory. On access to a mapped page, the system maps up to 2 MB around it. With rows
at random positions, this soon maps the whole file.
"""

import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from newsbert.core.types import IntArray
from newsbert.errors import NewsbertError

_VALUES, _ENDS = "values.bin", "ends.bin"
Value = TypeVar("Value", bound=np.generic)


class RaggedArray(Generic[Value]):
    """Rows that `RaggedWriter` wrote.

    Args:
        directory: Directory of the files.
        dtype: Type of the values.

    Raises:
        NewsbertError: On access to a row that is incomplete.
    """

    def __init__(self, directory: Path, dtype: type[Value]) -> None:
        self._directory, self._dtype = directory, np.dtype(dtype)
        self._values = os.open(directory / _VALUES, os.O_RDONLY)
        weakref.finalize(self, os.close, self._values)
        self._ends: IntArray = mapped(directory / _ENDS, np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> NDArray[Value]:
        return self._read(int(self._ends[row - 1]) if row else 0, int(self._ends[row]))

    def read(self, start: int, stop: int) -> list[NDArray[Value]]:
        """Return adjacent rows, which are read at once."""
        ends = self._ends[start:stop].tolist()
        first = int(self._ends[start - 1]) if start else 0
        values = self._read(first, ends[-1] if ends else first)
        return np.split(values, [end - first for end in ends[:-1]]) if ends else []

    def _read(self, start: int, end: int) -> NDArray[Value]:
        size = self._dtype.itemsize
        values = np.frombuffer(os.pread(self._values, (end - start) * size, start * size), self._dtype)
        if len(values) != end - start:
            raise NewsbertError(f"{self._directory} is not whole", "remove that directory: it is made anew")
        return values

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Number of values of every row."""
        return np.diff(self._ends, prepend=0).astype(np.int32)


class RaggedWriter:
    """Context manager that writes rows in order; its files are complete after the block.

    Args:
        directory: Directory that is created for the files.
        dtype: Type of the values.
    """

    def __init__(self, directory: Path, dtype: type[np.generic]) -> None:
        directory.mkdir()
        self._dtype = dtype
        self._values = (directory / _VALUES).open("wb")
        self._ends = (directory / _ENDS).open("wb")
        self._end = 0

    def __enter__(self) -> "RaggedWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._values.close()
        self._ends.close()

    def extend(self, rows: Iterable[bytes | Sequence[int] | IntArray]) -> None:
        """Write some rows, as values or as their bytes."""
        parts = [row if isinstance(row, bytes) else np.asarray(row, self._dtype).tobytes() for row in rows]
        size = np.dtype(self._dtype).itemsize
        ends = self._end + np.cumsum([len(part) // size for part in parts], dtype=np.int64)
        self._values.write(b"".join(parts))
        self._ends.write(ends.tobytes())
        self._end = int(ends[-1]) if len(ends) else self._end


class TextColumn(Sequence[str]):
    """A selection of the texts in `stored`, in its own order.

    Args:
        stored: All texts in UTF-8.
        rows: Indices of the selected texts.
    """

    def __init__(self, stored: RaggedArray[np.uint8], rows: IntArray) -> None:
        self._stored, self._rows = stored, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> "TextColumn": ...
    def __getitem__(self, place: int | slice) -> "str | TextColumn":
        if isinstance(place, slice):
            return TextColumn(self._stored, self._rows[place])
        return self._stored[int(self._rows[place])].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))


def mapped(file: Path, dtype: Any) -> NDArray[Any]:
    """Return the values in a file, memory-mapped; an empty array for an empty file."""
    return np.memmap(file, dtype, "r") if file.stat().st_size else np.empty(0, dtype)
