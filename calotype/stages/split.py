"""Send each image to train, val or test, for good: data/splits.parquet, data/split_counts.csv, reports/data.html."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from calotype.console import say
from calotype.counted import counted
from calotype.data import dataset, splitting
from calotype.data.schemas import validate
from calotype.data.tables import write_table
from calotype.errors import DataError
from calotype.files import replacing
from calotype.pages import data_page
from calotype.params import Params
from calotype.project import Project

PREFIX = "split"
MOST_CLASSES_SHOWN = 20


def run(params: Params, project: Project) -> None:
    """Assign splits, refuse those that leak or lack a class, write and show the counts, draw the page of the data.

    Raises
    ------
    DataError
        If there is no whole dataset, if declared splits leak or share files and `split.on_leak` says error, or if a
        class is missing from a split.
    """
    failures = project.reports / "schema_failures.parquet"
    manifest = validate("manifest", _read_manifest(project), failures)
    splits = splitting.assign(manifest, params.split, dataset.read_table(project.dataset, dataset.DEPARTED))
    leaks = splitting.find_leaks(manifest, splits)
    splits = splitting.settle_leaks(splits, leaks)
    if params.split.on_leak == "error":
        _refuse_leaks(params, project, manifest, splits, leaks)
    _save_leaks(project, leaks)
    counts = splitting.count(manifest, splits)
    splitting.require_every_class(counts, manifest, params.split)
    write_table(validate("splits", splits, failures), project.splits)
    with replacing(project.splits.with_name("split_counts.csv")) as temporary:
        counts.write_csv(temporary)
    data_page.write(project, params, manifest, splits)
    off = splitting.explain_shares(manifest, splits, params.split)
    for line in [*table_of(counts), *notes_on(splits), *([off] if off else [])]:
        say(PREFIX, line)


def notes_on(splits: pl.DataFrame) -> list[str]:
    """Say how many images are tied to others, and what became of those that are not where they might be."""
    tied = splits.drop_nulls("group")
    found = dict(splits["status"].value_counts().iter_rows())
    notes = {
        "moved": "moved: {}, declared elsewhere than where their group lives",
        "bridge": "left out: {} tied to groups of different splits",
        "leak": "leaks kept: {}, declared elsewhere than where their group lives",
    }
    lines = [text.format(counted(found[status], "image")) for status, text in notes.items() if found.get(status)]
    if tied.height:
        lines.insert(0, f"grouped: {counted(tied.height, 'image')} in {counted(tied['group'].n_unique(), 'group')}")
    return lines


def _read_manifest(project: Project) -> pl.DataFrame:
    manifest = dataset.read_manifest(project.dataset)
    if "twins" not in manifest or dataset.CROSSINGS not in dataset.read_digests(project.dataset):
        raise DataError(f"{project.dataset}: a dataset of an older form. Run `dvc repro ingest`, which brings it up.")
    return manifest


def _save_leaks(project: Project, leaks: pl.DataFrame) -> None:
    """Write every leak that is there now into a table; no table where nothing leaks."""
    if leaks.is_empty():
        _leaks_table(project).unlink(missing_ok=True)
        return
    with replacing(_leaks_table(project)) as temporary:
        leaks.write_csv(temporary)


def _refuse_leaks(
    params: Params, project: Project, manifest: pl.DataFrame, splits: pl.DataFrame, leaks: pl.DataFrame
) -> None:
    """Refuse what leaks, and what would if files of identical bytes were not one image."""
    copies = splitting.find_copies(manifest, dataset.read_table(project.dataset, dataset.CROSSINGS))
    if leaks.is_empty() and copies.is_empty():
        return
    _save_leaks(project, pl.concat([leaks, copies]))
    data_page.write(project, params, manifest, splits)
    page = project.relative(project.reports / "data.html")
    saved = f"{project.relative(_leaks_table(project))} and shown in {page}"
    problems = [splitting.explain_copies(copies, saved)] if copies.height else []
    problems += [splitting.explain_leaks(leaks, saved)] if leaks.height else []
    raise DataError("\n".join(problems))


def _leaks_table(project: Project) -> Path:
    return project.reports / "leaks.csv"


def table_of(counts: pl.DataFrame) -> list[str]:
    """Lay out the counts as lines: the smallest classes first to go wrong are always among those shown."""
    shown = counts
    hidden = counts.height - MOST_CLASSES_SHOWN
    if hidden > 0:
        smallest = counts.sort("train", "label").head(MOST_CLASSES_SHOWN)
        shown = smallest.sort("label")
    total = counts.select(pl.lit("total").alias("label"), *(pl.col(name).sum() for name in splitting.SPLITS))
    rows = [("class", *splitting.SPLITS), *shown.iter_rows(), *total.iter_rows()]
    width = min(40, max(len(row[0]) for row in rows))
    lines = [_line(row, width) for row in rows]
    if hidden > 0:
        lines.insert(-1, f"… and {counted(hidden, 'larger class')} in data/split_counts.csv")
    return lines


def _line(row: tuple[str | int, ...], width: int) -> str:
    label, *numbers = row
    name = str(label) if len(str(label)) <= width else f"{str(label)[: width - 1]}…"
    return f"{name:<{width}}" + "".join(
        f"{number:>10,}" if isinstance(number, int) else f"{number:>10}" for number in numbers
    )
