"""`calotype predictions summary`: what the tables of production hold, counted while they stream past."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from calotype.delta import batches
from calotype.predictions.prediction_rows import PREDICTED, REJECTED
from calotype.predictions.reading import Tables, holding, shares
from calotype.predictions.tables import CHAMPION, FILES, PREDICTIONS

LAST_BATCHES = 10
MANY_BATCHES = 1000
COLUMNS = ("image_id", "role", "label", "confidence", "abstained", "model_name", "model_version", "predicted_at")


@dataclass(frozen=True)
class ModelCount:
    """Answers of one version in one role."""

    model: str
    version: int
    role: str
    answers: int
    mean_confidence: float
    abstained: int
    first: datetime
    last: datetime


@dataclass(frozen=True)
class ClassCount:
    """Contents whose answer, the latest of a champion, is this class."""

    label: str
    contents: int
    share: float
    mean_confidence: float
    abstained: int


@dataclass(frozen=True)
class BatchCount:
    """Files that one batch saw for the first time, or saw changed, and answers that it gave: rows of each table."""

    batch_id: str
    files: int
    rejected: int
    answers: int
    when: datetime


@dataclass(frozen=True)
class Summary:
    """What the tables hold.

    Attributes
    ----------
    contents
        Distinct images that a champion answered.
    answers
        Rows of the table of predictions: more where a new champion was asked again, or a challenger beside it.
    files, rejected
        Versions of files that were seen, and those that could not be read, by code.
    models, classes
        Answers by version and role; contents by class, most first.
    batches
        The last ones, newest first.
    """

    contents: int
    answers: int
    abstained: int
    mean_confidence: float | None
    files: int
    rejected: dict[str, int]
    models: tuple[ModelCount, ...]
    classes: tuple[ClassCount, ...]
    batches: tuple[BatchCount, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values; moments are ISO 8601 as the printer writes them."""
        return asdict(self)


@dataclass
class _Sums:
    rows: int = 0
    confidence: float = 0.0
    abstained: int = 0
    first: datetime | None = None
    last: datetime | None = None

    def add(self, row: dict[str, Any]) -> None:
        self.rows += row["rows"]
        self.confidence += row["confidence"]
        self.abstained += row["abstained"]
        self.first = min(self.first or row["first"], row["first"])
        self.last = max(self.last or row["last"], row["last"])


@dataclass
class _Tally:
    models: dict[tuple[Any, ...], _Sums] = field(default_factory=dict)
    classes: dict[tuple[Any, ...], _Sums] = field(default_factory=dict)


def summarize(tables: Tables) -> Summary:
    """Count, in memory that does not grow with the tables."""
    tally = _Tally()
    for part in shares(tables.predictions, PREDICTIONS, COLUMNS):
        held: list[Any] = []
        for batch in batches(tables.predictions, PREDICTIONS, COLUMNS, part):
            _add(tally.models, batch, ("model_name", "model_version", "role"))
            held.append(batch.filter(pc.equal(batch["role"], CHAMPION)))
        if held:
            _add(tally.classes, holding(pa.Table.from_batches(held)), ("label",))
    contents = sum(sums.rows for sums in tally.classes.values())
    confidence = sum(sums.confidence for sums in tally.classes.values())
    files, rejected = _files(tables)
    return Summary(
        contents=contents,
        answers=sum(sums.rows for sums in tally.models.values()),
        abstained=sum(sums.abstained for sums in tally.classes.values()),
        mean_confidence=confidence / contents if contents else None,
        files=files,
        rejected=rejected,
        models=_models(tally),
        classes=_classes(tally, contents),
        batches=_counted_batches(tables),
    )


def _add(sums: dict[tuple[Any, ...], _Sums], rows: Any, keys: Sequence[str]) -> None:
    frame = pl.DataFrame({name: pl.Series(rows[name]) for name in COLUMNS[1:]})
    grouped = frame.group_by(keys).agg(
        pl.len().alias("rows"),
        pl.col("confidence").cast(pl.Float64).sum(),
        pl.col("abstained").sum(),
        pl.col("predicted_at").min().alias("first"),
        pl.col("predicted_at").max().alias("last"),
    )
    for row in grouped.iter_rows(named=True):
        sums.setdefault(tuple(row[key] for key in keys), _Sums()).add(row)


def _models(tally: _Tally) -> tuple[ModelCount, ...]:
    found = []
    for (name, version, role), sums in sorted(tally.models.items()):
        assert sums.first is not None
        assert sums.last is not None
        mean = sums.confidence / sums.rows
        found.append(ModelCount(name, version, role, sums.rows, mean, sums.abstained, sums.first, sums.last))
    return tuple(found)


def _classes(tally: _Tally, contents: int) -> tuple[ClassCount, ...]:
    ranked = sorted(tally.classes.items(), key=lambda item: (-item[1].rows, item[0]))
    return tuple(
        ClassCount(label, sums.rows, sums.rows / contents, sums.confidence / sums.rows, sums.abstained)
        for (label,), sums in ranked
    )


def _files(tables: Tables) -> tuple[int, dict[str, int]]:
    rejected: Counter[str] = Counter()
    for batch in batches(tables.files, FILES, ["reason"], ds.field("status") == REJECTED):
        rejected.update((reason or "unknown").partition(":")[0] for reason in batch["reason"].to_pylist())
    return (0 if tables.files is None else int(tables.files.count())), dict(rejected.most_common())


def last_batches(tables: Tables) -> dict[str, datetime]:
    """The last batches with the moment of their last row, newest first.

    A batch may have rows in one table alone: of answers where it asked a new champion again, of files where all
    contents were answered before. Once a row of one of them has passed, fewer than so many others can come after it:
    the rest may be forgotten.
    """
    rows = itertools.chain(
        batches(tables.files, FILES, ["batch_id", "seen_at"]),
        batches(tables.predictions, PREDICTIONS, ["batch_id", "predicted_at"]),
    )
    last: dict[str, datetime] = {}
    for batch in rows:
        for name, when in pl.DataFrame(batch).group_by("batch_id").agg(pl.all().max()).iter_rows():
            last[name] = max(last.get(name, when), when)
        if len(last) > MANY_BATCHES:
            last = _newest(last)
    return _newest(last)


def _counted_batches(tables: Tables) -> tuple[BatchCount, ...]:
    """Count the batches that come last; whichever those are is known after all rows have passed once."""
    last = last_batches(tables)
    is_last = ds.field("batch_id").isin(list(last))
    files: Counter[tuple[str, str]] = Counter()
    for batch in batches(tables.files, FILES, ["batch_id", "status"], is_last):
        files.update(dict(_sizes(batch, "batch_id", "status")))
    answers: Counter[tuple[str]] = Counter()
    for batch in batches(tables.predictions, PREDICTIONS, ["batch_id"], is_last):
        answers.update(dict(_sizes(batch, "batch_id")))
    return tuple(
        BatchCount(
            name, files[name, PREDICTED] + files[name, REJECTED], files[name, REJECTED], answers[(name,)], last[name]
        )
        for name in last
    )


def _sizes(batch: pa.RecordBatch, *columns: str) -> Iterator[tuple[Any, int]]:
    for *key, count in pl.DataFrame(batch).group_by(columns).len().iter_rows():
        yield tuple(key), count


def _newest(last: dict[str, datetime]) -> dict[str, datetime]:
    ranked = sorted(last.items(), key=lambda item: (item[1], item[0]), reverse=True)
    return dict(ranked[:LAST_BATCHES])
