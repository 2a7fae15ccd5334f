"""What each table must look like, checked where it is written and where it is read.

`validate` checks everything at once and says what is wrong in a few lines; every failing value goes to a table.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from calotype.data.decode import FORMATS, REJECTIONS
from calotype.data.grouping import STATUSES
from calotype.data.tables import write_table
from calotype.errors import DataError

if TYPE_CHECKING:
    import pandera.polars as pa

SPLITS = ("train", "val", "test")
EXAMPLES = 3
_ID = r"^[0-9a-f]{64}$"
_SHARD = r"^shard-\d{5}-\d{5}\.parquet$"


def validate(name: str, frame: pl.DataFrame, failures_to: Path | None = None) -> pl.DataFrame:
    """Check a table against its schema and return it.

    Parameters
    ----------
    name
        ``manifest``, ``rejects``, ``splits`` or ``predictions``.
    frame
        The table.
    failures_to
        Where every failing value is written as Parquet; nowhere if None.

    Raises
    ------
    DataError
        With the number of failures for each column and check, and up to three examples of each.
    """
    from pandera.errors import SchemaErrors

    try:
        _SCHEMAS[name]().validate(_widen(frame), lazy=True)
    except SchemaErrors as error:
        cases = _readable(error.failure_cases)
        if failures_to is not None:
            write_table(cases, failures_to)
        raise DataError(_summary(name, frame.height, cases, failures_to)) from error
    return frame


def _manifest() -> pa.DataFrameSchema:
    import pandera.polars as pa

    return pa.DataFrameSchema(
        {
            "image_id": pa.Column(pl.String, pa.Check.str_matches(_ID), unique=True),
            "path": pa.Column(pl.String, pa.Check.str_length(min_value=1), unique=True),
            "label": pa.Column(pl.String, pa.Check.str_length(min_value=1)),
            "group": pa.Column(pl.String, nullable=True),
            "declared_split": pa.Column(pl.String, pa.Check.isin(SPLITS), nullable=True),
            "width": pa.Column(pl.Int32, pa.Check.ge(1)),
            "height": pa.Column(pl.Int32, pa.Check.ge(1)),
            "mode": pa.Column(pl.String, pa.Check.str_length(min_value=1)),
            "format": pa.Column(pl.String, pa.Check.isin(FORMATS)),
            "bytes": pa.Column(pl.Int64, pa.Check.ge(1)),
            "drop": pa.Column(pl.Int32, pa.Check.ge(1)),
            "shard": pa.Column(pl.String, pa.Check.str_matches(_SHARD)),
            "phash": pa.Column(pl.UInt64),
            "twins": pa.Column(pl.List(pl.String)),
            "attributes": pa.Column(pl.String, pa.Check.str_matches(r"^\{.*\}$"), nullable=True),
        },
        strict=True,
        ordered=True,
    )


def _rejects() -> pa.DataFrameSchema:
    import pandera.polars as pa

    return pa.DataFrameSchema(
        {
            "path": pa.Column(pl.String, pa.Check.str_length(min_value=1), unique=True),
            "code": pa.Column(pl.String, pa.Check.isin(list(REJECTIONS))),
            "reason": pa.Column(pl.String),
        },
        strict=True,
        ordered=True,
    )


def _splits() -> pa.DataFrameSchema:
    import pandera.polars as pa

    return pa.DataFrameSchema(
        {
            "image_id": pa.Column(pl.String, pa.Check.str_matches(_ID), unique=True),
            "split": pa.Column(pl.String, pa.Check.isin(SPLITS), nullable=True),
            "group": pa.Column(pl.String, nullable=True),
            "status": pa.Column(pl.String, pa.Check.isin(list(STATUSES))),
        },
        strict=True,
        ordered=True,
    )


def _predictions() -> pa.DataFrameSchema:
    import pandera.polars as pa

    return pa.DataFrameSchema(
        {
            "image_id": pa.Column(pl.String, pa.Check.str_matches(_ID), unique=True),
            "path": pa.Column(pl.String, pa.Check.str_length(min_value=1)),
            "label": pa.Column(pl.String, pa.Check.str_length(min_value=1)),
            "predicted": pa.Column(pl.String, pa.Check.str_length(min_value=1)),
            "confidence": pa.Column(pl.Float64, pa.Check.in_range(0, 1)),
            "abstained": pa.Column(pl.Boolean),
            "probabilities": pa.Column(pl.List(pl.Float64), pa.Check(_sum_to_one, name="sum_to_one")),
        },
        strict=True,
        ordered=True,
    )


_SCHEMAS: dict[str, Callable[[], pa.DataFrameSchema]] = {
    "manifest": _manifest,
    "rejects": _rejects,
    "splits": _splits,
    "predictions": _predictions,
}


def _sum_to_one(data: Any) -> pl.LazyFrame:
    total = pl.col(data.key).list.sum()
    in_range = (pl.col(data.key).list.min() >= 0) & ((total - 1).abs() < 1e-3)
    frame: pl.LazyFrame = data.lazyframe.select(in_range.fill_null(False))
    return frame


def _widen(frame: pl.DataFrame) -> pl.DataFrame:
    """See 32-bit probabilities as 64-bit ones: both are right."""
    return frame.with_columns(
        pl.col(pl.Float32).cast(pl.Float64), pl.col(pl.List(pl.Float32)).cast(pl.List(pl.Float64))
    )


def _readable(cases: pl.DataFrame) -> pl.DataFrame:
    return cases.select(
        pl.col("column").cast(pl.String),
        pl.col("check").cast(pl.String),
        pl.col("failure_case").cast(pl.String),
        pl.col("index").cast(pl.Int64, strict=False).alias("row"),
    )


def _summary(name: str, rows: int, cases: pl.DataFrame, saved: Path | None) -> str:
    where = "" if saved is None else f". Every failure is in {saved}"
    lines = [f"{name}: the table of {rows:,} {'row' if rows == 1 else 'rows'} breaks its schema{where}:"]
    grouped = cases.group_by("column", "check", maintain_order=True).agg(
        pl.len().alias("count"), pl.col("failure_case").head(EXAMPLES).alias("examples")
    )
    for row in grouped.iter_rows(named=True):
        examples = ", ".join(repr(example)[:80] for example in row["examples"])
        lines.append(f"  {row['column']}: {row['check']}: {row['count']:,} ×, such as {examples}")
    return "\n".join(lines)
