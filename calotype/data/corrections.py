"""Corrected labels: a CSV that a person filled in, applied to what the source says. Pure rules on tables, no files.

The table has a column ``corrected`` and names images by ``image_id``, or by ``path`` where that is empty. Rows with an
empty ``corrected`` change nothing, so that a list of suspects can be given back with a few cells filled in; other
columns are ignored. A label belongs to an image, that is to equal bytes: every file of it is corrected.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from calotype.counted import counted
from calotype.data.curation import listed
from calotype.errors import DataError
from calotype.sources.table import normal_path, read_csv

SCHEMA = {"image_id": pl.String, "path": pl.String, "from": pl.String, "to": pl.String}
"""What corrections.parquet holds: the labels that were changed, sorted by image_id."""

COLUMN = "corrected"
NAMING = ("image_id", "path")
SHOWN = 10


class Correction(NamedTuple):
    """One row that changes a label: its number as an editor counts lines, the image, the label."""

    number: int
    image_id: str
    path: str
    label: str

    @property
    def shown(self) -> str:
        """The image as the row names it."""
        return self.path or f"{self.image_id[:12]}…"


@dataclass(frozen=True)
class Corrections:
    """The rows of a table that change a label, and what a message calls the table."""

    name: str
    rows: tuple[Correction, ...]


def read(data: bytes, name: str) -> Corrections:
    """Read a table of corrections.

    Raises
    ------
    DataError
        If it is no CSV, lacks a column, or has a label for no image.
    """
    columns, numbers = read_csv(data, name)
    if COLUMN not in columns or not set(NAMING) & set(columns):
        found = ", ".join(columns)[:200] or "none"
        raise DataError(f"{name}: found the columns {found}; expected {COLUMN}, and image_id or path. Add them.")
    empty = [""] * len(numbers)
    cells = [[cell.strip() for cell in columns.get(column, empty)] for column in (*NAMING, COLUMN)]
    rows = [
        Correction(number, image_id.lower(), normal_path(path), label)
        for number, image_id, path, label in zip(numbers, *cells, strict=True)
        if label
    ]
    nameless = [row.number for row in rows if not (row.image_id or row.path)]
    if nameless:
        raise DataError(
            f"{name}: {_rows(nameless)} a corrected label but no image. Fill the column image_id or path, or empty the "
            f"column {COLUMN}."
        )
    return Corrections(name, tuple(rows))


def apply(corrections: Corrections, entries: pl.DataFrame, empty_classes: Collection[str] = ()) -> pl.DataFrame:
    """Give each file the label that its image is corrected to.

    Parameters
    ----------
    corrections
        Rows of the table.
    entries
        Readable files of the source: image_id, path, label and more.
    empty_classes
        Classes that the source has no image of.

    Returns
    -------
    polars.DataFrame
        The same files, with `label` corrected and `source_label` as the source says.

    Raises
    ------
    DataError
        Naming every row that names no image, gives an image two labels, or a label that is no class.
    """
    if not corrections.rows:
        return entries.with_columns(pl.col("label").alias("source_label"))
    ids = dict(entries.select("path", "image_id").iter_rows()) if any(row.path for row in corrections.rows) else {}
    known = set(entries["image_id"])
    meant = [(row, row.image_id or ids.get(row.path, "")) for row in corrections.rows]
    problems = [
        *_strangers([row for row, image_id in meant if image_id not in known]),
        *_contradictions(meant),
        *_unknown_labels(corrections.rows, {*entries["label"], *empty_classes}),
    ]
    if problems:
        raise DataError("\n".join(f"{corrections.name}: {problem}" for problem in problems))
    table = pl.DataFrame(
        list({image_id: row.label for row, image_id in meant}.items()),
        schema={"image_id": pl.String, "corrected": pl.String},
        orient="row",
    )
    return (
        entries.join(table, on="image_id", how="left", maintain_order="left")
        .with_columns(pl.col("label").alias("source_label"), pl.coalesce("corrected", "label").alias("label"))
        .drop("corrected")
    )


def applied(kept: pl.DataFrame) -> pl.DataFrame:
    """List the labels that were changed: image_id, path, from, to; sorted by image_id."""
    changed = kept.filter(pl.col("label") != pl.col("source_label"))
    return changed.select("image_id", "path", pl.col("source_label").alias("from"), pl.col("label").alias("to")).sort(
        "image_id"
    )


def _strangers(rows: Sequence[Correction]) -> list[str]:
    if not rows:
        return []
    names = ", ".join(f"row {row.number}: {row.shown}" for row in rows[:SHOWN])
    more = f", … and {len(rows) - SHOWN:,} more" if len(rows) > SHOWN else ""
    images = "1 row names an image" if len(rows) == 1 else f"{len(rows):,} rows name images"
    return [f"{images} that the source does not hold, or that cannot be read ({names}{more}). Mend or remove them."]


def _contradictions(meant: Sequence[tuple[Correction, str]]) -> list[str]:
    first: dict[str, Correction] = {}
    problems = []
    for row, image_id in meant:
        other = first.setdefault(image_id, row)
        if image_id and other.label != row.label:
            problems.append(
                f"rows {other.number} and {row.number} correct the image {row.shown} to {other.label!r} and to "
                f"{row.label!r}. Keep one of them."
            )
    return _cut(problems)


def _unknown_labels(rows: Sequence[Correction], classes: set[str]) -> list[str]:
    problems = []
    for label in dict.fromkeys(row.label for row in rows if row.label not in classes):
        numbers = [row.number for row in rows if row.label == label]
        close = difflib.get_close_matches(label, sorted(classes), n=1)
        known = f"the nearest is {close[0]!r}" if close else f"known are {listed(sorted(classes))}"
        problems.append(
            f"{_rows(numbers)} the label {label!r}, which is no class of the source; {known}. "
            f"Mend the label; a new class needs an image in the source."
        )
    return _cut(problems)


def _rows(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
    return f"row {shown} has" if len(numbers) == 1 else f"{len(numbers):,} rows ({shown}) have"


def _cut(problems: list[str]) -> list[str]:
    if len(problems) <= SHOWN:
        return problems
    return [*problems[:SHOWN], f"… and {counted(len(problems) - SHOWN, 'more problem')} of this kind."]
