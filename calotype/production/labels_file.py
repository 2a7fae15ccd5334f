"""A table of true labels as a person hands it in: which of its rows can be used, and what is wrong with the others.

Columns: ``image_id`` or ``path``, ``label``, and if you like ``date``; others are ignored, so that an exported table of
predictions can be given back with its labels put right. Pure rules, but for `read`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from calotype.counted import counted
from calotype.errors import DataError
from calotype.sources.contract import Unreadable
from calotype.sources.table import MAX_TABLE_BYTES, PARQUET, normal_path, read_csv
from calotype.sources.trees import read_file

NAMING = ("image_id", "path")
COLUMNS = (*NAMING, "label", "date")
SHOWN = 5
FARTHEST_EAST = timedelta(hours=14)
"""A day has begun somewhere so long before it begins in UTC: a date is in the future only if it is so everywhere."""


class Row(NamedTuple):
    """One row: its number as an editor counts lines (from 1 in Parquet), and its cells."""

    number: int
    image_id: str
    path: str
    label: str
    date: str

    @property
    def shown(self) -> str:
        """The image as the row names it."""
        return self.path or f"{self.image_id[:12]}…"


class Label(NamedTuple):
    """A row that can be used: which image it means, and what is said about it since when."""

    row: Row
    image_id: str
    label: str
    labelled_on: date


@dataclass(frozen=True)
class Images:
    """What is known of the images that the rows name.

    Parameters
    ----------
    of_path
        The digest of the file last seen at each path.
    predicted
        Digests of the images that a champion answered.
    classes
        Those of the champion.
    """

    of_path: Mapping[str, str]
    predicted: Collection[str]
    classes: Sequence[str]


def read(path: Path) -> list[Row]:
    """Read a CSV or Parquet table of labels.

    Raises
    ------
    DataError
        If it cannot be read, is no table, has no rows, or lacks a column.
    """
    try:
        data = read_file(path, MAX_TABLE_BYTES)
    except Unreadable as error:
        raise DataError(f"{path}: cannot be read ({error}); expected a CSV or Parquet table of labels.") from error
    columns, numbers = _parquet(data, path) if data[:4] == PARQUET else read_csv(data, str(path))
    if "label" not in columns or not set(NAMING) & set(columns):
        found = ", ".join(columns)[:200] or "none"
        raise DataError(f"{path}: found the columns {found}; expected label, and image_id or path. Add them.")
    if not numbers:
        raise DataError(f"{path}: no rows; expected one for each label. Fill the table.")
    empty = [""] * len(numbers)
    cells = [["" if cell is None else str(cell).strip() for cell in columns.get(name, empty)] for name in COLUMNS]
    return [
        Row(number, image_id.lower(), normal_path(path), label, day)
        for number, image_id, path, label, day in zip(numbers, *cells, strict=True)
    ]


def usable(rows: Sequence[Row], images: Images, now: datetime) -> tuple[list[Label], list[str]]:
    """The rows that can be used, and a line for each kind of those that cannot.

    Parameters
    ----------
    rows
        Of one table.
    images
        What is known of the images.
    now
        Rows without a date speak of its day in UTC.
    """
    problems: list[str] = []
    named = _sift(rows, lambda row: bool(row.image_id or row.path), problems, "name no image", "Fill image_id or path.")
    named = _sift(named, lambda row: bool(row.label), problems, "have no label", "Fill the column label.")
    dates = {row: _date(row.date, now) for row in named}
    what = "have a date that is none"
    named = _sift(named, lambda row: dates[row] is not None, problems, what, "Write it as 2026-11-23.", "date")
    latest = (now + FARTHEST_EAST).date()
    what = "have a date in the future"
    named = _sift(named, lambda row: (dates[row] or latest) <= latest, problems, what, "Correct it.", "date")
    named = _known_labels(named, images.classes, problems)
    meant = {row: row.image_id or images.of_path.get(row.path, "") for row in named}
    what = "name images that were never predicted"
    remedy = "Labels are kept for images in the table of predictions; see `calotype predictions show`."
    named = _sift(named, lambda row: meant[row] in images.predicted, problems, what, remedy, "shown")
    labels = [Label(row, meant[row], row.label, dates[row] or latest) for row in named]
    return _without_contradictions(labels, problems), problems


def counted_rows(rows: Sequence[Row], column: str = "") -> str:
    """``3 rows (2: 'x', 5: 'y', 9: 'z')``, or one row."""
    shown = [f"{row.number}: {getattr(row, column)!r}" if column else str(row.number) for row in rows[:SHOWN]]
    names = ", ".join([*shown, *(["…"] if len(rows) > SHOWN else [])])
    return f"{counted(len(rows), 'row')} ({names})"


def _sift(
    rows: Sequence[Row], fits: Callable[[Row], bool], problems: list[str], what: str, remedy: str, column: str = ""
) -> list[Row]:
    """Keep the rows that fit; the others become one line."""
    wrong = [row for row in rows if not fits(row)]
    if wrong:
        problems.append(f"{counted_rows(wrong, column)} {what}: left out. {remedy}")
    return [row for row in rows if fits(row)]


def _known_labels(rows: Sequence[Row], classes: Sequence[str], problems: list[str]) -> list[Row]:
    known = set(classes)
    for label in dict.fromkeys(row.label for row in rows if row.label not in known):
        close = difflib.get_close_matches(label, classes, n=1)
        listed = ", ".join(classes[:10]) + (", …" if len(classes) > 10 else "")
        hint = f"Did you mean {close[0]!r}?" if close else f"Known are {listed}."
        wrong = [row for row in rows if row.label == label]
        problems.append(f"{counted_rows(wrong)} have the label {label!r}, no class of the champion: left out. {hint}")
    return [row for row in rows if row.label in known]


def _without_contradictions(labels: Sequence[Label], problems: list[str]) -> list[Label]:
    """Leave out each image to which the table gives several labels; of equal rows the last date stands."""
    said: dict[str, set[str]] = {}
    for one in labels:
        said.setdefault(one.image_id, set()).add(one.label)
    torn = [one.row for one in labels if len(said[one.image_id]) > 1]
    if torn:
        images = sum(len(found) > 1 for found in said.values())
        problems.append(
            f"{counted_rows(torn, 'shown')} contradict one another about "
            f"{'1 image' if images == 1 else f'{images:,} images'}: none of them is added. Keep one row for each image."
        )
    return [one for one in labels if len(said[one.image_id]) == 1]


def _date(text: str, now: datetime) -> date | None:
    if not text:
        return now.astimezone(UTC).date()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment.astimezone(UTC) if moment.tzinfo else moment).date()


def _parquet(data: bytes, path: Path) -> tuple[dict[str, Sequence[object]], list[int]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = [name for name in file.schema_arrow.names if name in COLUMNS]
        table = file.read(columns=names)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: damaged Parquet file ({reason}). Write it anew.") from error
    columns = {name: table[name].to_pylist() for name in names}
    return columns or dict.fromkeys(file.schema_arrow.names, ()), list(range(1, table.num_rows + 1))
