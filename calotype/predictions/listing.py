"""`calotype predictions show`: files with their answers, chosen as a person would choose them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow.dataset as ds

from calotype.delta import batches
from calotype.errors import UsageError
from calotype.predictions.prediction_rows import PREDICTED, REJECTED
from calotype.predictions.reading import ANSWER_BATCH, Tables, joined
from calotype.predictions.tables import CHAMPION, FILES, SHADOW

ANSWER = ("role", "label", "confidence", "abstained", "model_version", ANSWER_BATCH)


@dataclass(frozen=True)
class Wanted:
    """Which rows to show: all conditions that are given hold together.

    Parameters
    ----------
    path
        A glob over the whole path below the inbox; ``*`` crosses folders.
    image_id
        How the digest begins.
    label
        The answer.
    below
        Confidences below this, the least confident first.
    abstained
        Only answers that are withheld.
    rejected
        Only files that could not be read when they were last seen: what was mended since has a later version.
    batch
        The batch that saw the file, or that answered.
    role
        Whose answers: `champion`, or `shadow`.
    limit
        So many rows at most.
    """

    path: str | None = None
    image_id: str | None = None
    label: str | None = None
    below: float | None = None
    abstained: bool = False
    rejected: bool = False
    batch: str | None = None
    role: str = CHAMPION
    limit: int = 20


def check_role(role: str) -> None:
    """Refuse, before any work, a role that no model has.

    Raises
    ------
    UsageError
        Naming the roles.
    """
    if role not in (CHAMPION, SHADOW):
        raise UsageError(f"--role: found {role!r}; expected {CHAMPION} or {SHADOW}.")


def find(tables: Tables, wanted: Wanted) -> tuple[list[dict[str, Any]], int]:
    """The rows to show, and how many there are of their kind.

    The newest come first; where `below` is given, the least confident.
    """
    check_role(wanted.role)
    where = pl.all_horizontal(pl.lit(True), *_conditions(wanted))
    unreadable = _unreadable(tables) if wanted.rejected else None
    best: pl.DataFrame | None = None
    count = 0
    for batch in joined(tables, ANSWER, wanted.role):
        rows = pl.DataFrame(batch).filter(where)
        if unreadable is not None:
            rows = rows.join(unreadable, on=["path", "seen_at"], how="semi")
        count += rows.height
        best = _first(rows if best is None else pl.concat([best, rows]), wanted)
    return ([] if best is None else best.to_dicts()), count


def _unreadable(tables: Tables) -> pl.DataFrame:
    """Paths whose last version was rejected, with its moment; memory grows with what was ever rejected."""
    columns = ["path", "seen_at"]
    found = [pl.DataFrame(batch) for batch in batches(tables.files, FILES, columns, ds.field("status") == REJECTED)]
    if not found:
        return pl.DataFrame(schema={"path": pl.String, "seen_at": pl.Datetime("us", "UTC")})
    last = pl.concat(found).group_by("path").agg(pl.col("seen_at").max())
    for batch in batches(tables.files, FILES, columns, ds.field("status") == PREDICTED):
        since = pl.DataFrame(batch).rename({"seen_at": "mended_at"}).join(last, on="path")
        last = last.join(since.filter(pl.col("mended_at") > pl.col("seen_at")), on="path", how="anti")
    return last


def _first(rows: pl.DataFrame, wanted: Wanted) -> pl.DataFrame:
    if wanted.below is not None:
        return rows.sort("confidence", "seen_at", "path").head(wanted.limit)
    return rows.sort("seen_at", "path", descending=[True, False]).head(wanted.limit)


def _conditions(wanted: Wanted) -> list[pl.Expr]:
    column = pl.col
    found: list[pl.Expr] = []
    if wanted.path is not None:
        found.append(column("path").str.contains(_pattern(wanted.path)))
    if wanted.image_id is not None:
        found.append(column("image_id").str.starts_with(wanted.image_id.lower()).fill_null(False))
    if wanted.label is not None:
        found.append(column("label").eq_missing(wanted.label))
    if wanted.below is not None:
        found.append((column("confidence") < wanted.below).fill_null(False))
    if wanted.abstained:
        found.append(column("abstained").fill_null(False))
    if wanted.rejected:
        found.append(column("status") == REJECTED)
    if wanted.batch is not None:
        found.append((column("batch_id") == wanted.batch) | column(ANSWER_BATCH).eq_missing(wanted.batch))
    if wanted.role == SHADOW:
        found.append(column("label").is_not_null())
    return found


def _pattern(glob: str) -> str:
    """A glob as a regular expression of polars, whose engine lacks what `fnmatch.translate` writes."""
    signs = {"*": ".*", "?": "."}
    return "^(?s:" + "".join(signs.get(letter, re.escape(letter)) for letter in glob) + ")$"
