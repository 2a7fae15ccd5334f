"""The Delta table of scheduled predictions: appended to exactly once, however many batches run at a time.

Every append carries one application id with a rising number, and is committed through the very snapshot in which the
known rows were read. Of several writers that read the same snapshot one commits; the others read again, leave out what
is there by now, and try again. A table of an older version gets the columns that were added since, its old rows without
a value in them.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.schema import Field
from numpy.typing import NDArray

from calotype.errors import CalotypeError, DataError
from calotype.predictions import known
from calotype.predictions.known import Digests, Known
from calotype.predictions.prediction_rows import SCHEMA

FORMAT_VERSION = 3
FORMAT_KEY = "calotype.format_version"
APPLICATION = "calotype.predictions"
ATTEMPTS = 30
LACKING = {"1": ("abstained", "engine"), "2": ("engine",)}
"""Columns that older versions lack."""

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


def open_table(place: Path) -> DeltaTable | None:
    """Open the table, or None where there is none yet.

    Raises
    ------
    DataError
        If something else is there: another table, a newer format, other files.
    """
    try:
        table = DeltaTable(place)
    except TableNotFoundError as error:
        if place.is_file() or (place.is_dir() and any(place.iterdir()) and not (place / "_delta_log").is_dir()):
            raise DataError(
                f"{place}: found files that are no Delta table; expected the table of predictions or nothing. "
                "Move them away, or set CALOTYPE_PREDICT_OUTPUT."
            ) from error
        return None
    _check(table, place)
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
        if not _is_up_to_date(table):
            _upgrade(table)
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
    number = (table.transaction_version(APPLICATION) or 0) + 1
    transaction = CommitProperties(app_transactions=[Transaction(APPLICATION, number)])
    reader = pa.RecordBatchReader.from_batches(TABLE_SCHEMA, rows)
    try:
        write_deltalake(
            table,
            reader,
            mode="append",
            commit_properties=transaction,
            writer_properties=WRITER,
            target_file_size=FILE_BYTES,
        )
    except CommitFailedError:
        return False
    return True


def _create(place: Path) -> DeltaTable:
    place.parent.mkdir(parents=True, exist_ok=True)
    # Another batch may make the table at this moment: then it is there below.
    with contextlib.suppress(DeltaError):
        DeltaTable.create(
            place,
            schema=DeltaSchema.from_arrow(TABLE_SCHEMA),
            mode="ignore",
            name="predictions",
            description="One row for each image seen by a scheduled batch prediction",
            configuration={FORMAT_KEY: str(FORMAT_VERSION)},
            raise_if_key_not_exists=False,
        )
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
    found = table.metadata().configuration.get(FORMAT_KEY)
    if found is not None and found.isdigit() and int(found) > FORMAT_VERSION:
        raise DataError(f"{place}: format_version is {found}; this calotype writes {FORMAT_VERSION}. Upgrade it.")
    # By name: a column that an upgrade adds stands last.
    fields = {field.name: field for field in table.schema().fields}
    expected = {field.name: field for field in _expected()}
    added = LACKING.get(found or "", ())
    expected = {name: field for name, field in expected.items() if name in fields or name not in added}
    if fields != expected or found is None:
        raise DataError(
            f"{place}: found a table with the columns {', '.join(fields)}; expected the table of predictions "
            f"({', '.join(TABLE_SCHEMA.names)}). Set CALOTYPE_PREDICT_OUTPUT to another place."
        )
