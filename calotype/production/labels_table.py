"""The Delta table of true labels: appended to exactly once, by compare-and-swap; of several labels one holds."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable

from calotype import delta
from calotype.delta import Kind
from calotype.errors import CalotypeError
from calotype.predictions.reading import open_checked
from calotype.production.labels_file import Label
from calotype.project import Project

NAME = "labels"
ATTEMPTS = 100

LABELS = Kind(
    "the table of labels",
    "CALOTYPE_PREDICT_OUTPUT",
    "calotype.labels",
    pa.schema(
        [
            # SHA-256 of the file's bytes, as in the table of predictions.
            pa.field("image_id", pa.string(), nullable=False),
            pa.field("label", pa.string(), nullable=False),
            pa.field("labelled_on", pa.date32(), nullable=False),
            # Of the commit; rises from each to the next.
            pa.field("added_at", pa.timestamp("us", tz="UTC"), nullable=False),
            # By which the label named its image; null where it gave the digest.
            pa.field("path", pa.string()),
            # The file that the label was read from.
            pa.field("source", pa.string(), nullable=False),
        ]
    ),
    format_version=1,
    lacking={},
)
"""One row for each label that was said of an image; the one of the latest date holds, and of these the last added."""


@dataclass(frozen=True)
class Held:
    """What the table says of an image: the label that holds since a day, and all that was ever said."""

    label: str
    labelled_on: date
    said: frozenset[tuple[str, date]]


Plan = Callable[[dict[str, Held]], Sequence[Label]]
"""Which labels to append to those that are held; asked again whenever another writer was first."""


def read(project: Project) -> pl.DataFrame:
    """Every row, the one that holds for each image last; empty where there is no table."""
    return _rows(open_checked(project, NAME, LABELS))


def holding(rows: pl.DataFrame) -> pl.DataFrame:
    """One row for each image: the label that holds."""
    return rows.unique("image_id", keep="last", maintain_order=True)


def append(project: Project, plan: Plan, source: str) -> None:
    """Append what a plan makes of the labels that are held, in one commit through the snapshot that it saw.

    Raises
    ------
    DataError
        If something else is at the table's place.
    CalotypeError
        If other writers came first `ATTEMPTS` times, or the place cannot be reached.
    """
    for attempt in range(ATTEMPTS):
        table = open_checked(project, NAME, LABELS)
        rows = _rows(table)
        new = plan(_held(rows))
        if not new:
            return
        if table is None:
            # Read again: by now it may hold what another writer was first to append.
            delta.made(project.table(NAME), LABELS, NAME, "True labels of predicted images, each as it was said")
            continue
        last: datetime | None = rows["added_at"].max()  # type: ignore[assignment]
        if delta.append(table, LABELS, _as_table(new, _after(last), source)):
            return
        time.sleep(random.uniform(0, 0.02 * (attempt + 1)))
    raise CalotypeError(
        f"{project.table(NAME)}: {ATTEMPTS} attempts to append met other writers, each ahead of this one. Nothing was "
        "appended; run the command again when they have ended."
    )


def _rows(table: DeltaTable | None) -> pl.DataFrame:
    if table is None:
        return pl.DataFrame(LABELS.schema.empty_table())
    return pl.DataFrame(delta.whole(table, LABELS)).sort("labelled_on", "added_at")


def _held(rows: pl.DataFrame) -> dict[str, Held]:
    said: dict[str, list[tuple[str, date]]] = {}
    for image_id, label, day in rows.select("image_id", "label", "labelled_on").iter_rows():
        said.setdefault(image_id, []).append((label, day))
    return {image_id: Held(*found[-1], frozenset(found)) for image_id, found in said.items()}


def _after(last: datetime | None) -> datetime:
    now = datetime.now(UTC)
    return now if last is None else max(now, last + timedelta(microseconds=1))


def _as_table(labels: Sequence[Label], added_at: datetime, source: str) -> pa.Table:
    rows = [
        {
            "image_id": one.image_id,
            "label": one.label,
            "labelled_on": one.labelled_on,
            "added_at": added_at,
            "path": None if one.row.image_id else one.row.path,
            "source": source,
        }
        for one in labels
    ]
    return pa.Table.from_pylist(rows, LABELS.schema)
