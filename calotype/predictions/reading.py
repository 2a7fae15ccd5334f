"""Reading the tables of production: opened and checked, in batches, each content with the answer that holds for it.

Memory does not grow with a table. Where rows of one content must meet, contents are taken a share at a time, by the
first digits of their digests: a share's answers are held, all else streams past.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable

from calotype import delta
from calotype.delta import Kind, batches
from calotype.errors import DataError
from calotype.predictions.tables import CHAMPION, FILES, PREDICTIONS
from calotype.project import Project

SHARE_BYTES = 256 * 2**20
"""Answers that are held at a time. Each share reads the table once more: 200,000 rows of 1 kB are one share."""

ANSWER_BATCH = "answered_in"
"""What the answer's batch is called beside the file's own."""


@dataclass(frozen=True)
class Tables:
    """The two tables as they stood in one snapshot each; None where there is none yet."""

    files: DeltaTable | None
    predictions: DeltaTable | None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was predicted or rejected yet."""
        return not any(table is not None and table.count() for table in (self.files, self.predictions))


def open_tables(project: Project) -> Tables:
    """Open both tables; files first, because a batch commits its answers before the files that they are of.

    Raises
    ------
    DataError
        If something else is there: another table, a newer format, other files.
    CalotypeError
        If the place cannot be reached.
    """
    files = open_checked(project, "files", FILES)
    return Tables(files, open_checked(project, "predictions", PREDICTIONS))


def open_checked(project: Project, name: str, kind: Kind) -> DeltaTable | None:
    """Open one table of production, or None where there is none yet; raises as `open_tables`."""
    refuse_older_table(project)
    place = project.table(name)
    return delta.open_checked(place, kind, project.relative(place))


def refuse_older_table(project: Project) -> None:
    """Earlier versions kept one table, of predictions by file, where both tables' folder is now.

    Raises
    ------
    DataError
        If it is there.
    """
    if delta.is_table(project.predictions):
        raise DataError(
            f"{project.relative(project.predictions)}: found the one table that calotype 0.1 kept there; expected a "
            "folder for the tables `predictions` and `files`. Move it away, or set CALOTYPE_PREDICT_OUTPUT; what the "
            "inbox still holds is then predicted anew."
        )


def shares(table: DeltaTable | None, kind: Kind, columns: Sequence[str]) -> list[ds.Expression]:
    """Conditions that part a table's rows by image_id, so that each part's columns fit into `SHARE_BYTES`."""
    image_id = ds.field("image_id")
    sample = next(batches(table, kind, columns), None)
    size = 0.0 if sample is None else sample.nbytes / sample.num_rows
    count = 1 if table is None else max(1, math.ceil(size * table.count() / SHARE_BYTES))
    edges = [f"{place * 16**4 // count:04x}" for place in range(1, count)]
    parts = [image_id >= low for low in ["", *edges]]
    return [part & (image_id < high) for part, high in zip(parts, edges, strict=False)] + parts[-1:]


def holding(rows: pa.Table) -> pa.Table:
    """Of several rows of one content the latest: what a new champion was asked again stands for the content."""
    keys = pl.DataFrame({name: pl.Series(rows[name]) for name in ("image_id", "predicted_at")}).with_row_index()
    kept = keys.sort("predicted_at", maintain_order=True).unique("image_id", keep="last")["index"].sort()
    return rows if len(kept) == rows.num_rows else rows.take(kept.to_arrow())


def joined(tables: Tables, columns: Sequence[str], role: str = CHAMPION) -> Iterator[pa.RecordBatch]:
    """Every version of a file that was seen, with its content's answer; nulls where there is none.

    Parameters
    ----------
    tables
        The two tables.
    columns
        Of the answers; `ANSWER_BATCH` is their batch_id.
    role
        Whose answers.

    Yields
    ------
    pyarrow.RecordBatch
        Of `joined_schema`; in no promised order.
    """
    read = ["image_id", "predicted_at", *("batch_id" if name == ANSWER_BATCH else name for name in columns)]
    read = list(dict.fromkeys(read))
    schema = joined_schema(columns)
    for number, part in enumerate(shares(tables.predictions, PREDICTIONS, read)):
        found = list(batches(tables.predictions, PREDICTIONS, read, part & (ds.field("role") == role)))
        empty = pa.schema([PREDICTIONS.schema.field(name) for name in read])
        answers = holding(pa.Table.from_batches(found, found[0].schema if found else empty)).combine_chunks()
        # What could not be read has no digest; it comes once, with the first share.
        mine = part | ds.field("image_id").is_null() if number == 0 else part
        for batch in batches(tables.files, FILES, FILES.schema.names, mine):
            yield _beside(batch, answers, columns, schema)


def joined_schema(columns: Sequence[str]) -> pa.Schema:
    """The columns of `joined`: those of the table of files, then those of the answers."""
    fields = {field.name: field.with_nullable(True) for field in PREDICTIONS.schema}
    fields[ANSWER_BATCH] = fields["batch_id"].with_name(ANSWER_BATCH)
    return pa.schema([*FILES.schema, *(fields[name] for name in columns)])


def _beside(batch: pa.RecordBatch, answers: pa.Table, columns: Sequence[str], schema: pa.Schema) -> pa.RecordBatch:
    ids: Any = answers["image_id"].combine_chunks()
    taken = answers.take(pc.index_in(batch["image_id"], value_set=ids))
    found = {name: batch[name] for name in FILES.schema.names}
    found |= {name: _one(taken["batch_id" if name == ANSWER_BATCH else name]) for name in columns}
    arrays = [found[field.name].cast(field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
