"""Rows that a Delta table takes once each, however many writers bring them at a time.

An append is a compare-and-swap (`calotype.delta`): of several writers that read the same rows one commits; the others
read again, leave out what is there by now, and try again. A commit's rows carry its moment, which rises from each
commit to the next, whatever the writers' clocks say: half-open windows over it lose no row and show none twice.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, WriterProperties
from numpy.typing import NDArray

from calotype import delta, known
from calotype.delta import Kind
from calotype.errors import CalotypeError
from calotype.known import Known

ATTEMPTS = 30
WRITER = WriterProperties(max_row_group_size=64 * 1024)
FILE_BYTES = 32 * 2**20
"""Size at which a file of the table is closed: until then its rows are in memory."""


Rows = Callable[[], Iterable[pa.RecordBatch]]


@dataclass(frozen=True)
class Keyed:
    """A table whose rows have a key.

    Parameters
    ----------
    kind
        The table.
    description
        What it holds, for its metadata.
    key
        The columns that make two rows the same.
    moment
        The column that receives the moment of the commit.
    """

    kind: Kind
    description: str
    key: tuple[str, ...]
    moment: str

    @property
    def name(self) -> str:
        """``predictions``, of the application ``calotype.predictions``."""
        return self.kind.application.rpartition(".")[2]

    @property
    def spooled(self) -> pa.Schema:
        """The columns that a writer brings: all but the moment of the commit."""
        return self.kind.schema.remove(self.kind.schema.get_field_index(self.moment))


@dataclass(frozen=True)
class Snapshot:
    """A table as it was read: the keys of its rows, and the moment of its last commit."""

    table: DeltaTable | None
    keys: Known
    last: datetime | None


@dataclass(frozen=True)
class Appended:
    """How many rows with distinct keys there were to append, and how many no other writer had appended before."""

    distinct: int
    appended: int


def read(place: str, keyed: Keyed) -> Snapshot:
    """Read the keys of a table's rows; a table that is not there has none.

    Raises
    ------
    DataError
        If something else is there: another table, a newer format, other files.
    """
    table = delta.open_checked(place, keyed.kind)
    if table is None:
        return Snapshot(None, known.NONE, None)
    return _snapshot(table, keyed)


def append(place: str, keyed: Keyed, rows: Rows) -> Appended:
    """Append the rows that the table does not hold, in one transaction; of rows with equal keys the first.

    Parameters
    ----------
    place
        The table's folder or URL; made if absent.
    keyed
        The table and its key.
    rows
        Gives the rows, of ``keyed.spooled``, in batches; asked anew for each attempt.

    Raises
    ------
    CalotypeError
        If other writers came first ``ATTEMPTS`` times.
    """
    digests = known.digests_in(rows(), keyed.key)
    is_first = known.first_of_each(digests)
    distinct = int(is_first.sum())
    if not distinct:
        return Appended(0, 0)
    for attempt in range(ATTEMPTS):
        table = delta.made(place, keyed.kind, keyed.name, keyed.description)
        found = _snapshot(table, keyed)
        is_new = is_first & ~found.keys.holds(digests)
        new = int(is_new.sum())
        if not new or _commit(table, keyed, _chosen(rows(), is_new), _next_moment(found.last)):
            return Appended(distinct, new)
        time.sleep(random.uniform(0, 0.05 * (attempt + 1)))
    raise CalotypeError(
        f"{place}: {ATTEMPTS} attempts to append met other writers, each ahead of this one. Nothing was appended; "
        "run it again when they have ended."
    )


def _snapshot(table: DeltaTable, keyed: Keyed) -> Snapshot:
    last: datetime | None = None

    def seen(scanned: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        nonlocal last
        for batch in scanned:
            moment = pc.max(batch[keyed.moment]).as_py()
            last = moment if last is None else max(last, moment)
            yield batch

    columns = dict.fromkeys((*keyed.key, keyed.moment))
    digests = known.digests_in(seen(delta.batches(table, keyed.kind, columns)), keyed.key)
    return Snapshot(table, Known(digests), last)


def _next_moment(last: datetime | None) -> datetime:
    now = datetime.now(UTC)
    return now if last is None else max(now, last + timedelta(microseconds=1))


def _chosen(rows: Iterable[pa.RecordBatch], is_chosen: NDArray[np.bool_]) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in rows:
        mask = is_chosen[start : start + batch.num_rows]
        start += batch.num_rows
        if mask.any():
            yield batch.filter(pa.array(mask))


def _commit(table: DeltaTable, keyed: Keyed, rows: Iterator[pa.RecordBatch], moment: datetime) -> bool:
    """Commit through the snapshot that was read; False if another writer was first."""
    schema = keyed.kind.schema
    stamped = (_stamped(batch, schema, keyed.moment, moment) for batch in rows)
    reader = pa.RecordBatchReader.from_batches(schema, stamped)
    return delta.append(table, keyed.kind, reader, writer_properties=WRITER, target_file_size=FILE_BYTES)


def _stamped(batch: pa.RecordBatch, schema: pa.Schema, name: str, moment: datetime) -> pa.RecordBatch:
    columns = {**dict(zip(batch.schema.names, batch.columns, strict=True))}
    columns[name] = pa.repeat(pa.scalar(moment, schema.field(name).type), batch.num_rows)
    return pa.RecordBatch.from_arrays([columns[one.name].cast(one.type) for one in schema], schema=schema)
