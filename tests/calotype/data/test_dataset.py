"""Reading a dataset: right images in the asked order, and nothing that its digests do not vouch for."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from PIL import Image

from calotype import params
from calotype.data import dataset, shards
from calotype.data.decode import decode, fit
from calotype.data.decoded import decoded
from calotype.errors import DataError
from calotype.files import read_json, write_json
from calotype.params import ImageParams
from calotype.project import Project
from calotype.stages import ingest

FORM = ImageParams(size=8, channels=1, resize="stretch")


@pytest.fixture
def stored(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """300 digits in three shards."""
    monkeypatch.setattr(shards, "MAX_IMAGES", 128)
    monkeypatch.setattr(shards, "GROUP_IMAGES", 50)
    ingest.run(params.load(project.params), project)
    return project.dataset


def load(folder: Path, image_ids: list[str], form: ImageParams = FORM, cap: float = 1.0) -> np.ndarray:
    return dataset.load_images(folder, image_ids, form, max_megapixels=cap, prefix="test")


def test_images_come_in_the_asked_order(stored: Path, project: Project) -> None:
    manifest = dataset.read_manifest(stored)
    assert manifest["shard"].n_unique() == 3
    chosen = random.Random(0).sample(manifest.select("image_id", "path").rows(), 100)
    images = load(stored, [image_id for image_id, _ in chosen])
    assert images.shape == (100, 1, 8, 8)
    for (_, path), image in zip(chosen, images, strict=True):
        data = (project.raw / "digits" / path).read_bytes()
        assert image.tobytes() == data[-64:]


def test_all_at_once_equals_one_by_one(stored: Path) -> None:
    ids = dataset.read_manifest(stored)["image_id"].to_list()[:20]
    form = ImageParams(size=13, channels=3, resize="pad")
    together = load(stored, ids, form)
    for image_id, image in zip(ids, together, strict=True):
        assert np.array_equal(load(stored, [image_id], form)[0], image)
        ((_, data),) = dataset.read_bytes(stored, [image_id])
        assert np.array_equal(fit(decode(data, max_megapixels=1), form), image)


def test_no_images_give_an_empty_array(stored: Path) -> None:
    assert load(stored, []).shape == (0, 1, 8, 8)


def test_every_byte_comes_back(stored: Path, project: Project) -> None:
    manifest = dataset.read_manifest(stored)
    paths = dict(manifest.select("image_id", "path").iter_rows())
    read = dict(dataset.read_bytes(stored, list(paths)))
    assert {i: (project.raw / "digits" / path).read_bytes() for i, path in paths.items()} == read


def test_shards_read_as_pictures_elsewhere(stored: Path) -> None:
    name = shards.name_of(1, 0)
    schema = pq.read_schema(stored / name)
    assert b'"_type": "Image"' in schema.metadata[b"huggingface"]
    row = pl.read_parquet(stored / name, n_rows=1).row(0, named=True)
    assert Image.open(io.BytesIO(row["image"]["bytes"])).size == (8, 8)
    assert row["image"]["path"] == f"{row['image_id']}.ppm"


@pytest.mark.parametrize("name", ["manifest.parquet", shards.name_of(1, 1)])
def test_a_flipped_bit_is_refused(stored: Path, name: str) -> None:
    ids = dataset.read_manifest(stored)["image_id"].to_list()
    data = bytearray((stored / name).read_bytes())
    data[len(data) // 2] ^= 1
    (stored / name).write_bytes(data)
    with pytest.raises(DataError, match=f"{name}: its bytes differ from the digest"):
        load(stored, ids)


def test_a_missing_shard_is_named(stored: Path) -> None:
    ids = dataset.read_manifest(stored)["image_id"].to_list()
    (stored / shards.name_of(1, 2)).unlink()
    with pytest.raises(DataError, match=r"shard-00001-00002\.parquet: no such file.*dvc checkout"):
        load(stored, ids)


def test_an_unknown_image_is_named(stored: Path) -> None:
    with pytest.raises(DataError, match=r"1 of the images asked for is not there, such as ffffffffffff….*dvc repro"):
        load(stored, ["f" * 64])


def test_asking_twice_for_an_image_is_a_mistake(stored: Path) -> None:
    first = dataset.read_manifest(stored)["image_id"][0]
    with pytest.raises(ValueError, match="twice"):
        load(stored, [first, first])


def test_a_lowered_cap_is_refused_by_name(stored: Path) -> None:
    first = dataset.read_manifest(stored)["image_id"][0]
    with pytest.raises(DataError, match=f"image {first[:12]}….*too-large"):
        load(stored, [first], cap=1e-6)


def test_no_dataset_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no dataset there.*dvc repro ingest"):
        dataset.read_manifest(tmp_path)


def test_a_newer_form_is_refused_by_name(stored: Path) -> None:
    content = read_json(stored / "digests.json") | {"format_version": dataset.FORMAT_VERSION + 1}
    write_json(stored / "digests.json", content)
    with pytest.raises(DataError, match=r"digests\.json: format_version 3; .*up to 2"):
        dataset.read_manifest(stored)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format_version": 1, "files": {"a": "b"}, "digest": "c"}'])
def test_broken_digests_are_refused(stored: Path, text: str) -> None:
    (stored / "digests.json").write_text(text)
    with pytest.raises(DataError, match="cannot be read"):
        dataset.digest(stored)


def test_picked_images_come_in_the_order_of_the_shard_without_reading_other_groups(stored: Path) -> None:
    path = stored / shards.name_of(1, 0)
    ids = pq.read_table(path, columns=["image_id"])["image_id"].to_pylist()
    chosen = [ids[3], ids[60], ids[61], ids[127]]
    picked = list(shards.pick(path, {*chosen, "f" * 64}))
    assert [image_id for image_id, _ in picked] == chosen
    assert dict(picked) == dict(dataset.read_bytes(stored, chosen))


def test_too_many_images_for_memory_lie_in_a_file_that_serves_again(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = dataset.read_manifest(stored)["image_id"].to_list()[:40]
    form = ImageParams(size=13, channels=3, resize="pad")

    def read(memory_gb: float) -> np.ndarray:
        cache = tmp_path / "decoded"
        return decoded(stored, ids, form, max_megapixels=1, memory_gb=memory_gb, cache=cache, prefix="test")

    in_memory = read(1.0)
    assert not (tmp_path / "decoded").exists()
    mapped = read(1e-6)
    assert np.array_equal(in_memory, mapped)
    assert np.array_equal(in_memory, load(stored, ids, form))
    (file,) = (tmp_path / "decoded").iterdir()
    assert file.stat().st_size == in_memory.nbytes
    monkeypatch.setattr(dataset, "_work_through", None)
    assert np.array_equal(read(1e-6), in_memory)
