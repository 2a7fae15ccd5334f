"""The Delta table of scheduled predictions: appended to exactly once, however many batches run at a time.

An append is a compare-and-swap (`calotype.delta`): of several writers that read the same known rows one commits; the
others read again, leave out what is there by now, and try again. A table of an older version gets the columns that were
added since, its old rows without a value in them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, WriterProperties
from numpy.typing import NDArray

from calotype import delta
from calotype.delta import Kind
from calotype.errors import CalotypeError
from calotype.predictions import known
from calotype.predictions.known import Digests, Known
from calotype.predictions.prediction_rows import SCHEMA

APPLICATION = "calotype.predictions"
ATTEMPTS = 30
ROWS_AT_ONCE = 8192
WRITER = WriterProperties(max_row_group_size=64 * 1024)
FILE_BYTES = 32 * 2**20
"""Size at which a file of the table is closed: until then its rows are in memory."""

TABLE_SCHEMA = pa.schema(
    [
        *SCHEMA,
        pa.field("batch_id", pa.string(), nullable=False),
        pa.field("predicted_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)

KIND = Kind(
    "the table of predictions",
    "CALOTYPE_PREDICT_OUTPUT",
    APPLICATION,
    TABLE_SCHEMA,
    format_version=3,
    lacking={"1": ("abstained", "engine"), "2": ("engine",)},
)


def open_table(place: Path) -> DeltaTable | None:
    """Open the table, or None where there is none yet.

    Raises
    ------
    DataError
        If something else is there: another table, a newer format, other files.
    """
    table = delta.open_table(place, KIND)
    if table is not None:
        delta.check(place, table, KIND)
    return table


def known_keys(table: DeltaTable | None) -> Known:
    """Path and image_id of every row."""
    if table is None:
        return known.NONE
    rows = table.to_pyarrow_dataset().to_batches(
        columns=["path", "image_id"], batch_size=ROWS_AT_ONCE, batch_readahead=1, fragment_readahead=1
    )
    return Known(known.digests_in(rows))


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
    digests = known.digests_in(_batches(spool, ["path", "image_id"]))
    for attempt in range(ATTEMPTS):
        table = open_table(place) or _create(place)
        if not delta.is_up_to_date(table, KIND):
            delta.upgrade(table, KIND)
            continue
        is_new = _first_of_each(digests) & ~known_keys(table).holds(digests)
        new = int(is_new.sum())
        if not new:
            return 0
        if _commit(table, _chosen(spool, is_new)):
            return new
        time.sleep(random.uniform(0, 0.05 * (attempt + 1)))
    raise CalotypeError(
        f"{place}: {ATTEMPTS} attempts to append met other writers, each ahead of this one. Nothing was appended; "
        "run the batch again when they have ended."
    )


def _first_of_each(digests: Digests) -> NDArray[np.bool_]:
    is_first = np.zeros(len(digests), dtype=np.bool_)
    is_first[np.unique(digests, return_index=True)[1]] = True
    return is_first


def _chosen(spool: Path, is_chosen: NDArray[np.bool_]) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in _batches(spool):
        mask = is_chosen[start : start + batch.num_rows]
        start += batch.num_rows
        if mask.any():
            yield batch.filter(pa.array(mask)).cast(TABLE_SCHEMA)


def _batches(spool: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(spool) as file:
        yield from file.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns)


def _commit(table: DeltaTable, rows: Iterator[pa.RecordBatch]) -> bool:
    """Commit through the snapshot that was read; False if another writer was first."""
    reader = pa.RecordBatchReader.from_batches(TABLE_SCHEMA, rows)
    return delta.append(table, KIND, reader, writer_properties=WRITER, target_file_size=FILE_BYTES)


def _create(place: Path) -> DeltaTable:
    place.parent.mkdir(parents=True, exist_ok=True)
    description = "One row for each image seen by a scheduled batch prediction"
    delta.create(place, KIND, "predictions", description)
    table = open_table(place)
    if table is None:
        raise CalotypeError(f"{place}: the table of predictions cannot be made. Check the folder's permissions.")
    return table
