"""Which image goes to which split: decided by a salted hash, once, and never by the order or number of images.

A point u in [0, 1) is drawn from SHA-256 of the salt and the image's group, or its id where it has none. The lowest
``test`` of the interval is the test split, the next ``val`` is validation, the rest is for training. Images are
independent of one another, so that adding some never moves an old one, and a group stays together.

A split that the source declares is kept. Where it declares ``train`` but no ``val`` (or no ``test``), that set is cut
from train by the same points.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import polars as pl

from calotype.errors import DataError
from calotype.params import SplitParams

SPLITS = ("train", "val", "test")
SHOWN = 10
_SALTS_TRIED = 200
_HASHES_TRIED = 2_000_000


def assign(manifest: pl.DataFrame, params: SplitParams) -> pl.DataFrame:
    """Give each image its split.

    Parameters
    ----------
    manifest
        Columns image_id, group (nullable) and declared_split (nullable: train, val or test).
    params
        Fractions and salt.

    Returns
    -------
    polars.DataFrame
        image_id, split, group; sorted by image_id.
    """
    point = pl.Series("point", points(manifest, params.salt))
    declared = pl.col("declared_split")
    announced = set(manifest["declared_split"].drop_nulls().unique())
    cut_test = declared.is_null() | (declared.eq("train") & pl.lit("test" not in announced))
    cut_val = declared.is_null() | (declared.eq("train") & pl.lit("val" not in announced))
    in_test = pl.col("point") < params.test
    in_val = ~in_test & (pl.col("point") < params.test + params.val)
    split = (
        pl.when(cut_test & in_test)
        .then(pl.lit("test"))
        .when(cut_val & in_val)
        .then(pl.lit("val"))
        .otherwise(declared.fill_null("train"))
    )
    return (
        manifest.with_columns(point)
        .select("image_id", split.alias("split"), pl.col("group").cast(pl.String))
        .sort("image_id")
    )


def points(manifest: pl.DataFrame, salt: str) -> np.ndarray:
    """Draw a point in [0, 1) for each row: the first 53 bits of SHA-256 of salt and group, or image_id."""
    keys = manifest.select(pl.coalesce(pl.col("group").cast(pl.String), pl.col("image_id"))).to_series()
    salted = hashlib.sha256(f"{salt}\n".encode())
    return np.fromiter((_point(salted, key) for key in keys), dtype=np.float64, count=len(keys))


def count(manifest: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    """Count images for each class and split: label, train, val, test; sorted by label."""
    joined = manifest.select("image_id", "label").join(splits.select("image_id", "split"), on="image_id")
    return (
        joined.group_by("label")
        .agg(pl.col("split").eq(name).sum().cast(pl.Int64).alias(name) for name in SPLITS)
        .sort("label")
    )


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
    raise DataError(
        "\n".join(
            [
                f"split: {lacking.height:,} of {counts.height:,} classes are missing from a split; expected images of "
                f"every class in each. {_advice(manifest, params)}",
                *shown,
            ]
        )
    )


def groups_in_two_splits(splits: pl.DataFrame) -> list[str]:
    """Groups whose images the source declares in different splits; sorted."""
    several = splits.drop_nulls("group").group_by("group").agg(pl.col("split").n_unique())
    return several.filter(pl.col("split") > 1)["group"].sort().to_list()


def read_splits(path: Path) -> pl.DataFrame:
    """Read data/splits.parquet: image_id, split, group.

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


def _point(salted: hashlib._Hash, key: str) -> float:
    digest = salted.copy()
    digest.update(key.encode())
    return (int.from_bytes(digest.digest()[:8], "big") >> 11) / 2**53


def _advice(manifest: pl.DataFrame, params: SplitParams) -> str:
    general = "Add images of these classes, or raise split.val and split.test"
    tries = min(_SALTS_TRIED, _HASHES_TRIED // max(1, manifest.height))
    for number in range(2, tries + 2):
        other = params.model_copy(update={"salt": f"{params.salt}-{number}"})
        counts = count(manifest, assign(manifest, other))
        if counts.select(pl.min_horizontal(SPLITS).min()).item() > 0:
            return f"{general}; before the first training, `split.salt: {other.salt}` divides these images well, too."
    return f"{general}; the source's own splits must hold every class, too."
