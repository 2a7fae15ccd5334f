"""Read a source once, in a stream: digest and check each image, pack the new ones, note what is set aside.

Images are read in order by one thread and checked by several; a bounded number waits in between, so that memory does
not grow with the source.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import polars as pl

from calotype import console
from calotype.dataset import threads
from calotype.decode import DecodeError, Facts, examine
from calotype.shards import Writer
from calotype.sources.contract import Source, SourceImage

_CHUNK_IMAGES = 64
_CHUNK_BYTES = 8 * 2**20

ENTRY_SCHEMA = {
    "image_id": pl.String,
    "path": pl.String,
    "label": pl.String,
    "group": pl.String,
    "declared_split": pl.String,
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
REJECTS_SCHEMA = {"path": pl.String, "code": pl.String, "reason": pl.String}

Piece = tuple[SourceImage, bytes | None, str]


class Verdict(NamedTuple):
    """What the check of one image found: its id and facts (none of a known image), or why it is set aside."""

    image_id: str
    facts: Facts | None
    rejection: tuple[str, str] | None


@dataclass
class Intake:
    """What a source holds: readable files, facts of new images, rejects. Columns, because rows are many."""

    entries: dict[str, list[str | None]] = field(default_factory=lambda: {name: [] for name in ENTRY_SCHEMA})
    facts: list[tuple[str, int, int, str, str, int, int]] = field(default_factory=list)
    rejects: list[tuple[str, str, str]] = field(default_factory=list)
    rejected_labels: Counter[str] = field(default_factory=Counter)

    def entries_frame(self) -> pl.DataFrame:
        """One row for each readable file of the source."""
        return pl.DataFrame(self.entries, schema=ENTRY_SCHEMA)

    def facts_frame(self) -> pl.DataFrame:
        """One row for each image that was not known before."""
        return pl.DataFrame(self.facts, schema=FACTS_SCHEMA, orient="row")

    def rejects_frame(self) -> pl.DataFrame:
        """One row for each file set aside, sorted by path."""
        return pl.DataFrame(self.rejects, schema=REJECTS_SCHEMA, orient="row").sort("path")


def take_in(source: Source, known: Mapping[str, int], writer: Writer, *, max_megapixels: float, prefix: str) -> Intake:
    """Read every image of a source once; images that are not known go to ``writer``.

    Parameters
    ----------
    source
        What to read.
    known
        Pixels of each image that the dataset holds already, by image_id: these are not decoded again.
    writer
        Packs the new images; closed at the end.
    max_megapixels
        Pixel cap, `ingest.max_megapixels`.
    prefix
        Stage that shows its progress.
    """
    intake = Intake()
    seen: set[str] = set()
    checked = _checked(source, known, max_megapixels)
    for image, data, verdict in console.track(checked, prefix=prefix, unit="images", total=source.count):
        if verdict.rejection is not None:
            intake.rejects.append((image.path, *verdict.rejection))
            intake.rejected_labels[image.label] += 1
            continue
        _add_entry(intake, verdict.image_id, image)
        if verdict.facts is not None and verdict.image_id not in seen:
            assert data is not None
            seen.add(verdict.image_id)
            shard = writer.add(verdict.image_id, data, verdict.facts.format)
            intake.facts.append((verdict.image_id, *verdict.facts, len(data), shard))
    writer.close()
    return intake


def check(data: bytes | None, reason: str, known: Mapping[str, int], max_megapixels: float) -> Verdict:
    """Digest one image, and decode it if it is not known."""
    if data is None:
        return Verdict("", None, ("unreadable", reason))
    image_id = hashlib.sha256(data).hexdigest()
    pixels = known.get(image_id)
    if pixels is not None and pixels <= max_megapixels * 1e6:
        return Verdict(image_id, None, None)
    try:
        return Verdict(image_id, examine(data, max_megapixels=max_megapixels)[1], None)
    except DecodeError as error:
        return Verdict(image_id, None, (error.code, error.reason))


def _add_entry(intake: Intake, image_id: str, image: SourceImage) -> None:
    values = (image_id, image.path, image.label, image.group, image.split)
    for column, value in zip(intake.entries.values(), values, strict=True):
        column.append(value)


def _checked(
    source: Source, known: Mapping[str, int], max_megapixels: float
) -> Iterator[tuple[SourceImage, bytes | None, Verdict]]:
    def work(chunk: list[Piece]) -> list[tuple[SourceImage, bytes | None, Verdict]]:
        return [(image, data, check(data, reason, known, max_megapixels)) for image, data, reason in chunk]

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
