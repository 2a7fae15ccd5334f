"""Find 64-bit hashes that differ in a few bits, through an index: work grows with what is near, not with all pairs.

Cut 64 bits into more pieces than the radius has bits, and some pieces of two near hashes are equal: of eight pieces,
five flipped bits leave three untouched. So two hashes within the radius agree in at least one choice of pieces. For
each choice, sort by the chosen pieces: only hashes with equal ones need a look (multi-index hashing, Norouzi, Punjani
and Fleet 2012).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

CROWD = 1024
"""Stored hashes looked at for one query and one choice; where more agree, those next to the query in the order."""

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]

_PIECES = {4: (11, 11, 11, 11, 10, 10), 5: (8,) * 8}
"""Bits of each piece, by radius; more pieces make longer keys and more choices. Measured on 60,000 and 1,000,000."""

_PAIRS_AT_ONCE = 2**16  # what fits into a core's cache
_QUERIES_AT_ONCE = 64
_FEW = 4096  # pairs of one key below which keys are worked off together


def near(
    blocks: Iterable[tuple[Indices, Hashes]], stored: Hashes, radius: int
) -> Iterator[tuple[Indices, NDArray[np.uint8], Indices]]:
    """Pairs of a query and a stored hash that differ in at most ``radius`` bits, each once.

    All such pairs come, unless more than ``CROWD`` stored hashes agree in a choice of pieces. Time and memory stay
    bounded whatever the hashes are, so long as no stored hash is repeated.

    Parameters
    ----------
    blocks
        Queries, so many at once as memory allows: numbers and their hashes. Gone through once for each choice.
    stored
        Hashes without repetition.
    radius
        4 or 5.

    Yields
    ------
    tuple
        Numbers of queries and, as many, differences in bits and positions in ``stored``.
    """
    sizes = _PIECES[radius]
    for choice in itertools.combinations(range(len(sizes)), len(sizes) - radius):
        key_bits = sum(sizes[piece] for piece in choice)
        earlier = _masks_before(sizes, choice)
        sorted_stored, stored_at = _sorted_by(stored, sizes, choice)
        for numbers, queries in blocks:
            sorted_queries, query_at = _sorted_by(queries, sizes, choice)
            for query, other in _with_equal_keys(sorted_queries, sorted_stored, np.uint64(64 - key_bits)):
                difference = sorted_queries[query] ^ sorted_stored[other]
                bits = np.bitwise_count(difference)
                is_near = bits <= radius
                for mask in earlier:
                    # A pair that agrees in an earlier piece too has come, or comes, with another choice.
                    is_near &= (difference & mask) != 0
                found = np.flatnonzero(is_near)
                if len(found):
                    yield numbers[query_at[query[found]]], bits[found], stored_at[other[found]]


def _sorted_by(hashes: Hashes, sizes: tuple[int, ...], choice: tuple[int, ...]) -> tuple[Hashes, Indices]:
    """Hashes in order, the chosen pieces moved to the front, and where each was."""
    moved = np.zeros_like(hashes)
    for piece, position in _positions(sizes, choice).items():
        part = (hashes >> np.uint64(sum(sizes[:piece]))) & np.uint64(2 ** sizes[piece] - 1)
        moved |= part << np.uint64(position)
    order = np.argsort(moved)
    return moved[order], order


def _positions(sizes: tuple[int, ...], choice: tuple[int, ...]) -> dict[int, int]:
    """Lowest bit of each piece once the chosen ones are in front."""
    order = [*choice, *(piece for piece in range(len(sizes)) if piece not in choice)]
    ends = itertools.accumulate(sizes[piece] for piece in order)
    return {piece: 64 - end for piece, end in zip(order, ends, strict=True)}


def _masks_before(sizes: tuple[int, ...], choice: tuple[int, ...]) -> list[np.uint64]:
    """Masks of the pieces before the last chosen one that are not chosen."""
    positions = _positions(sizes, choice)
    pieces = [piece for piece in range(choice[-1]) if piece not in choice]
    return [np.uint64((2 ** sizes[piece] - 1) << positions[piece]) for piece in pieces]


def _with_equal_keys(queries: Hashes, stored: Hashes, shift: np.uint64) -> Iterator[tuple[Indices, Indices]]:
    """Pairs of positions with equal leading bits, a bounded number at once; both in order."""
    keys = queries >> shift
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.empty(0, np.int64)
    stops = np.append(starts[1:], len(keys))
    stored_keys = stored >> shift
    first = np.searchsorted(stored_keys, keys[starts], "left")
    count = np.searchsorted(stored_keys, keys[starts], "right") - first
    is_met = count > 0
    starts, stops, first, count = starts[is_met], stops[is_met], first[is_met], count[is_met]
    few = (stops - starts) * count <= _FEW
    yield from _expand(starts[few], stops[few], first[few], count[few])
    for start, stop, low, many in zip(starts[~few], stops[~few], first[~few], count[~few], strict=True):
        yield from _tiles(queries, stored, slice(start, stop), slice(low, low + many))


def _expand(starts: Indices, stops: Indices, first: Indices, count: Indices) -> Iterator[tuple[Indices, Indices]]:
    """All pairs of many small groups."""
    rows = stops - starts
    query = np.repeat(starts - np.cumsum(rows) + rows, rows) + np.arange(rows.sum())
    first, count = np.repeat(first, rows), np.repeat(count, rows)
    ends = np.cumsum(count)
    start = 0
    while start < len(query):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _PAIRS_AT_ONCE, "right")))
        counts = count[start:stop]
        offset = first[start:stop] - ends[start:stop] + counts + done
        yield np.repeat(query[start:stop], counts), np.arange(ends[stop - 1] - done) + np.repeat(offset, counts)
        start = stop


def _tiles(queries: Hashes, stored: Hashes, rows: slice, columns: slice) -> Iterator[tuple[Indices, Indices]]:
    """All pairs of one large group; of a crowd, what lies next to the queries in the order."""
    for start in range(rows.start, rows.stop, _QUERIES_AT_ONCE):
        query = np.arange(start, min(start + _QUERIES_AT_ONCE, rows.stop))
        low, high = columns.start, columns.stop
        if high - low > CROWD:
            middle = int(np.searchsorted(stored, queries[query[len(query) // 2]]))
            low = min(max(middle - CROWD // 2, low), high - CROWD)
            high = low + CROWD
        other = np.arange(low, high)
        yield np.repeat(query, len(other)), np.tile(other, len(query))
