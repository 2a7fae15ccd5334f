"""`calotype labels add`: true labels join the predictions of weeks ago, exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow.dataset as ds

from calotype.counted import counted
from calotype.delta import batches
from calotype.errors import DataError
from calotype.learning import bundle
from calotype.params import Params
from calotype.predictions.reading import Tables, open_tables
from calotype.predictions.tables import CHAMPION, FILES, PREDICTIONS
from calotype.production import drop, labels_file, labels_table
from calotype.production.labels_file import Images, Label, Row, counted_rows
from calotype.production.labels_table import Held
from calotype.project import Project
from calotype.releases.local_bundles import known_champion


@dataclass(frozen=True)
class Sorted:
    """What became of the usable rows against the labels that were held.

    Attributes
    ----------
    new
        To be appended; ``corrections`` among them change a label.
    known
        Said before, or twice in this table.
    older
        A label of a later date holds.
    torn
        Another label holds since the same day.
    """

    new: list[Label] = field(default_factory=list)
    corrections: list[Label] = field(default_factory=list)
    known: list[Label] = field(default_factory=list)
    older: list[Label] = field(default_factory=list)
    torn: list[Label] = field(default_factory=list)


@dataclass(frozen=True)
class Added:
    """What `add` did: counts of rows, a line for each thing that a person should know, and what joined the dataset."""

    file: str
    table: str
    rows: int
    added: int
    corrections: int
    known: int
    refused: int
    notes: tuple[str, ...]
    drop: drop.Drop | None = None

    def summary(self) -> str:
        """One line for a person, or two."""
        mended = f" ({counted(self.corrections, 'correction')})" if self.corrections else ""
        line = (
            f"{self.file}: {counted(self.rows, 'row')}: {self.added:,} added{mended}, {self.known:,} known already, "
            f"{self.refused:,} left out → {self.table}"
        )
        following = self.drop.summary() if self.drop else "Next: calotype labels report"
        return f"{line}\n{following}"


def add(project: Project, params: Params, file: Path, *, correct: bool = False, ingest: bool = False) -> Added:
    """Add a table's labels to those of the project.

    Parameters
    ----------
    project, params
        The project and its values.
    file
        A CSV or Parquet table; see `labels_file`.
    correct
        Let a label stand against another one of the same day: the one added now holds.
    ingest
        Copy the labelled images into the dataset's source; see `drop`.

    Raises
    ------
    DataError
        If the table cannot be read, or none of its rows can be used; it names the rows.
    UsageError
        If there is no champion, or the source cannot take images in.
    """
    target = drop.open_target(project, params) if ingest else None
    rows = labels_file.read(file)
    tables = open_tables(project)
    of_path, note = _ids_of_paths(project, tables, [row for row in rows if row.path and not row.image_id])
    rows = [row._replace(path=_below_inbox(project, row.path)) for row in rows]
    wanted = {row.image_id or of_path.get(row.path, "") for row in rows}
    images = Images(of_path, _predicted(tables, wanted), _classes(project, params))
    labels, problems = labels_file.usable(rows, images, datetime.now(UTC))
    found = Sorted()

    def plan(held: dict[str, Held]) -> list[Label]:
        nonlocal found
        found = against(held, labels, correct=correct)
        return found.new

    labels_table.append(project, plan, str(file))
    notes = [*problems, *_notes(found), *([note] if note else [])]
    if not (found.new or found.known):
        raise DataError("\n".join(f"{file}: {line}" for line in notes))
    standing = [*found.new, *found.known]
    return Added(
        file=str(file),
        table=project.relative(project.table(labels_table.NAME)),
        rows=len(rows),
        added=len(found.new),
        corrections=len(found.corrections),
        known=len(found.known),
        refused=len(rows) - len(found.new) - len(found.known),
        notes=tuple(notes),
        drop=drop.put(project, tables, target, standing) if target else None,
    )


def against(held: dict[str, Held], labels: Sequence[Label], *, correct: bool) -> Sorted:
    """Sort labels by what is held of their images: the later date holds, and of one day the one that is there."""
    found = Sorted()
    first: dict[str, Label] = {}
    for one in sorted(labels, key=lambda label: label.labelled_on, reverse=True):
        there = held.get(one.image_id)
        if one.image_id in first or (there is not None and there.label == one.label):
            found.known.append(one)
            continue
        first[one.image_id] = one
        if there is None or one.labelled_on > there.labelled_on or (correct and one.labelled_on == there.labelled_on):
            found.new.append(one)
            found.corrections.extend([one] if there is not None else [])
        elif (one.label, one.labelled_on) in there.said:
            found.known.append(one)
        else:
            (found.older if one.labelled_on < there.labelled_on else found.torn).append(one)
    return found


def _notes(found: Sorted) -> list[str]:
    notes = []
    if found.corrections:
        rows = counted_rows([one.row for one in found.corrections], "shown")
        notes.append(f"{rows} correct an earlier label: the later one holds from now on.")
    if found.older:
        rows = counted_rows([one.row for one in found.older], "shown")
        notes.append(f"{rows} are older than another label of the same image, which holds: left out.")
    if found.torn:
        rows = counted_rows([one.row for one in found.torn], "shown")
        notes.append(
            f"{rows} contradict a label of the same date: left out. Give a later date, or add them with --correct."
        )
    return notes


def _below_inbox(project: Project, path: str) -> str:
    """The path as the tables have it: below the inbox, whether it was named from there, from here or from the root."""
    inbox = project.inbox.rstrip("/")
    if path.startswith(f"{inbox}/"):
        return path[len(inbox) + 1 :]
    whole = Path(path).absolute()
    if "://" not in inbox and whole.is_relative_to(inbox):
        return whole.relative_to(inbox).as_posix()
    return path


def _ids_of_paths(project: Project, tables: Tables, rows: Sequence[Row]) -> tuple[dict[str, str], str]:
    """The content last seen at each path; and a line if several were seen at some."""
    paths = sorted({_below_inbox(project, row.path) for row in rows})
    if not paths:
        return {}, ""
    where = ds.field("path").isin(paths) & ds.field("image_id").is_valid()
    seen = [pl.DataFrame(batch) for batch in batches(tables.files, FILES, ["path", "image_id", "seen_at"], where)]
    if not seen:
        return {}, ""
    by_path = pl.concat(seen).sort("seen_at").group_by("path", maintain_order=True)
    last = by_path.agg(pl.col("image_id").last(), pl.col("image_id").n_unique().alias("contents"))
    several = last.filter(pl.col("contents") > 1)["path"].to_list()
    names = ", ".join(several[:3]) + (", …" if len(several) > 3 else "")
    note = f"{counted(len(several), 'path')} ({names}) had several contents in turn: the label is that of the last one."
    return dict(last.select("path", "image_id").iter_rows()), note if several else ""


def _predicted(tables: Tables, wanted: set[str]) -> set[str]:
    where = ds.field("image_id").isin(sorted(wanted)) & (ds.field("role") == CHAMPION)
    found: set[str] = set()
    for batch in batches(tables.predictions, PREDICTIONS, ["image_id"], where):
        found.update(batch["image_id"].to_pylist())
    return found


def _classes(project: Project, params: Params) -> tuple[str, ...]:
    champion = known_champion(project, params.name)
    if champion is None:
        from calotype.releases import registry

        champion = registry.champion(project, params)
    return bundle.without_weights(champion.bundle_folder).classes
