"""From waiting images to rows: read, decode, classify in batches, one row for each, in order."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from calotype.data import decode
from calotype.evaluation.abstention import is_answered
from calotype.params import ImageParams
from calotype.predictions import incoming
from calotype.predictions.incoming import Unreadable, Waiting

PREDICTED, REJECTED = "predicted", "rejected"

Key = tuple[str, str | None]
"""What makes two sightings of an image the same: the path, and the content's image_id."""

SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("image_id", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("label", pa.string()),
        pa.field("confidence", pa.float32()),
        # The answer is given for the record, but its confidence is below what the model was to keep.
        pa.field("abstained", pa.bool_()),
        # A map, so that models with other classes share one table.
        pa.field("probabilities", pa.map_(pa.string(), pa.float32())),
        pa.field("model_name", pa.string(), nullable=False),
        pa.field("model_version", pa.int64(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
    ]
)
"""The columns of every prediction, wherever it is written."""

LARGEST_BYTES_PER_PIXEL = 8
"""16 bits in four channels, uncompressed: a larger file cannot be a picture within the pixels allowed."""

HEADER_BYTES = 16 * 2**20
"""Allowance for metadata and thumbnails."""


@dataclass(frozen=True)
class Model:
    """Which registered version answers, as it is written into each row."""

    name: str
    version: int
    run_id: str


class Classifies(Protocol):
    """What is needed of a classifier: classes, threshold, and probabilities (N, K) for uint8 images (N, C, S, S)."""

    classes: tuple[str, ...]
    abstain_below: float

    def probabilities(self, images_nchw: NDArray[np.uint8], /) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Prepared:
    """A waiting image after reading: its id if its bytes could be read, its pixels if it could be decoded."""

    path: str
    image_id: str | None
    pixels: NDArray[np.uint8] | None
    reason: str | None


@dataclass(frozen=True)
class _Read:
    path: str
    image_id: str | None
    data: bytes | None
    reason: str | None


def prepare(
    waiting: Waiting, image: ImageParams, max_megapixels: float, known: Set[Key] = frozenset()
) -> Prepared | None:
    """Read and decode one image; whatever is wrong with it becomes its reason, never an exception.

    An image that is ``known`` already gives None, and is not decoded.
    """
    read = _read(waiting, max_megapixels)
    if (read.path, read.image_id) in known:
        return None
    if read.data is None:
        return Prepared(read.path, None, None, read.reason)
    try:
        pixels = decode.fit(decode.decode(read.data, max_megapixels=max_megapixels), image)
    except decode.DecodeError as error:
        return Prepared(read.path, read.image_id, None, f"{error.code}: {error.reason}")
    return Prepared(read.path, read.image_id, pixels, None)


def _read(waiting: Waiting, max_megapixels: float) -> _Read:
    if waiting.file is None:
        return _Read(waiting.path, None, None, waiting.problem)
    limit = int(max_megapixels * 1_000_000 * LARGEST_BYTES_PER_PIXEL) + HEADER_BYTES
    try:
        data = incoming.read(waiting.file, max_bytes=limit)
    except Unreadable as error:
        return _Read(waiting.path, None, None, f"{error.code}: {error.reason}")
    return _Read(waiting.path, hashlib.sha256(data).hexdigest(), data, None)


def prepared_batches(
    waiting: Iterable[Waiting],
    image: ImageParams,
    *,
    max_megapixels: float,
    batch_size: int,
    known: Set[Key] = frozenset(),
) -> Iterator[list[Prepared]]:
    """Read and decode in threads, in order, one batch ahead of the one in use: memory holds two batches."""
    items = iter(waiting)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="decode") as pool:

        def start() -> list[Future[Prepared | None]]:
            batch = itertools.islice(items, batch_size)
            return [pool.submit(prepare, one, image, max_megapixels, known) for one in batch]

        ahead = start()
        while ahead:
            current, ahead = ahead, start()
            results = (future.result() for future in current)
            yield [one for one in results if one is not None]


def classify(batch: list[Prepared], classifier: Classifies, model: Model) -> pa.RecordBatch:
    """Answer one batch: a row for each image, predicted or rejected, in its order."""
    pictures = [one.pixels for one in batch if one.pixels is not None]
    answers: Iterator[Any] = iter(classifier.probabilities(np.stack(pictures)) if pictures else ())
    rows = [_row(one, answers, classifier, model) for one in batch]
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def _row(one: Prepared, answers: Iterator[Any], classifier: Classifies, model: Model) -> dict[str, Any]:
    row: dict[str, Any] = {
        "path": one.path,
        "image_id": one.image_id,
        "model_name": model.name,
        "model_version": model.version,
        "run_id": model.run_id,
    }
    if one.pixels is None:
        return row | {"status": REJECTED, "reason": one.reason}
    probabilities = next(answers)
    if not np.isfinite(probabilities).all():
        return row | {"status": REJECTED, "reason": "not-finite: the model answers no number for this image"}
    best = int(probabilities.argmax())
    return row | {
        "status": PREDICTED,
        "label": classifier.classes[best],
        "confidence": float(probabilities[best]),
        "abstained": not bool(is_answered(probabilities[best], classifier.abstain_below)),
        "probabilities": list(zip(classifier.classes, probabilities.tolist(), strict=True)),
    }
