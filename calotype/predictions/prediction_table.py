"""The Delta table of scheduled predictions: appended to exactly once, however many batches run at a time.

An append is a compare-and-swap (`calotype.delta`): of several writers that read the same known rows one commits; the
others read again, leave out what is there by now, and try again. A table of version 1 gets the column that version 2
added, its old rows without a value.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError
from deltalake.schema import Field

from calotype import delta
from calotype.delta import FORMAT_KEY, Kind
from calotype.errors import CalotypeError
from calotype.predictions.prediction_rows import SCHEMA, Key

FORMAT_VERSION = 2
APPLICATION = "calotype.predictions"
ATTEMPTS = 30
ADDED = ("abstained",)
"""Columns that version 1 lacks."""

TABLE_SCHEMA = pa.schema(
    [
        *SCHEMA,
        pa.field("batch_id", pa.string(), nullable=False),
        pa.field("predicted_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)

KIND = Kind("the table of predictions", "CALOTYPE_PREDICT_OUTPUT", APPLICATION, TABLE_SCHEMA)


def open_table(place: Path) -> DeltaTable | None:
    """Open the table, or None where there is none yet.

    Raises
    ------
    DataError
        If something else is there: another table, a newer format, other files.
    """
    table = delta.open_table(place, KIND)
    if table is not None:
        _check(table, place)
    return table


def known_keys(table: DeltaTable | None) -> set[Key]:
    """Path and image_id of every row."""
    if table is None:
        return set()
    keys: set[Key] = set()
    for batch in table.to_pyarrow_dataset().to_batches(columns=["path", "image_id"]):
        keys.update(zip(batch["path"].to_pylist(), batch["image_id"].to_pylist(), strict=True))
    return keys


def append(place: Path, spool: Path) -> int:
    """Append the rows of a Parquet file that the table does not hold, in one transaction.

    Parameters
    ----------
    place
        The table's folder; made if absent.
    spool
        Rows of ``TABLE_SCHEMA``; read in batches, once for each attempt.

    Returns
    -------
    int
        How many rows were appended: those that no other writer appended first.

    Raises
    ------
    CalotypeError
        If other writers came first ``ATTEMPTS`` times.
    """
    for attempt in range(ATTEMPTS):
        table = open_table(place) or _create(place)
        if not _is_up_to_date(table):
            _upgrade(table)
            continue
        known = known_keys(table)
        new = sum(int(batch.num_rows) for batch in _unknown(spool, known))
        if not new:
            return 0
        if _commit(table, _unknown(spool, known)):
            return new
        time.sleep(random.uniform(0, 0.05 * (attempt + 1)))
    raise CalotypeError(
        f"{place}: {ATTEMPTS} attempts to append met other writers, each ahead of this one. Nothing was appended; "
        "run the batch again when they have ended."
    )


def _unknown(spool: Path, known: set[Key]) -> Iterator[pa.RecordBatch]:
    seen: set[Key] = set()
    with pq.ParquetFile(spool) as file:
        for batch in file.iter_batches(batch_size=8192):
            keys = list(zip(batch["path"].to_pylist(), batch["image_id"].to_pylist(), strict=True))
            mask = [key not in known and key not in seen for key in keys]
            seen.update(keys)
            if any(mask):
                yield batch.filter(pa.array(mask)).cast(TABLE_SCHEMA)


def _commit(table: DeltaTable, rows: Iterator[pa.RecordBatch]) -> bool:
    """Commit through the snapshot that was read; False if another writer was first."""
    return delta.append(table, KIND, pa.RecordBatchReader.from_batches(TABLE_SCHEMA, rows))


def _create(place: Path) -> DeltaTable:
    place.parent.mkdir(parents=True, exist_ok=True)
    description = "One row for each image seen by a scheduled batch prediction"
    delta.create(place, KIND, "predictions", description, {FORMAT_KEY: str(FORMAT_VERSION)})
    table = open_table(place)
    if table is None:
        raise CalotypeError(f"{place}: the table of predictions cannot be made. Check the folder's permissions.")
    return table


def _is_up_to_date(table: DeltaTable) -> bool:
    return table.metadata().configuration.get(FORMAT_KEY) == str(FORMAT_VERSION)


def _upgrade(table: DeltaTable) -> None:
    """Bring a table of an older version to this one, column before version; another writer may be first."""
    present = {field.name for field in table.schema().fields}
    lacking = [field for field in _expected() if field.name not in present]
    with contextlib.suppress(CommitFailedError):
        if lacking:
            table.alter.add_columns(lacking)
        table.alter.set_table_properties({FORMAT_KEY: str(FORMAT_VERSION)}, raise_if_not_exists=False)


def _expected() -> list[Field]:
    return list(DeltaSchema.from_arrow(TABLE_SCHEMA).fields)


def _check(table: DeltaTable, place: Path) -> None:
    found = delta.format_version(place, table, FORMAT_VERSION)
    # By name: a column that an upgrade adds stands last.
    fields = {field.name: field for field in table.schema().fields}
    expected = {field.name: field for field in _expected()}
    if found == "1":
        expected = {name: field for name, field in expected.items() if name in fields or name not in ADDED}
    if found is None or fields != expected:
        raise KIND.refusal(place, table)
