"""Pictures of some images of the dataset for a page: read sparsely, shrunk, and bounded in what they add to it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa

from calotype.data import shards
from calotype.data.dataset import read_manifest, threads
from calotype.data.decode import DecodeError
from calotype.errors import DataError
from calotype.pages import picture


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, and whether a page should enlarge its pixels."""

    uri: str
    is_small: bool


@dataclass(frozen=True)
class Tile:
    """A picture with words below it; ``picture`` is None where it had no room on the page."""

    picture: Picture | None
    alt: str
    title: str = ""
    suggestion: str = ""
    split: str = ""
    note: str = ""


def pictures(
    dataset: Path,
    image_ids: Sequence[str],
    *,
    max_megapixels: float,
    side: int = 192,
    most_characters: float = math.inf,
) -> dict[str, Picture]:
    """Make pictures of images, the first of ``image_ids`` first, until ``most_characters`` are used up.

    Only the row groups that hold these images are read; each image is checked against its own id, which is the
    SHA-256 of its bytes.

    Raises
    ------
    DataError
        If an image is not in the dataset, or if its bytes are not those that ingest stored.
    """
    wanted = list(dict.fromkeys(image_ids))

    def draw(item: tuple[str, bytes]) -> tuple[str, Picture]:
        image_id, data = item
        try:
            return image_id, Picture(*picture(data, max_megapixels=max_megapixels, side=side))
        except DecodeError as error:
            raise DataError(f"image {image_id[:12]}…: {error}. Run `dvc repro --force ingest`.") from error

    with ThreadPoolExecutor(threads(), thread_name_prefix="picture") as pool:
        drawn = dict(pool.map(draw, _read(dataset, wanted)))
    kept: dict[str, Picture] = {}
    for image_id in wanted:
        most_characters -= len(drawn[image_id].uri)
        if most_characters < 0:
            break
        kept[image_id] = drawn[image_id]
    return kept


def _read(dataset: Path, image_ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    rows = read_manifest(dataset).select("image_id", "shard").filter(pl.col("image_id").is_in(list(image_ids)))
    found = 0
    for (shard,), part in rows.sort("shard", "image_id").group_by("shard", maintain_order=True):
        for image_id, data in _read_shard(dataset / str(shard), set(part["image_id"])):
            if hashlib.sha256(data).hexdigest() != image_id:
                raise _damaged(dataset / str(shard), f"the bytes of image {image_id[:12]}… differ from its id")
            found += 1
            yield image_id, data
    if found < len(image_ids):
        raise DataError(
            f"{dataset}: {len(image_ids) - found:,} of the images asked for are not there: splits and dataset belong "
            f"to different states. Run `dvc repro split`."
        )


def _read_shard(path: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    try:
        yield from shards.pick(path, wanted)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, " ".join(str(error).split())[:200]) from error


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path}: not what ingest wrote: {reason}. Run `dvc checkout`; else `dvc repro --force ingest`.")
