"""Read a source once, in a stream: digest and check each image, pack the new ones, note what is set aside.

Images are read in order by one thread and checked by several; a bounded number waits in between, so that memory does
not grow with the source.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from calotype import console
from calotype.data import duplicates
from calotype.data.dataset import threads
from calotype.data.decode import DecodeError, Facts, look
from calotype.data.duplicates import VIEWS, Small, small
from calotype.data.scratch import DiskArray
from calotype.data.shards import Writer
from calotype.sources.contract import Source, SourceImage

_CHUNK_IMAGES = 64
_CHUNK_BYTES = 8 * 2**20
_ROWS_AT_ONCE = 8192

ENTRY_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "image_id": pl.String,
    "path": pl.String,
    "label": pl.String,
    "group": pl.String,
    "declared_split": pl.String,
    "attributes": pl.String,
    "sketch": pl.UInt32,
}
FACTS_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "width": pl.Int32,
    "height": pl.Int32,
    "mode": pl.Categorical,
    "format": pl.Categorical,
    "bytes": pl.Int64,
    "new_shard": pl.Int32,
    "phash": pl.UInt64,
}
REJECTS_SCHEMA = {"path": pl.String, "code": pl.String, "reason": pl.String}

Piece = tuple[SourceImage, bytes | None, str]


class Verdict(NamedTuple):
    """What the check of one image found: id, facts and sketch (none of a known image), or why it is set aside."""

    image_id: str
    facts: Facts | None
    sketch: bytes
    rejection: tuple[str, str] | None


@dataclass(frozen=True)
class Known:
    """What need not be done again: pixels of each image that is packed, by image_id, and which of them have no hash."""

    pixels: Mapping[str, int]
    unhashed: Collection[str] = frozenset()


@dataclass(frozen=True)
class Intake:
    """What a source holds.

    Attributes
    ----------
    entries
        One row for each readable file: `ENTRY_SCHEMA`. `sketch` is the row of its image in the two tables below, null
        if it was not decoded.
    facts
        One row for each image that was decoded: `FACTS_SCHEMA`. `new_shard` is null if it was not packed.
    sketches
        Sketches of the same images.
    rejects
        One row for each file set aside, sorted by path: `REJECTS_SCHEMA`.
    rejected_labels
        How many files of each class were set aside.
    """

    entries: pl.DataFrame
    facts: pl.DataFrame
    sketches: DiskArray
    rejects: pl.DataFrame
    rejected_labels: Counter[str]


class _Table:
    """Rows as they come in, packed into columns time and again: a row of Python objects takes five times the memory."""

    def __init__(self, schema: Mapping[str, pl.DataType | type[pl.DataType]]) -> None:
        self._schema = schema
        self._rows: list[tuple[str | int | None, ...]] = []
        self._parts = [pl.DataFrame(schema=schema)]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, *row: str | int | None) -> None:
        self._rows.append(row)
        self._count += 1
        if len(self._rows) >= _ROWS_AT_ONCE:
            self._pack()

    def finish(self) -> pl.DataFrame:
        """The table; it is asked for once."""
        self._pack()
        return pl.concat(self._parts)

    def _pack(self) -> None:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(self._schema)
        self._parts.append(pl.DataFrame(dict(zip(self._schema, columns, strict=True)), schema=self._schema))
        self._rows = []


@dataclass
class _Gathered:
    """What has come in."""

    entries: _Table = field(default_factory=lambda: _Table(ENTRY_SCHEMA))
    facts: _Table = field(default_factory=lambda: _Table(FACTS_SCHEMA))
    numbers: dict[bytes, int] = field(default_factory=dict)
    rejects: list[tuple[str, str, str]] = field(default_factory=list)
    rejected_labels: Counter[str] = field(default_factory=Counter)

    def number_of(self, verdict: Verdict) -> int | None:
        """Number an image when it is decoded first; none if it was not."""
        if verdict.facts is None:
            return None
        return self.numbers.setdefault(bytes.fromhex(verdict.image_id), len(self.numbers))

    def finish(self, sketches: DiskArray) -> Intake:
        """Turn the rows into tables."""
        self.numbers.clear()
        rejects = pl.DataFrame(self.rejects, schema=REJECTS_SCHEMA, orient="row").sort("path")
        return Intake(self.entries.finish(), self.facts.finish(), sketches, rejects, self.rejected_labels)


def take_in(
    source: Source, known: Known, writer: Writer, *, max_megapixels: float, prefix: str, scratch: Path | None = None
) -> Intake:
    """Read every image of a source once; images that are not known go to ``writer``.

    Parameters
    ----------
    source
        What to read.
    known
        What the dataset holds already: these images are not packed again, and not decoded unless their hash lacks.
    writer
        Packs the new images; closed at the end.
    max_megapixels
        Pixel cap, `ingest.max_megapixels`.
    prefix
        Stage that shows its progress.
    scratch
        Folder for the sketches; the system's temporary one if None.
    """
    gathered = _Gathered()
    sketches = DiskArray((source.count, VIEWS), np.uint64, scratch)
    waiting: list[bytes] = []
    checked = _checked(source, known, max_megapixels)
    for image, data, verdict in console.track(checked, prefix=prefix, unit="images", total=source.count):
        if verdict.rejection is not None:
            gathered.rejects.append((image.path, *verdict.rejection))
            gathered.rejected_labels[image.label] += 1
            continue
        number = gathered.number_of(verdict)
        told = (image.path, image.label, image.group, image.split, image.attributes)
        gathered.entries.add(verdict.image_id, *told, number)
        if verdict.facts is None or number is None or number < len(gathered.facts):
            continue
        assert data is not None
        is_known = verdict.image_id in known.pixels
        shard = None if is_known else writer.add(verdict.image_id, data, verdict.facts.format)
        gathered.facts.add(*verdict.facts, len(data), shard, int.from_bytes(verdict.sketch[:8], sys.byteorder))
        waiting.append(verdict.sketch)
        if len(waiting) == _ROWS_AT_ONCE:
            _keep(sketches, len(gathered.facts), waiting)
    _keep(sketches, len(gathered.facts), waiting)
    writer.close()
    return gathered.finish(sketches)


def _keep(sketches: DiskArray, count: int, waiting: list[bytes]) -> None:
    """Write the last of so many sketches to their place."""
    sketches[count - len(waiting) : count] = np.frombuffer(b"".join(waiting), np.uint64).reshape(-1, VIEWS)
    waiting.clear()


def check(pieces: Sequence[Piece], known: Known, max_megapixels: float) -> list[Verdict]:
    """Digest images; decode and hash those that are not known."""
    verdicts = []
    smalls: dict[int, Small] = {}
    for place, (_, data, reason) in enumerate(pieces):
        verdict, made_small = _check(data, reason, known, max_megapixels)
        verdicts.append(verdict)
        if made_small is not None:
            smalls[place] = made_small
    # All at once: the arithmetic of one picture is less work than calling for it.
    for place, hashes in zip(smalls, duplicates.sketches(list(smalls.values())), strict=True):
        image_id, facts, _, rejection = verdicts[place]
        verdicts[place] = Verdict(image_id, facts, hashes.tobytes(), rejection)
    return verdicts


def _check(data: bytes | None, reason: str, known: Known, max_megapixels: float) -> tuple[Verdict, Small | None]:
    """Look at one image, and make it small if it is not known."""
    if data is None:
        return Verdict("", None, b"", ("unreadable", reason)), None
    image_id = hashlib.sha256(data).hexdigest()
    pixels = known.pixels.get(image_id)
    if pixels is not None and pixels <= max_megapixels * 1e6 and image_id not in known.unhashed:
        return Verdict(image_id, None, b"", None), None
    try:
        found, facts = look(data, max_megapixels=max_megapixels)
    except DecodeError as error:
        return Verdict(image_id, None, b"", (error.code, error.reason)), None
    return Verdict(image_id, facts, b"", None), small(found)


def _checked(
    source: Source, known: Known, max_megapixels: float
) -> Iterator[tuple[SourceImage, bytes | None, Verdict]]:
    def work(chunk: list[Piece]) -> list[tuple[SourceImage, bytes | None, Verdict]]:
        verdicts = check(chunk, known, max_megapixels)
        return [(image, data, verdict) for (image, data, _), verdict in zip(chunk, verdicts, strict=True)]

    waiting: deque[Future[list[tuple[SourceImage, bytes | None, Verdict]]]] = deque()
    with ThreadPoolExecutor(threads(), thread_name_prefix="check") as pool:
        for chunk in _chunks(source.read()):
            waiting.append(pool.submit(work, chunk))
            if len(waiting) > 2 * threads():
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _chunks(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    chunk: list[Piece] = []
    size = 0
    for piece in pieces:
        chunk.append(piece)
        size += len(piece[1] or b"")
        if len(chunk) >= _CHUNK_IMAGES or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
