"""Which of the readable files become images of the dataset: pure rules on tables, no files.

Equal bytes are one image. Of several files with the same bytes the one stays whose declared split comes first in
``PRIORITY``, because an image of the test split must not be trained on; then the one that was kept so far, because a
copy in another group must not move an image between splits; then the one whose path comes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import polars as pl

from calotype.counted import counted
from calotype.params import IngestParams

PRIORITY = {"test": 0, "val": 1, "train": 2}
"""Which declared split keeps an image that is in several; undeclared comes last."""

SHOWN = 10
"""How many names a message lists."""


def keep_one_of_each(entries: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """Keep one row for each image_id; sorted by image_id.

    Parameters
    ----------
    entries
        Readable files: image_id, path, label, group, declared_split.
    stored
        Files kept so far: image_id, path.
    """
    rank = pl.col("declared_split").replace_strict(PRIORITY, default=len(PRIORITY), return_dtype=pl.Int8)
    stays = stored.select("image_id", "path", pl.lit(False).alias("newcomer"))
    # Rows are put in order by number: a million of them by every column would take each column twice.
    ordered = entries.select("image_id", pl.int_range(pl.len(), dtype=pl.UInt32).alias("row")).sort("image_id")
    is_as_before = ordered["image_id"] == ordered["image_id"].shift()
    is_repeated = (is_as_before | is_as_before.shift(-1)).fill_null(False)
    repeated = ordered.filter(is_repeated)
    best = (
        entries.select(pl.col("path").gather(repeated["row"]), rank.gather(repeated["row"]).alias("rank"))
        .hstack(repeated)
        .join(stays, on=["image_id", "path"], how="left")
        .sort("image_id", "rank", pl.col("newcomer").fill_null(True), "path")
        .unique("image_id", keep="first", maintain_order=True)
    )
    chosen = ordered.filter(~is_repeated | ordered["row"].is_in(best["row"].implode()))
    return entries.select(pl.all().gather(chosen["row"]))


def two_labels(entries: pl.DataFrame) -> pl.DataFrame:
    """Files of images that have more than one label: image_id, path, label."""
    several = pl.col("label").n_unique().over("image_id") > 1
    return _repeated(entries).filter(several).select("image_id", "path", "label").sort("image_id", "path")


def in_two_splits(entries: pl.DataFrame) -> pl.DataFrame:
    """Files of images that the source declares in more than one split: image_id, path, declared_split."""
    several = pl.col("declared_split").drop_nulls().n_unique().over("image_id") > 1
    return _repeated(entries).filter(several).select("image_id", "path", "declared_split").sort("image_id", "path")


def explain_two_labels(conflicts: pl.DataFrame, saved: str) -> str:
    """Say which images have two labels."""
    images = conflicts.group_by("image_id", maintain_order=True).agg(
        pl.format("{} ({})", "path", "label").str.join(" = ")
    )
    lines = [f"  {text}" for text in images["path"].head(SHOWN)]
    if images.height > SHOWN:
        lines.append(f"  … and {images.height - SHOWN:,} more")
    return "\n".join(
        [
            f"ingest: {counted(images.height, 'image')} under two labels; expected one label for equal bytes. "
            f"Remove the wrong files (all are listed in {saved}), then run `dvc repro ingest`:",
            *lines,
        ]
    )


def explain_rejects(rejects: pl.DataFrame, files: int, params: IngestParams, saved: str) -> str:
    """Say that too many files were set aside."""
    first = rejects.row(0, named=True)
    codes = counts_of(rejects["code"].to_list())
    return (
        f"ingest: {rejects.height:,} of {counted(files, 'file')} cannot be used ({codes}), which is "
        f"{rejects.height / files:.2%}; allowed is ingest.max_reject_fraction: {params.max_reject_fraction:g}. The "
        f"first is {first['path']}: {first['reason']}. Mend or remove the files listed in {saved}, or allow more."
    )


def explain_classes(
    kept: pl.DataFrame, empty: tuple[str, ...], rejected: Mapping[str, int], params: IngestParams
) -> list[str]:
    """Say which classes cannot be learned: empty, too small, or alone."""
    images = Counter(dict(kept["label"].value_counts().iter_rows()))
    labels = sorted({*images, *rejected, *empty})
    problems = []
    hollow = [label for label in labels if not images[label] and not rejected.get(label)]
    if hollow:
        folders = "folder" if len(hollow) == 1 else "folders"
        problems.append(
            f"ingest: {counted(len(hollow), 'class')} without images: {listed(hollow)}. Add images, or remove the "
            f"empty {folders}."
        )
    small = [label for label in labels if label not in hollow and images[label] < params.min_per_class]
    if small:
        shown = [_with_count(label, images[label], rejected.get(label, 0)) for label in small]
        classes = "class" if len(small) == 1 else "classes"
        problems.append(
            f"ingest: {counted(len(small), 'class')} with fewer than {params.min_per_class} different readable images "
            f"(ingest.min_per_class): {listed(shown)}. Add images, or remove the {classes}."
        )
    if len(labels) < 2:
        found = f"a single class, {labels[0]!r}" if labels else "no image at all"
        problems.append(f"ingest: the source holds {found}; expected two classes or more, each in a folder of its own.")
    return problems


def counts_of(values: list[str]) -> str:
    """``corrupt 3, animated 1``: most frequent first."""
    ordered = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{value} {count:,}" for value, count in ordered)


def listed(names: list[str]) -> str:
    """Names for a message, at most ``SHOWN`` of them."""
    more = f", … and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _repeated(entries: pl.DataFrame) -> pl.DataFrame:
    """Files whose bytes another file has, too."""
    return entries.filter(pl.col("image_id").is_duplicated())


def _with_count(label: str, images: int, rejected: int) -> str:
    return f"{label} ({images}, and {rejected} rejected)" if rejected else f"{label} ({images})"
