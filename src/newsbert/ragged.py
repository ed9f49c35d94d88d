"""Rows of different lengths in two memory-mapped files: as many as fit on the disk, in memory that does not grow."""

import mmap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from newsbert.evaluation import IntArray

_VALUES, _ENDS = "values.bin", "ends.bin"
_HELD_ROWS = 1024
"""So many rows are read before their memory is given back: the system maps up to 64 KB around each that is read."""

Value = TypeVar("Value", bound=np.generic)


class Ragged(Generic[Value]):
    """Rows that `RaggedWriter` wrote.

    Args:
        directory: Theirs.
        dtype: Of their values.
    """

    def __init__(self, directory: Path, dtype: type[Value]) -> None:
        self._values: NDArray[Value] = mapped(directory / _VALUES, dtype)
        self._ends: IntArray = mapped(directory / _ENDS, np.int64)
        self._read = 0

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> NDArray[Value]:
        self._read += 1
        if self._read % _HELD_ROWS == 0:
            _give_back(self._values)
            _give_back(self._ends)
        start = self._ends[row - 1] if row else 0
        return self._values[start : self._ends[row]]

    @property
    def lengths(self) -> NDArray[np.int32]:
        """How many values each row has."""
        return np.diff(self._ends, prepend=0).astype(np.int32)


class RaggedWriter:
    """Writes rows one after the other, in a block that ends with their files whole.

    Args:
        directory: Made for them.
        dtype: Of their values.
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

    def extend(self, rows: Iterable[bytes | Sequence[int]]) -> None:
        """Write some rows: values, or the bytes of them."""
        parts = [row if isinstance(row, bytes) else np.asarray(row, self._dtype).tobytes() for row in rows]
        size = np.dtype(self._dtype).itemsize
        ends = self._end + np.cumsum([len(part) // size for part in parts], dtype=np.int64)
        self._values.write(b"".join(parts))
        self._ends.write(ends.tobytes())
        self._end = int(ends[-1]) if len(ends) else self._end


class Texts(Sequence[str]):
    """Some of the texts in `stored`, in an order of their own.

    Args:
        stored: UTF-8.
        rows: Which.
    """

    def __init__(self, stored: Ragged[np.uint8], rows: IntArray) -> None:
        self._stored, self._rows = stored, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> "Texts": ...
    def __getitem__(self, place: int | slice) -> "str | Texts":
        if isinstance(place, slice):
            return Texts(self._stored, self._rows[place])
        return self._stored[int(self._rows[place])].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))


def _give_back(values: Any) -> None:
    """Free the memory of what was read of mapped values; it is read again when it is used."""
    values._mmap.madvise(mmap.MADV_DONTNEED)


def mapped(file: Path, dtype: Any) -> NDArray[Any]:
    """The values in a file, read when they are used; of an empty file none."""
    return np.memmap(file, dtype, "r") if file.stat().st_size else np.empty(0, dtype)
