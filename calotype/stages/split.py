"""Send each image to train, val or test, for good: data/splits.parquet and data/split_counts.csv."""

from __future__ import annotations

import polars as pl

from calotype import splitting
from calotype.console import say
from calotype.dataset import read_manifest
from calotype.files import replacing
from calotype.params import Params
from calotype.project import Project
from calotype.schemas import validate
from calotype.tables import write_table

PREFIX = "split"
MOST_CLASSES_SHOWN = 20


def run(params: Params, project: Project) -> None:
    """Assign splits, refuse those that lack a class, write and show the counts.

    Raises
    ------
    DataError
        If there is no whole dataset, or if a class is missing from a split.
    """
    failures = project.reports / "schema_failures.parquet"
    manifest = validate("manifest", read_manifest(project.dataset), failures)
    splits = splitting.assign(manifest, params.split)
    counts = splitting.count(manifest, splits)
    splitting.require_every_class(counts, manifest, params.split)
    write_table(validate("splits", splits, failures), project.splits)
    with replacing(project.splits.with_name("split_counts.csv")) as temporary:
        counts.write_csv(temporary)
    for line in table_of(counts):
        say(PREFIX, line)
    _warn_of_divided_groups(splitting.groups_in_two_splits(splits))


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
        lines.insert(-1, f"… and {hidden:,} larger classes in data/split_counts.csv")
    return lines


def _line(row: tuple[str | int, ...], width: int) -> str:
    label, *numbers = row
    name = str(label) if len(str(label)) <= width else f"{str(label)[: width - 1]}…"
    return f"{name:<{width}}" + "".join(
        f"{number:>10,}" if isinstance(number, int) else f"{number:>10}" for number in numbers
    )


def _warn_of_divided_groups(groups: list[str]) -> None:
    if groups:
        shown = ", ".join(groups[: splitting.SHOWN])
        say(PREFIX, f"warning: the source declares images of {len(groups):,} groups in different splits: {shown}")
