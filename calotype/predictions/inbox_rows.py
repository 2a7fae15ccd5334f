"""From a batch of the inbox to the rows of both tables: contents that are answered, and versions of files seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from calotype.data.appearance import appearance
from calotype.params import ImageParams
from calotype.predictions.prediction_rows import (
    NOT_FINITE,
    Classifies,
    Model,
    answer_columns,
    model_columns,
    nothing,
    statuses,
)
from calotype.predictions.preparing import Prepared
from calotype.predictions.tables import BY_CONTENT, BY_FILE

APPEARANCE = ("mean", "contrast", "sharpness")


@dataclass(frozen=True)
class Answerer:
    """Who answers in which role."""

    role: str
    classifier: Classifies
    model: Model
    image: ImageParams


@dataclass(frozen=True)
class Rows:
    """Rows of both tables, without the moment of their commit.

    ``answered_before`` of the files hold contents that have an answer already; ``left`` files get no row this time.
    """

    predictions: pa.RecordBatch
    files: pa.RecordBatch
    answered_before: int
    left: int


def rows_of(batch: Prepared, answerers: Sequence[Answerer], batch_id: str) -> Rows:
    """Let each answer the contents that have no answer yet; the first of them is the champion.

    An image for which the champion gives no number is rejected.
    """
    places = np.flatnonzero(batch.is_decoded)
    answered = [_answered(batch, one, places, batch_id) for one in answerers]
    reasons = list(batch.reasons)
    for place in places[~answered[0][1]]:
        reasons[place] = NOT_FINITE
    predictions = pa.Table.from_batches([rows for rows, _ in answered]).combine_chunks()
    found = predictions.to_batches() or [pa.RecordBatch.from_pylist([], schema=BY_CONTENT.spooled)]
    return Rows(found[0], _files(batch, reasons, batch_id), sum(batch.is_answered), batch.left)


def _answered(
    batch: Prepared, one: Answerer, places: NDArray[np.intp], batch_id: str
) -> tuple[pa.RecordBatch, NDArray[np.bool_]]:
    """One's rows, and which of the decoded contents it has a number for."""
    pixels = batch.pixels[one.image]
    if len(pixels):
        probabilities, embedding = one.classifier.answers(pixels)
    else:
        probabilities, embedding = nothing(one.classifier), np.empty((0, 0), dtype=np.float32)
    is_finite = np.asarray(np.isfinite(probabilities).all(axis=1))
    kept = places[is_finite]
    count = len(kept)
    columns = {
        "image_id": pa.array([batch.image_ids[place] for place in kept], pa.string()),
        "role": pa.repeat(one.role, count),
        "path": pa.array([batch.waiting[place].path for place in kept], pa.string()),
        **answer_columns(probabilities[is_finite], one.classifier),
        **model_columns(one.model, count),
        "engine": pa.repeat(one.classifier.engine, count),
        "embedding": _lists(embedding[is_finite]),
        **dict(zip(APPEARANCE, map(pa.array, np.ascontiguousarray(appearance(pixels)[is_finite].T)), strict=True)),
        "batch_id": pa.repeat(batch_id, count),
    }
    schema = BY_CONTENT.spooled
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema), is_finite


def _files(batch: Prepared, reasons: list[str | None], batch_id: str) -> pa.RecordBatch:
    is_predicted = np.array([reason is None for reason in reasons], dtype=np.bool_)
    columns = {
        "path": pa.array([one.path for one in batch.waiting], pa.string()),
        "size": pa.array([one.size for one in batch.waiting], pa.int64()),
        "mtime": pa.array([one.mtime_us for one in batch.waiting], pa.int64()).cast(pa.timestamp("us", tz="UTC")),
        "image_id": pa.array(batch.image_ids, pa.string()),
        "status": statuses(is_predicted),
        "reason": pa.array(reasons, pa.string()),
        "batch_id": pa.repeat(batch_id, len(reasons)),
    }
    schema = BY_FILE.spooled
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _lists(embedding: NDArray[np.float32]) -> pa.Array:
    """Rows as lists of numbers that float16 holds; null where there are none."""
    count, width = embedding.shape
    if not width:
        return pa.nulls(count, pa.list_(pa.float32()))
    ends = pa.array(np.arange(count + 1, dtype=np.int32) * width)
    return pa.ListArray.from_arrays(ends, pa.array(embedding.astype(np.float16).astype(np.float32).ravel()))
