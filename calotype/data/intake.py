"""Read a source once, in a stream: digest and check each image, pack the new ones, note what is set aside.

Images are read in order by one thread and checked by several; a bounded number waits in between, so that memory does
not grow with the source.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from calotype import console
from calotype.data.dataset import threads
from calotype.data.decode import DecodeError, Facts, examine
from calotype.data.duplicates import VIEWS, Small, sketches, small
from calotype.data.shards import Writer
from calotype.sources.contract import Source, SourceImage

_CHUNK_IMAGES = 64
_CHUNK_BYTES = 8 * 2**20
_ROWS_AT_ONCE = 8192

ENTRY_SCHEMA = {
    "image_id": pl.String,
    "path": pl.String,
    "label": pl.String,
    "group": pl.String,
    "declared_split": pl.String,
    "attributes": pl.String,
}
FACTS_SCHEMA = {
    "image_id": pl.String,
    "width": pl.Int32,
    "height": pl.Int32,
    "mode": pl.String,
    "format": pl.String,
    "bytes": pl.Int64,
    "new_shard": pl.Int32,
}
HASH_SCHEMA = {"image_id": pl.String, "phash": pl.UInt64}
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
        One row for each readable file: `ENTRY_SCHEMA`.
    facts
        One row for each image that was packed: `FACTS_SCHEMA`.
    hashes
        Perceptual hash of each image that was decoded: `HASH_SCHEMA`.
    rejects
        One row for each file set aside, sorted by path: `REJECTS_SCHEMA`.
    rejected_labels
        How many files of each class were set aside.
    sketches
        Sketches of the images that were decoded, uint64 (N, VIEWS), in the order of `hashes`.
    """

    entries: pl.DataFrame
    facts: pl.DataFrame
    hashes: pl.DataFrame
    rejects: pl.DataFrame
    rejected_labels: Counter[str]
    sketches: NDArray[np.uint64]

    def sketches_of(self, image_ids: Sequence[str]) -> NDArray[np.uint64]:
        """Sketches of images that were decoded: uint64 (N, VIEWS)."""
        asked = pl.DataFrame({"image_id": image_ids}, schema={"image_id": pl.String})
        rows = asked.join(self.hashes.with_row_index("row"), on="image_id", how="left", maintain_order="left")
        found: NDArray[np.uint64] = self.sketches[rows["row"].to_numpy()]
        return found


class _Table:
    """Rows as they come in, packed into columns time and again: a row of Python objects takes five times the memory."""

    def __init__(self, schema: Mapping[str, type[pl.DataType]]) -> None:
        self._schema = schema
        self._rows: list[tuple[str | int | None, ...]] = []
        self._parts = [pl.DataFrame(schema=schema)]

    def add(self, *row: str | int | None) -> None:
        self._rows.append(row)
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
    decoded: _Table = field(default_factory=lambda: _Table({"image_id": pl.String}))
    seen: set[bytes] = field(default_factory=set)
    sketches: bytearray = field(default_factory=bytearray)
    rejects: list[tuple[str, str, str]] = field(default_factory=list)
    rejected_labels: Counter[str] = field(default_factory=Counter)

    def is_new(self, image_id: str) -> bool:
        """Whether an image has not been decoded before; from now on it has."""
        key = bytes.fromhex(image_id)
        if key in self.seen:
            return False
        self.seen.add(key)
        return True

    def finish(self) -> Intake:
        """Turn the rows into tables."""
        self.seen.clear()
        sketches = np.frombuffer(self.sketches, dtype=np.uint64).reshape(-1, VIEWS)
        return Intake(
            self.entries.finish(),
            self.facts.finish(),
            self.decoded.finish().with_columns(pl.Series("phash", sketches[:, 0])),
            pl.DataFrame(self.rejects, schema=REJECTS_SCHEMA, orient="row").sort("path"),
            self.rejected_labels,
            sketches,
        )


def take_in(source: Source, known: Known, writer: Writer, *, max_megapixels: float, prefix: str) -> Intake:
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
    """
    gathered = _Gathered()
    checked = _checked(source, known, max_megapixels)
    for image, data, verdict in console.track(checked, prefix=prefix, unit="images", total=source.count):
        if verdict.rejection is not None:
            gathered.rejects.append((image.path, *verdict.rejection))
            gathered.rejected_labels[image.label] += 1
            continue
        gathered.entries.add(verdict.image_id, image.path, image.label, image.group, image.split, image.attributes)
        if verdict.facts is None or not gathered.is_new(verdict.image_id):
            continue
        gathered.decoded.add(verdict.image_id)
        gathered.sketches += verdict.sketch
        if verdict.image_id not in known.pixels:
            assert data is not None
            shard = writer.add(verdict.image_id, data, verdict.facts.format)
            gathered.facts.add(verdict.image_id, *verdict.facts, len(data), shard)
    writer.close()
    return gathered.finish()


def check(pieces: Sequence[Piece], known: Known, max_megapixels: float) -> list[Verdict]:
    """Digest images; decode and hash those that are not known."""
    verdicts = []
    smalls: dict[int, Small] = {}
    for place, (_, data, reason) in enumerate(pieces):
        verdict, look = _check(data, reason, known, max_megapixels)
        verdicts.append(verdict)
        if look is not None:
            smalls[place] = look
    # All at once: the arithmetic of one picture is less work than calling for it.
    for place, hashes in zip(smalls, sketches(list(smalls.values())), strict=True):
        verdicts[place] = verdicts[place]._replace(sketch=hashes.tobytes())
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
        picture, facts = examine(data, max_megapixels=max_megapixels)
    except DecodeError as error:
        return Verdict(image_id, None, b"", (error.code, error.reason)), None
    return Verdict(image_id, facts, b"", None), small(picture)


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
