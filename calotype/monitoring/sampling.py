"""Predictions of a window, read as they stream by: how many wait, and a sample of those of one version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from calotype.delta import batches
from calotype.errors import DataError
from calotype.monitoring.shifts import Sample
from calotype.predictions.tables import CHAMPION, PREDICTIONS

LARGEST = 10_000
"""Images of a window that are compared: a fair sample, because an image_id is a digest of what the image shows."""

COLUMNS = ("image_id", "path", "label", "confidence", "embedding", "mean", "contrast", "sharpness")
_AFTER = timedelta(microseconds=1)


@dataclass(frozen=True)
class Span:
    """Predictions of one model version that no window holds yet, half-open in predicted_at."""

    model_version: int
    start: datetime
    end: datetime
    images: int


@dataclass(frozen=True)
class Predictions:
    """A window's sampled rows: what was answered, and to which images, in the order of image_id."""

    sample: Sample
    image_ids: Sequence[str]
    paths: Sequence[str]
    labels: Sequence[str]


def waiting(table: DeltaTable, model_name: str, ends: dict[int, datetime]) -> list[Span]:
    """What waits to be judged, by model version, the version with the newest predictions last.

    Parameters
    ----------
    table
        The predictions.
    model_name
        Whose.
    ends
        Where the last window of each version ended.
    """
    commits: Counter[tuple[int, datetime]] = Counter()
    for batch in batches(table, PREDICTIONS, ["model_version", "predicted_at"], _of(model_name)):
        commits.update(_counted(batch))
    spans = []
    for version in {version for version, _ in commits}:
        first = ends.get(version)
        moments = sorted(at for number, at in commits if number == version and (first is None or at >= first))
        if moments:
            images = sum(commits[version, at] for at in moments)
            spans.append(Span(version, first or moments[0], moments[-1] + _AFTER, images))
    return sorted(spans, key=lambda span: (span.end, span.model_version))


def read(table: DeltaTable, model_name: str, span: Span, classes: Sequence[str]) -> Predictions | None:
    """Read a span's predictions, at most ``LARGEST``: those with the smallest image_id.

    Memory holds a few times as many rows, however many the span has.

    Returns
    -------
    Predictions | None
        None if a row has no embedding: its model's bundle is of an older format.

    Raises
    ------
    DataError
        If a label is none of the classes.
    """
    at = pc.field("predicted_at")
    inside = (pc.field("model_version") == span.model_version) & (at >= span.start) & (at < span.end)
    held: list[pa.RecordBatch] = []
    largest: str | None = None
    for batch in batches(table, PREDICTIONS, COLUMNS, _of(model_name) & inside):
        kept = batch if largest is None else batch.filter(pc.less_equal(batch["image_id"], largest))
        held.append(kept)
        if sum(map(len, held)) > 2 * LARGEST:
            held = _smallest(held)
            largest = held[-1]["image_id"][-1].as_py()
    return _predictions(pa.Table.from_batches(_smallest(held)), classes)


def _of(model_name: str) -> pc.Expression:
    return (pc.field("role") == CHAMPION) & (pc.field("model_name") == model_name)


def _counted(batch: pa.RecordBatch) -> dict[tuple[int, datetime], int]:
    rows = pa.Table.from_batches([batch]).group_by(["model_version", "predicted_at"]).aggregate([([], "count_all")])
    columns = (rows[name].to_pylist() for name in ("model_version", "predicted_at", "count_all"))
    return {(version, at): count for version, at, count in zip(*columns, strict=True)}


def _smallest(held: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """One batch of the rows with the smallest image_ids, sorted."""
    rows = pa.Table.from_batches(held).sort_by("image_id").slice(0, LARGEST)
    return list(rows.combine_chunks().to_batches())


def _predictions(rows: pa.Table, classes: Sequence[str]) -> Predictions | None:
    if rows["embedding"].null_count:
        return None
    labels = rows["label"].to_pylist()
    index = {name: place for place, name in enumerate(classes)}
    foreign = sorted(set(labels) - set(classes))
    if foreign:
        raise DataError(
            f"the table of predictions: found the label {foreign[0]!r}, which its model does not know; expected one of "
            f"{len(classes):,} classes. The table was changed by hand, or the version's bundle is another one."
        )
    embedding = rows["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    appearance = [rows[name].to_numpy() for name in ("mean", "contrast", "sharpness")]
    return Predictions(
        Sample(
            embedding=embedding.reshape(len(labels), -1),
            predicted=np.array([index[label] for label in labels], dtype=np.int64),
            confidence=rows["confidence"].to_numpy(),
            appearance=np.stack(appearance, axis=1),
        ),
        image_ids=rows["image_id"].to_pylist(),
        paths=rows["path"].to_pylist(),
        labels=labels,
    )
