"""Which rows there are already: 16 bytes for each, so that a million of them cost 16 megabytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Key = tuple[str, str | None]
"""What makes two sightings of an image the same: the path, and the content's image_id."""

Digests = NDArray[np.bytes_]
"""Digests of keys, 16 bytes each: among 10⁹ of them two are equal with a probability of 10⁻²¹."""

_WIDTH = 16


class Known:
    """The keys of a table's rows."""

    def __init__(self, digests: Digests) -> None:
        self._digests = np.sort(digests)

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
    found = b"".join(
        hashlib.blake2b(f"{path}\0{image_id or ''}".encode(), digest_size=_WIDTH).digest() for path, image_id in keys
    )
    return np.frombuffer(found, dtype=f"S{_WIDTH}")


def digests_in(batches: Iterable[pa.RecordBatch]) -> Digests:
    """Digest the keys of rows, batch by batch."""
    parts = [
        digests_of(zip(batch["path"].to_pylist(), batch["image_id"].to_pylist(), strict=True)) for batch in batches
    ]
    return np.concatenate(parts) if parts else np.empty(0, dtype=f"S{_WIDTH}")
