"""Which image goes to which split: decided by a salted hash, once, and never by the order or number of images.

A point u in [0, 1) is drawn from SHA-256 of the salt and the key of the image's group, or its id where it has none. The
lowest ``test`` of the interval is the test split, the next ``val`` is validation, the rest is for training. Images are
independent of one another but for their groups (see `grouping`), so that adding some never moves an old one.

A split that the source declares is kept, unless `split.on_leak` moves the image to its group's. Where the source
declares ``train`` but no ``val`` (or no ``test``), that set is cut from train by the same points.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import polars as pl

from calotype.data.grouping import PROTECTED, Arrival, place
from calotype.errors import DataError
from calotype.params import SplitParams

SPLITS = ("train", "val", "test")
SCHEMA = {"image_id": pl.String, "split": pl.String, "group": pl.String, "status": pl.String}
LEAK_SCHEMA = {
    "image_id": pl.String,
    "path": pl.String,
    "split": pl.String,
    "other_image_id": pl.String,
    "other_path": pl.String,
    "other_split": pl.String,
    "tie": pl.String,
}
MOST_OFF = 0.05
"""How far a split's share of the images may be from the one asked before that is said."""
SHOWN = 10
FEW = 3
"""How many pairs a single line names."""
_COLUMNS = ("image_id", "drop", "declared_split", "group", "twins")
_SALTS_TRIED = 200
_HASHES_TRIED = 2_000_000


def assign(manifest: pl.DataFrame, params: SplitParams, departed: pl.DataFrame | None = None) -> pl.DataFrame:
    """Give each image its split, or none where it is tied to groups of different splits.

    Parameters
    ----------
    manifest
        Columns image_id, drop, group (nullable), declared_split (nullable: train, val or test), and twins.
    params
        Fractions and salt, and whether declared splits are binding: `on_leak` is not ``move``.
    departed
        Images that left, with the same columns: what they decided stays decided.

    Returns
    -------
    polars.DataFrame
        image_id, split (null where an image is left out), group (key of the group, null where an image is alone),
        status (see `grouping.STATUSES`); sorted by image_id.
    """
    draw = _Draw(params)
    images = manifest.select(list(_COLUMNS))
    if departed is not None:
        images = pl.concat([images, departed.select(list(_COLUMNS))])
    arrivals = (Arrival(*row) for row in images.iter_rows())
    placements = list(place(arrivals, draw, binding=params.on_leak != "move"))
    splits = pl.DataFrame(placements, schema=SCHEMA, orient="row")
    return splits.join(manifest, on="image_id", how="semi").sort("image_id")


class _Draw:
    """Draws splits; a frozen set of fractions and a salt."""

    def __init__(self, params: SplitParams) -> None:
        self._test, self._val = params.test, params.test + params.val
        self._salted = hashlib.sha256(f"{params.salt}\n".encode())

    def __call__(self, key: str, declared: str | None, announced: frozenset[str]) -> str:
        """Give a key's split: what is declared, or what is cut from train, or what chance says."""
        if declared not in (None, "train"):
            return str(declared)
        u = point(self._salted, key)
        drawn = "test" if u < self._test else "val" if u < self._val else "train"
        return "train" if declared == "train" and drawn in announced else drawn


def point(salted: hashlib._Hash, key: str) -> float:
    """Draw a point in [0, 1): the first 53 bits of SHA-256 of the salt, a line feed, and the key."""
    digest = salted.copy()
    digest.update(key.encode())
    return (int.from_bytes(digest.digest()[:8], "big") >> 11) / 2**53


def find_leaks(manifest: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    """Show each image that leaks beside one that it is tied to and that is in another split.

    Only images that are in the dataset now count: `assign` also says ``leak`` of one that is tied to an image which has
    left, or only by way of others (see `settle_leaks`).

    Parameters
    ----------
    manifest
        As `assign` takes it, with paths.
    splits
        What `assign` gave.

    Returns
    -------
    polars.DataFrame
        image_id, path, split, other_image_id, other_path, other_split, tie (``near-duplicate``, or ``group NAME``);
        sorted by path.
    """
    rows = manifest.select("image_id", "path", "group", "twins").join(
        splits.select("image_id", "split", "status"), on="image_id"
    )
    ties: dict[str, dict[str, tuple[str, str]]] = {}
    for row in rows.sort("path").drop_nulls("split").iter_rows(named=True):
        for _, key in _ties(row):
            ties.setdefault(key, {}).setdefault(row["split"], (row["image_id"], row["path"]))
    leaks = [_leak(row, ties) for row in rows.filter(status="leak").sort("path").iter_rows(named=True)]
    return pl.DataFrame([leak for leak in leaks if leak], schema=LEAK_SCHEMA, orient="row")


def find_copies(manifest: pl.DataFrame, crossings: pl.DataFrame) -> pl.DataFrame:
    """Show each file that the source declares for another split than a file of identical bytes, beside the one kept.

    Parameters
    ----------
    manifest
        Columns image_id, path, declared_split: of the files that were kept.
    crossings
        image_id, path, declared_split: every file of the images that are declared for several splits.

    Returns
    -------
    polars.DataFrame
        As `find_leaks` gives it, the tie being ``identical bytes``; sorted by path.
    """
    kept = manifest.select("image_id", other_path="path", other_split="declared_split")
    return (
        crossings.rename({"declared_split": "split"})
        .join(kept, on="image_id")
        .filter(pl.col("split") != pl.col("other_split"))
        .with_columns(other_image_id="image_id", tie=pl.lit("identical bytes"))
        .select(list(LEAK_SCHEMA))
        .sort("path")
    )


def settle_leaks(splits: pl.DataFrame, leaks: pl.DataFrame) -> pl.DataFrame:
    """Say ``leak`` of the images that leak now, and ``kept`` of those that stay where they are without leaking.

    Parameters
    ----------
    splits
        What `assign` gave.
    leaks
        What `find_leaks` found in it.
    """
    is_past = (pl.col("status") == "leak") & ~pl.col("image_id").is_in(leaks["image_id"].implode())
    return splits.with_columns(pl.when(is_past).then(pl.lit("kept")).otherwise("status").alias("status"))


def explain_copies(copies: pl.DataFrame, saved: str) -> str:
    """Say which files of identical bytes are declared for different splits."""
    pairs = [
        f"{row['path']} ({row['split']}) = {row['other_path']} ({row['other_split']})"
        for row in copies.head(FEW).iter_rows(named=True)
    ]
    more = [f"… and {copies.height - FEW:,} more"] if copies.height > FEW else []
    images = copies["image_id"].n_unique()
    return (
        f"split: {'1 image is' if images == 1 else f'{images:,} images are'} declared for different splits by files of "
        f"identical bytes: {'; '.join([*pairs, *more])}. All are in {saved}. Remove the copies, or set `split.on_leak` "
        "to move or keep (both keep one file of each image, that of test before val before train), then run "
        "`dvc repro`."
    )


def explain_leaks(leaks: pl.DataFrame, saved: str) -> str:
    """Say which images leak."""
    lines = [
        f"  {row['path']} ({row['split']}) ~ {row['other_path']} ({row['other_split']}): {row['tie']}"
        for row in leaks.head(SHOWN).iter_rows(named=True)
    ]
    if leaks.height > SHOWN:
        lines.append(f"  … and {leaks.height - SHOWN:,} more")
    return "\n".join(
        [
            f"split: {'1 image leaks' if leaks.height == 1 else f'{leaks.height:,} images leak'}: declared for another "
            f"split than a near-duplicate, or than a member of the same group. All are in {saved}. Mend the source, or "
            "set `split.on_leak` to move (they follow the group) or keep (they stay, and are reported), then run "
            "`dvc repro split`:",
            *lines,
        ]
    )


def count(manifest: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    """Count images for each class and split: label, train, val, test; sorted by label."""
    joined = manifest.select("image_id", "label").join(splits.select("image_id", "split"), on="image_id")
    return (
        joined.group_by("label")
        .agg(pl.col("split").eq(name).sum().cast(pl.Int64).alias(name) for name in SPLITS)
        .sort("label")
    )


def explain_shares(manifest: pl.DataFrame, splits: pl.DataFrame, params: SplitParams) -> str | None:
    """Say that a split's share of the images is more than ``MOST_OFF`` from the one asked, and why; else None.

    Asked is what the source declares; of images that it declares nothing for, `split.val` and `split.test`; and of
    those declared ``train``, whichever of the two the source declares no set for. Images left out do not count.
    """
    rows = manifest.select("image_id", "declared_split").join(splits.drop_nulls("split"), on="image_id")
    if rows.is_empty():
        return None
    declared = dict(rows["declared_split"].value_counts().iter_rows())
    asked = _asked(declared, params)
    got = dict(rows["split"].value_counts().iter_rows())
    shares = {name: (got.get(name, 0) / rows.height, asked[name] / rows.height) for name in SPLITS}
    if all(abs(one - other) <= MOST_OFF for one, other in shares.values()):
        return None
    shown = ", ".join(f"{name} {100 * one:.0f} % (asked {100 * other:.0f} %)" for name, (one, other) in shares.items())
    return f"shares more than {100 * MOST_OFF:.0f} points from those asked: {shown}. {_why_off(rows)}"


def require_every_class(counts: pl.DataFrame, manifest: pl.DataFrame, params: SplitParams) -> None:
    """Refuse splits of which one lacks a class: it could not be learned, chosen or measured.

    Raises
    ------
    DataError
        Naming each such class with its counts, and a salt that works if one is found.
    """
    lacking = counts.filter(pl.any_horizontal(pl.col(name) == 0 for name in SPLITS))
    if lacking.is_empty():
        return
    shown = [
        f"  {row['label']}: train {row['train']}, val {row['val']}, test {row['test']}"
        for row in lacking.head(SHOWN).iter_rows(named=True)
    ]
    if lacking.height > SHOWN:
        shown.append(f"  … and {lacking.height - SHOWN:,} more")
    verb = "is" if lacking.height == 1 else "are"
    raise DataError(
        "\n".join(
            [
                f"split: {lacking.height:,} of {counts.height:,} classes {verb} missing from a split; expected images "
                f"of every class in each. {_advice(manifest, params)}",
                *shown,
            ]
        )
    )


def read_splits(path: Path) -> pl.DataFrame:
    """Read data/splits.parquet: image_id, split (null of images that are left out), group, status.

    Raises
    ------
    DataError
        If there is no such file, or if it is no table.
    """
    try:
        return pl.read_parquet(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. Run `dvc repro split`.") from error
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: not a Parquet table ({error}). Run `dvc repro --force split`.") from error


def _ties(row: dict[str, Any]) -> list[tuple[str, str]]:
    """What ties an image to others: the tie in words, and a key that those share."""
    named = [] if row["group"] is None else [(f"group {row['group']}", f"group {row['group']}")]
    return [*(("near-duplicate", image_id) for image_id in (*row["twins"], row["image_id"])), *named]


def _leak(row: dict[str, Any], ties: dict[str, dict[str, tuple[str, str]]]) -> tuple[str, ...] | None:
    for tie, key in _ties(row):
        for split in PROTECTED:
            if split != row["split"] and split in ties.get(key, {}):
                return (row["image_id"], row["path"], row["split"], *ties[key][split], split, tie)
    return None  # tied to an image that has left the source, or only by way of others


def _asked(declared: dict[str | None, int], params: SplitParams) -> dict[str, float]:
    """How many images each split would have if chance were even and nothing tied images together."""
    asked = {name: float(declared.get(name, 0)) for name in SPLITS}
    free, cut = declared.get(None, 0), declared.get("train", 0)
    for name, share in (("val", params.val), ("test", params.test)):
        drawn = share * (free if name in declared else free + cut)
        asked[name] += drawn
        asked["train"] -= drawn
    asked["train"] += free
    return asked


def _why_off(rows: pl.DataFrame) -> str:
    sizes = rows["group"].drop_nulls().value_counts()["count"]
    if sizes.is_empty():
        return f"Each of the {rows.height:,} images was drawn by itself: so few come out uneven by chance"
    largest = sizes.cast(pl.Int64).to_numpy().max() / rows.height
    alone = rows.height - int(sizes.sum())
    groups = "1 group" if sizes.len() == 1 else f"{sizes.len():,} groups"
    return (
        f"A group goes to one split as a whole: {groups}, the largest with {100 * largest:.0f} % of the images; images "
        f"in no group: {alone:,}. More groups even out; before the first training, another `split.salt` may too"
    )


def _advice(manifest: pl.DataFrame, params: SplitParams) -> str:
    general = "Add images of these classes, or raise split.val and split.test"
    tries = min(_SALTS_TRIED, _HASHES_TRIED // max(1, manifest.height))
    for number in range(2, tries + 2):
        other = params.model_copy(update={"salt": f"{params.salt}-{number}"})
        counts = count(manifest, assign(manifest, other))
        if counts.select(pl.min_horizontal(SPLITS).min()).item() > 0:
            return f"{general}; before the first training, `split.salt: {other.salt}` divides these images well, too."
    return f"{general}; the source's own splits must hold every class, too."
