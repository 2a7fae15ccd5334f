"""What is decided when an image arrives, and kept for good: its place in the line, and which earlier ones it resembles.

Images that left the source are remembered as long as one that stays is tied to them, by id alone: a group must not
move to another split because the image went that it began with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from calotype.data import shards
from calotype.data.dataset import threads
from calotype.data.decode import decode
from calotype.data.duplicates import Pictures, find_twins

Sketches = Callable[[Sequence[str]], NDArray[np.uint64]]

HISTORY_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "image_id": pl.String,
    "drop": pl.Int32,
    "declared_split": pl.String,
    "group": pl.String,
    "twins": pl.List(pl.String),
}
"""What is kept of an image that left."""

_DECODE_AT_ONCE = 32


def decide_twins(manifest: pl.DataFrame, sketches: Sketches, pictures: Pictures) -> pl.DataFrame:
    """Fill in the twins of the images that have arrived since they were last decided.

    Parameters
    ----------
    manifest
        Every image; `twins` is null where it is undecided.
    sketches
        Gives the sketches of undecided images, uint64 (N, VIEWS).
    pictures
        Gives the decoded pictures of some images.

    Returns
    -------
    polars.DataFrame
        The manifest, `twins` filled in; sorted by image_id.
    """
    arrived = manifest.sort("drop", "image_id")
    new = arrived.filter(pl.col("twins").is_null())
    if new.is_empty():
        return manifest
    leaders = _leaders(arrived.drop_nulls("twins"))
    ids = new["image_id"].to_list()
    found = find_twins(leaders["image_id"].to_list(), leaders["phash"].to_numpy(), ids, sketches(ids), pictures)
    decided = new.select("image_id", pl.Series("found", [list(twins) for twins in found], dtype=pl.List(pl.String)))
    return (
        manifest.join(decided, on="image_id", how="left")
        .with_columns(pl.coalesce("twins", "found").alias("twins"))
        .drop("found")
        .sort("image_id")
    )


def count_twins(manifest: pl.DataFrame) -> tuple[int, int]:
    """Count the images that resemble an earlier one, and the images that these resemble."""
    pairs = _pairs(manifest)
    return pairs["image_id"].n_unique(), pairs["twin"].n_unique()


def pictures_of(manifest: pl.DataFrame, locate: Callable[[str], Path], *, max_megapixels: float) -> Pictures:
    """Make the function that decodes stored images.

    Parameters
    ----------
    manifest
        Says which shard holds an image.
    locate
        Where a shard lies.
    max_megapixels
        Pixel cap, `ingest.max_megapixels`.
    """

    def work(rows: list[tuple[str, bytes]]) -> list[tuple[str, Image.Image]]:
        return [(image_id, decode(data, max_megapixels=max_megapixels)) for image_id, data in rows]

    def pictures(image_ids: Sequence[str]) -> Iterator[tuple[str, Image.Image]]:
        waiting: deque[Future[list[tuple[str, Image.Image]]]] = deque()
        with ThreadPoolExecutor(threads(), thread_name_prefix="compare") as pool:
            for rows in _chunks(image_ids):
                waiting.append(pool.submit(work, rows))
                if len(waiting) > 2 * threads():
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()

    def _chunks(image_ids: Sequence[str]) -> Iterator[list[tuple[str, bytes]]]:
        asked = manifest.select("image_id", "shard").filter(pl.col("image_id").is_in(list(image_ids)))
        chunk: list[tuple[str, bytes]] = []
        for (shard,), rows in asked.sort("shard").group_by("shard", maintain_order=True):
            for row in shards.pick(locate(str(shard)), set(rows["image_id"])):
                chunk.append(row)
                if len(chunk) >= _DECODE_AT_ONCE:
                    yield chunk
                    chunk = []
        if chunk:
            yield chunk

    return pictures


def departures(manifest: pl.DataFrame, history: pl.DataFrame) -> pl.DataFrame:
    """Remember those that left and that an image which stays is tied to, directly or through others that left.

    Parameters
    ----------
    manifest
        The images that are there now.
    history
        The images that were there before, and those remembered since: `HISTORY_SCHEMA`.
    """
    columns = list(HISTORY_SCHEMA)
    present = manifest.select(columns)
    gone = history.select(columns).join(present, on="image_id", how="anti")
    remembered = gone.clear()
    if gone.height == history.height:  # another source
        return remembered
    while True:
        found = _tied(gone, pl.concat([present, remembered]))
        if found.is_empty():
            return remembered.sort("image_id")
        remembered = pl.concat([remembered, found])
        gone = gone.join(found, on="image_id", how="anti")


def _tied(images: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """Those of ``images`` that share a group with one of the others, or resemble one, or are resembled by one."""
    if images.is_empty():
        return images
    ids = pl.concat(
        [
            images.join(others.drop_nulls("group"), on="group", how="semi")["image_id"],
            images.join(_pairs(others), left_on="image_id", right_on="twin", how="semi")["image_id"],
            _pairs(images).join(others, left_on="twin", right_on="image_id", how="semi")["image_id"],
        ]
    )
    return images.filter(pl.col("image_id").is_in(ids.unique().implode()))


def _leaders(decided: pl.DataFrame) -> pl.DataFrame:
    """Images that a new one is compared with: those that resemble no earlier image that is still there."""
    followers = _pairs(decided).join(decided, left_on="twin", right_on="image_id", how="semi")
    return decided.join(followers, on="image_id", how="anti", maintain_order="left")


def _pairs(images: pl.DataFrame) -> pl.DataFrame:
    """One row for each image and image that it resembles: image_id, twin."""
    return images.select("image_id", pl.col("twins").alias("twin")).explode("twin").drop_nulls()
