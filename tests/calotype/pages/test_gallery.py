"""Pictures for a page: read sparsely, checked, bounded."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from PIL import Image

from calotype.errors import DataError
from calotype.pages.gallery import pictures
from calotype.project import Project

WriteDataset = Callable[[list[dict[str, object]]], pl.DataFrame]


def png(seed: int, side: int = 8) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def draw(project: Project, image_ids: list[str], most: int = 1_000_000) -> list[str]:
    drawn = pictures(project.dataset, image_ids, max_megapixels=1, side=96, most_characters=most)
    return list(drawn)


def test_pictures_come_in_the_order_asked_for_until_there_is_no_room(
    project: Project, write_dataset: WriteDataset
) -> None:
    ids = write_dataset([{"data": png(seed)} for seed in range(20)])["image_id"].to_list()
    asked = [ids[7], ids[2], ids[7], ids[11]]
    assert draw(project, asked) == [ids[7], ids[2], ids[11]]
    each = len(pictures(project.dataset, ids[7:8], max_megapixels=1, side=96, most_characters=9999)[ids[7]].uri)
    assert draw(project, asked, most=each + 1) == [ids[7]]


def test_bytes_that_are_not_the_images_own_are_refused(project: Project, write_dataset: WriteDataset) -> None:
    manifest = write_dataset([{"data": png(seed)} for seed in range(3)])
    shard = project.dataset / manifest["shard"][0]
    data = bytearray(shard.read_bytes())
    place = data.find(b"IDAT")
    data[place + 8] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(DataError, match="dvc checkout"):
        draw(project, manifest["image_id"].to_list())


def test_a_missing_shard_and_an_unknown_image_say_what_to_do(project: Project, write_dataset: WriteDataset) -> None:
    manifest = write_dataset([{"data": png(1)}])
    with pytest.raises(DataError, match="dvc repro split"):
        draw(project, ["0" * 64])
    (project.dataset / manifest["shard"][0]).unlink()
    with pytest.raises(DataError, match="dvc checkout"):
        draw(project, manifest["image_id"].to_list())
