"""Which rows there are already: 16 bytes for each, so that a million of them cost 16 megabytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Key = tuple[object, ...]
"""What makes two rows the same: the values of some columns, moments as microseconds since 1970."""

Digests = NDArray[np.bytes_]
"""Digests of keys, 16 bytes each: among 10⁹ of them two are equal with a probability of 10⁻²¹."""

_WIDTH = 16


class Known:
    """The keys of a table's rows; the digests given are sorted in their place, for want of room for two."""

    def __init__(self, digests: Digests) -> None:
        digests.sort()
        self._digests = digests

    def __len__(self) -> int:
        return len(self._digests)

    def __contains__(self, key: object) -> bool:
        return bool(len(self)) and bool(self.holds(digests_of([key]))[0])  # type: ignore[list-item]

    def holds(self, digests: Digests) -> NDArray[np.bool_]:
        """Which of the keys there are, shape (N,)."""
        if not len(self):
            return np.zeros(len(digests), dtype=np.bool_)
        places = np.searchsorted(self._digests, digests)
        found: NDArray[np.bool_] = self._digests[np.minimum(places, len(self) - 1)] == digests
        return found


NONE = Known(np.empty(0, dtype=f"S{_WIDTH}"))


def digests_of(keys: Iterable[Key]) -> Digests:
    """Digest keys, in their order."""
    found = bytearray()
    for key in keys:
        text = "\0".join("" if part is None else str(part) for part in key)
        found += hashlib.blake2b(text.encode(), digest_size=_WIDTH).digest()
    return np.frombuffer(found, dtype=f"S{_WIDTH}")


def digests_in(batches: Iterable[pa.RecordBatch], columns: Sequence[str]) -> Digests:
    """Digest some columns of rows, batch by batch."""
    return digests_of(key for batch in batches for key in zip(*(_plain(batch[name]) for name in columns), strict=True))


def first_of_each(digests: Digests) -> NDArray[np.bool_]:
    """Which keys stand there for the first time, shape (N,)."""
    is_first = np.zeros(len(digests), dtype=np.bool_)
    is_first[np.unique(digests, return_index=True)[1]] = True
    return is_first


def _plain(column: pa.Array) -> list[object]:
    values: list[object] = (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
    return values
