"""What is decided when an image arrives, and kept for good: its place in the line, and which earlier ones it resembles.

Images that left the source are remembered as long as one that stays is tied to them, by id alone: a group must not
move to another split because the image went that it began with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import polars as pl
from PIL import Image

from calotype.data import shards
from calotype.data.dataset import threads
from calotype.data.decode import decode
from calotype.data.duplicates import Pictures, find_twins
from calotype.data.likeness import Indices
from calotype.data.scratch import DiskArray

HISTORY_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "image_id": pl.String,
    "drop": pl.Int32,
    "declared_split": pl.String,
    "group": pl.String,
    "twins": pl.List(pl.String),
}
"""What is kept of an image that left."""

_DECODE_AT_ONCE = 32


def decide_twins(
    manifest: pl.DataFrame,
    sketches: DiskArray,
    locate: Callable[[str], Path],
    *,
    max_megapixels: float,
    scratch: Path | None = None,
) -> pl.DataFrame:
    """Fill in the twins of the images that have arrived since they were last decided.

    Parameters
    ----------
    manifest
        Every image, sorted by image_id; `twins` is null where it is undecided. A further column `sketch` says which
        row of ``sketches`` belongs to an undecided image.
    sketches
        What `duplicates.sketches` said of the images that were decoded.
    locate
        Where a shard lies.
    max_megapixels
        Pixel cap, `ingest.max_megapixels`.
    scratch
        Folder for what memory would not hold; the system's temporary one if None.

    Returns
    -------
    polars.DataFrame
        The manifest, `twins` filled in, without `sketch`.
    """
    arrived = manifest.select("image_id", "drop", "shard", "phash", "twins", "sketch").sort("drop", maintain_order=True)
    new = arrived.filter(pl.col("twins").is_null())
    manifest = manifest.drop("sketch")
    if new.is_empty():
        return manifest
    leaders = _leaders(arrived.drop_nulls("twins"))
    line = pl.concat([leaders.select("image_id", "shard"), new.select("image_id", "shard")])
    pictures = pictures_of(line, locate, max_megapixels=max_megapixels)
    ordered = sketches.in_order(new["sketch"].to_numpy(), scratch)
    member, leader = find_twins(leaders["phash"].to_numpy(), ordered, pictures, scratch)
    ids = line["image_id"]
    found = pl.DataFrame({"image_id": ids.gather(member), "found": ids.gather(leader)})
    found = found.group_by("image_id", maintain_order=True).agg("found")
    none = pl.lit([], dtype=pl.List(pl.String))
    return (
        manifest.join(found, on="image_id", how="left", maintain_order="left")
        .with_columns(pl.coalesce("twins", "found", none).alias("twins"))
        .drop("found")
    )


def count_twins(manifest: pl.DataFrame) -> tuple[int, int]:
    """Count the images that resemble an earlier one, and the images that these resemble."""
    pairs = _pairs(manifest)
    return pairs["image_id"].n_unique(), pairs["twin"].n_unique()


def pictures_of(line: pl.DataFrame, locate: Callable[[str], Path], *, max_megapixels: float) -> Pictures:
    """Make the function that decodes stored images.

    Parameters
    ----------
    line
        image_id and shard of each image; its row is its number.
    locate
        Where a shard lies.
    max_megapixels
        Pixel cap, `ingest.max_megapixels`.
    """

    def work(rows: list[tuple[int, bytes]]) -> list[tuple[int, Image.Image]]:
        return [(number, decode(data, max_megapixels=max_megapixels)) for number, data in rows]

    def pictures(asked: Indices) -> Iterator[tuple[int, Image.Image]]:
        waiting: deque[Future[list[tuple[int, Image.Image]]]] = deque()
        with ThreadPoolExecutor(threads(), thread_name_prefix="compare") as pool:
            for rows in _chunks(asked):
                waiting.append(pool.submit(work, rows))
                if len(waiting) > 2 * threads():
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()

    def _chunks(asked: Indices) -> Iterator[list[tuple[int, bytes]]]:
        shard_of = line["shard"].gather(asked)
        chunk: list[tuple[int, bytes]] = []
        for shard in shard_of.unique().sort():
            numbers = asked[(shard_of == shard).to_numpy()]
            number_of = dict(zip(line["image_id"].gather(numbers), numbers.tolist(), strict=True))
            for image_id, data in shards.pick(locate(shard), number_of):
                chunk.append((number_of[image_id], data))
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
    tied = images.select("image_id", pl.col("twins").alias("twin")).filter(pl.col("twin").list.len() > 0)
    return tied.explode("twin").drop_nulls()
