"""`calotype predictions export`: every file version with its content's answer, in one file for any tool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from calotype.predictions import listing, output
from calotype.predictions.reading import ANSWER_BATCH, Tables, joined, joined_schema
from calotype.predictions.tables import CHAMPION, PREDICTIONS

BESIDE_FILES = ("image_id", "path", "batch_id")
"""Columns that the table of files has already."""

ANSWER = (*(name for name in PREDICTIONS.schema.names if name not in BESIDE_FILES), ANSWER_BATCH)
EMBEDDING = "embedding"
TEXT = (".csv", ".jsonl")


def export(tables: Tables, to: Path, role: str = CHAMPION) -> int:
    """Write one row for each file version, joined with its content's answer; the number of rows.

    CSV has no lists, so the embedding is left out of it; text has moments as ISO 8601.

    Raises
    ------
    UsageError
        If the suffix names no known format, or the role no role.
    """
    listing.check_role(role)
    output.check_output(to)
    suffix = to.suffix.lower()
    columns = [name for name in ANSWER if suffix != ".csv" or name != EMBEDDING]
    count = 0

    def rows() -> Iterator[pa.RecordBatch]:
        nonlocal count
        for batch in joined(tables, columns, role):
            count += batch.num_rows
            yield _as_text(batch) if suffix in TEXT else batch

    output.write(rows(), joined_schema(columns), to)
    return count


def _as_text(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Moments as ISO 8601, and single floats with the digits that they hold."""
    columns = {}
    for field in batch.schema:
        column = batch[field.name]
        if pa.types.is_timestamp(field.type):
            # By way of a moment without a zone: that needs no database of zones.
            plain = column.cast(pa.timestamp("us")).cast(pa.string())
            column = pc.binary_join_element_wise(pc.replace_substring(plain, " ", "T"), "Z", "")
        elif pa.types.is_float32(field.type) and field.name != "confidence":
            column = pc.round(column.cast(pa.float64()), output.DIGITS)
        columns[field.name] = column
    return pa.RecordBatch.from_pydict(columns)
