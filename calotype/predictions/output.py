"""Rows into a file: Parquet, CSV or JSON lines, by the file's suffix; the file appears whole or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from calotype.errors import UsageError
from calotype.files import replacing

Batches = Iterable[pa.RecordBatch]

ROWS_AT_ONCE = 16_384
"""Rows of a Parquet file's row group: many small ones would fill memory with their descriptions."""

DIGITS = 7
"""Decimal places of a float32 probability in text."""


def check_output(to: Path) -> None:
    """Refuse, before any work, a place where rows cannot be written.

    Raises
    ------
    UsageError
        If the suffix names no known format, or the place is a folder.
    """
    if to.suffix.lower() not in WRITERS:
        known = ", ".join(WRITERS)
        raise UsageError(f"--to {to}: found the suffix {to.suffix or 'none'!r}; expected one of {known}.")
    if to.is_dir():
        raise UsageError(f"--to {to}: found a folder; expected the name of a file. Name a file inside it.")
    if not to.absolute().parent.is_dir():
        raise UsageError(f"--to {to}: its folder does not exist; expected one that does. Make it, or correct the path.")


def write(batches: Batches, schema: pa.Schema, to: Path) -> None:
    """Write the rows as they come; memory holds `ROWS_AT_ONCE` of them."""
    check_output(to)
    with replacing(to) as temporary:
        WRITERS[to.suffix.lower()](batches, schema, temporary)


def _write_parquet(batches: Batches, schema: pa.Schema, file: Path) -> None:
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in _gathered(batches, schema):
            writer.write_table(rows, row_group_size=rows.num_rows)


def _gathered(batches: Batches, schema: pa.Schema) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    # A batch of images that are all known has no rows; Parquet knows no row group of none.
    for batch in (one for one in batches if one.num_rows):
        held.append(batch)
        if sum(one.num_rows for one in held) >= ROWS_AT_ONCE:
            yield pa.Table.from_batches(held, schema)
            held = []
    if held:
        yield pa.Table.from_batches(held, schema)


def _write_csv(batches: Batches, schema: pa.Schema, file: Path) -> None:
    with file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(schema.names)
        for batch in batches:
            columns = {name: batch.column(name) for name in schema.names}
            columns["confidence"] = _rounded(columns["confidence"])
            texts = {"probabilities": _texts(columns.pop("probabilities"))}
            texts |= {name: column.to_pylist() for name, column in columns.items()}
            writer.writerows(zip(*(texts[name] for name in schema.names), strict=True))


def _texts(maps: pa.MapArray) -> list[str | None]:
    """Maps as JSON, a text for each set of names filled in row by row: `json.dumps` takes three times as long."""
    ends = maps.offsets.to_pylist()
    entries = slice(ends[0], ends[-1])
    names, values = maps.keys[entries].to_pylist(), _rounded(maps.items[entries]).to_pylist()
    texts: list[str | None] = []
    known: dict[tuple[str, ...], str] = {}
    for start, end in pairwise(end - ends[0] for end in ends):
        key = tuple(names[start:end])
        if key not in known:
            quoted = (json.dumps(name, ensure_ascii=False).replace("%", "%%") for name in key)
            known[key] = "{" + ", ".join(f"{name}: %r" for name in quoted) + "}"
        texts.append(known[key] % tuple(values[start:end]) if key else None)
    return texts


def _rounded(floats: pa.Array) -> pa.Array:
    return pc.round(floats.cast(pa.float64()), DIGITS)


def _write_jsonl(batches: Batches, _: pa.Schema, file: Path) -> None:
    with file.open("w", encoding="utf-8", newline="\n") as text:
        for batch in batches:
            for row in batch.to_pylist():
                text.write(json.dumps(_plain(row), ensure_ascii=False) + "\n")


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Floats shortened to what a float32 holds, the map as a mapping."""
    if row["probabilities"] is None:
        return row
    probabilities = {name: round(value, DIGITS) for name, value in row["probabilities"]}
    return row | {"confidence": round(row["confidence"], DIGITS), "probabilities": probabilities}


WRITERS: dict[str, Callable[[Batches, pa.Schema, Path], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
}
