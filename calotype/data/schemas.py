"""What each table must look like, checked where it is written and where it is read.

`validate` checks everything at once and says what is wrong in a few lines; every failing value goes to a table. The
rules are polars expressions: a stage that checks a table of some rows must not import a second library of tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from calotype.data.decode import FORMATS, REJECTIONS
from calotype.data.grouping import STATUSES
from calotype.data.tables import write_table
from calotype.errors import DataError

SPLITS = ("train", "val", "test")
EXAMPLES = 3
CASES_SCHEMA = {"column": pl.String, "check": pl.String, "failure_case": pl.String, "row": pl.Int64}

_VALUE = pl.col("value")


@dataclass(frozen=True)
class Rule:
    """What each value that is there must be: a name, and an expression of ``value`` that is true."""

    name: str
    holds: pl.Expr


@dataclass(frozen=True)
class Column:
    """A column's type, the rules of its values, and whether one may lack or appear twice."""

    dtype: pl.DataType | type[pl.DataType]
    rules: tuple[Rule, ...] = ()
    nullable: bool = False
    unique: bool = False


def at_least(least: int) -> Rule:
    """No smaller number."""
    return Rule(f"greater_than_or_equal_to({least})", _VALUE.ge(least))


def one_of(values: Sequence[str]) -> Rule:
    """No other text."""
    return Rule(f"isin({list(values)})", _VALUE.is_in(list(values)))


def matching(pattern: str) -> Rule:
    """A text of this form."""
    return Rule(f"str_matches('{pattern}')", _VALUE.str.contains(pattern))


NOT_EMPTY = Rule("str_length(1, None)", _VALUE.str.len_bytes() >= 1)
PROBABILITY = Rule("in_range(0, 1)", _VALUE.is_between(0, 1))
SUM_TO_ONE = Rule("sum_to_one", (_VALUE.list.min() >= 0) & ((_VALUE.list.sum() - 1).abs() < 1e-3))

_ID = matching(r"^[0-9a-f]{64}$")
_TEXT = Column(pl.String, (NOT_EMPTY,))
_KEY = Column(pl.String, (_ID,), unique=True)
_COUNT = Column(pl.Int32, (at_least(1),))

SCHEMAS: Mapping[str, Mapping[str, Column]] = {
    "manifest": {
        "image_id": _KEY,
        "path": Column(pl.String, (NOT_EMPTY,), unique=True),
        "label": _TEXT,
        "group": Column(pl.String, nullable=True),
        "declared_split": Column(pl.String, (one_of(SPLITS),), nullable=True),
        "width": _COUNT,
        "height": _COUNT,
        "mode": _TEXT,
        "format": Column(pl.String, (one_of(FORMATS),)),
        "bytes": Column(pl.Int64, (at_least(1),)),
        "drop": _COUNT,
        "shard": Column(pl.String, (matching(r"^shard-\d{5}-\d{5}\.parquet$"),)),
        "phash": Column(pl.UInt64),
        "twins": Column(pl.List(pl.String)),
        "attributes": Column(pl.String, (matching(r"(?s)^\{.*\}$"),), nullable=True),
    },
    "rejects": {
        "path": Column(pl.String, (NOT_EMPTY,), unique=True),
        "code": Column(pl.String, (one_of(tuple(REJECTIONS)),)),
        "reason": Column(pl.String),
    },
    "splits": {
        "image_id": _KEY,
        "split": Column(pl.String, (one_of(SPLITS),), nullable=True),
        "group": Column(pl.String, nullable=True),
        "status": Column(pl.String, (one_of(tuple(STATUSES)),)),
    },
    "predictions": {
        "image_id": _KEY,
        "path": _TEXT,
        "label": _TEXT,
        "predicted": _TEXT,
        "confidence": Column(pl.Float64, (PROBABILITY,)),
        "abstained": Column(pl.Boolean),
        "probabilities": Column(pl.List(pl.Float64), (SUM_TO_ONE,)),
    },
}
"""Each table's columns, in order."""


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
    cases = _cases(_widen(frame), SCHEMAS[name])
    if cases.height:
        if failures_to is not None:
            write_table(cases, failures_to)
        raise DataError(_summary(name, frame.height, cases, failures_to))
    return frame


def _cases(frame: pl.DataFrame, schema: Mapping[str, Column]) -> pl.DataFrame:
    """Every failure, in the order of the columns; one of a whole column has no row."""
    surplus = [_case(name, "column_in_schema", name) for name in frame.columns if name not in schema]
    cases = [pl.DataFrame(schema=CASES_SCHEMA), *surplus]
    for name, column in schema.items():
        if name not in frame:
            cases.append(_case(name, "column_in_dataframe", name))
        elif frame[name].dtype != column.dtype:
            cases.append(_case(name, f"dtype('{column.dtype}')", str(frame[name].dtype)))
        else:
            cases += _failures(name, frame[name].alias("value"), column)
    if len(cases) == 1 and frame.columns != list(schema):
        cases.append(_case(frame.columns[0], "column_ordered", ", ".join(frame.columns)))
    return pl.concat(cases)


def _failures(name: str, values: pl.Series, column: Column) -> list[pl.DataFrame]:
    """The values of a column that break its rules."""
    there = values.to_frame().with_row_index("row")
    failures = {} if column.nullable else {"not_nullable": there.filter(_VALUE.is_null())}
    there = there.drop_nulls("value")
    if column.unique and values.n_unique() < len(values):
        failures["field_uniqueness"] = there.filter(_VALUE.is_duplicated())
    failures |= {rule.name: there.filter(~rule.holds.fill_null(False)) for rule in column.rules}
    return [
        found.select(
            pl.lit(name).alias("column"),
            pl.lit(check).alias("check"),
            pl.Series("failure_case", [str(value) for value in found["value"]], pl.String),
            pl.col("row").cast(pl.Int64),
        )
        for check, found in failures.items()
        if found.height
    ]


def _case(column: str, check: str, found: str) -> pl.DataFrame:
    return pl.DataFrame([(column, check, found, None)], schema=CASES_SCHEMA, orient="row")


def _widen(frame: pl.DataFrame) -> pl.DataFrame:
    """See 32-bit probabilities as 64-bit ones: both are right."""
    return frame.with_columns(
        pl.col(pl.Float32).cast(pl.Float64), pl.col(pl.List(pl.Float32)).cast(pl.List(pl.Float64))
    )


def _summary(name: str, rows: int, cases: pl.DataFrame, saved: Path | None) -> str:
    lines = [f"{name}: the table of {rows:,} rows breaks its schema. Every failure is in {saved}:"]
    if saved is None:
        lines = [f"{name}: the table of {rows:,} rows breaks its schema:"]
    grouped = cases.group_by("column", "check", maintain_order=True).agg(
        pl.len().alias("count"), pl.col("failure_case").head(EXAMPLES).alias("examples")
    )
    for row in grouped.iter_rows(named=True):
        examples = ", ".join(repr(example)[:80] for example in row["examples"])
        lines.append(f"  {row['column']}: {row['check']}: {row['count']:,} ×, such as {examples}")
    return "\n".join(lines)
