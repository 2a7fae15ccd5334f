"""Arrays on disk, for what is too much to hold: any row may be needed, but few at once."""

from __future__ import annotations

import math
import mmap
import os
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_ROWS_AT_ONCE = 512
"""Each row that is touched brings some pages of its neighbours along."""


class DiskArray:
    """An array, zero at first, in a file without a name that vanishes with it; no memory stays in use.

    Parameters
    ----------
    shape, dtype
        As NumPy takes them.
    folder
        Where the file is; the system's temporary folder if None.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, folder: Path | None = None) -> None:
        count = math.prod(shape)
        size = max(1, count * np.dtype(dtype).itemsize)
        with TemporaryFile(dir=folder) as file:
            # A disk that is full is an error here, and would be the end of the process later.
            os.posix_fallocate(file.fileno(), 0, size)
            self._map = mmap.mmap(file.fileno(), size)
        self._values = np.frombuffer(self._map, dtype, count).reshape(shape)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """A copy of some rows."""
        found = np.array(self._values[rows])
        self._let_go()
        return found

    def __setitem__(self, rows: Any, values: Any) -> None:
        self._values[rows] = values
        self._let_go()

    def in_order(self, rows: NDArray[np.integer[Any]], folder: Path | None = None) -> DiskArray:
        """Another with these rows."""
        found = DiskArray((len(rows), *self._values.shape[1:]), self._values.dtype, folder)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = slice(start, start + _ROWS_AT_ONCE)
            found[some] = self[rows[some]]
        return found

    def _let_go(self) -> None:
        # What is mapped counts as memory in use, and is in the system's cache of files as well.
        self._map.madvise(mmap.MADV_DONTNEED)
