"""Near-duplicates are found when they arrive, and what was decided then stays: over drops, damage, and departures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from calotype import params as parameters
from calotype.data import dataset
from calotype.data.splitting import read_splits
from calotype.data.tables import write_table
from calotype.errors import DataError
from calotype.files import read_json, sha256_of, write_json
from calotype.project import Project
from calotype.stages import ingest, split

LATER = ("phash", "twins", "attributes")


def picture(seed: int) -> Image.Image:
    """A smooth picture of its own, unlike those of other seeds."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((48, 48), Image.Resampling.BICUBIC)


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg(seed: int, quality: int = 90) -> bytes:
    """Other bytes of the same picture."""
    buffer = io.BytesIO()
    picture(seed).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


@pytest.fixture
def pictures(project: Project) -> Path:
    """A source of two classes with 12 pictures each."""
    root = project.raw / "pictures"
    for label, start in (("a", 0), ("b", 100)):
        (root / label).mkdir(parents=True)
        for number in range(start, start + 12):
            (root / label / f"{number}.png").write_bytes(png(number))
    return root


def run(project: Project, source: str = "data/raw/pictures") -> pl.DataFrame:
    params = parameters.load(project.params)
    ingest.run(
        params.model_copy(update={"ingest": params.ingest.model_copy(update={"source": source, "min_per_class": 1})}),
        project,
    )
    return dataset.read_manifest(project.dataset)


def splits_of(project: Project) -> dict[str, str | None]:
    split.run(parameters.load(project.params), project)
    return dict(read_splits(project.splits).select("image_id", "split").iter_rows())


def row(manifest: pl.DataFrame, path: str) -> dict[str, object]:
    return manifest.filter(path=path).row(0, named=True)


def id_of(manifest: pl.DataFrame, path: str) -> str:
    return str(row(manifest, path)["image_id"])


def contents(project: Project) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in project.dataset.iterdir()}


@pytest.mark.usefixtures("pictures")
def test_pictures_of_their_own_are_no_twins(project: Project) -> None:
    manifest = run(project)
    assert manifest["twins"].to_list() == [[]] * 24
    assert manifest["phash"].n_unique() > 20


def test_a_near_duplicate_names_the_image_that_came_first(
    project: Project, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(project)
    assert "near-duplicates" not in capsys.readouterr().err
    (pictures / "a" / "again.jpg").write_bytes(jpeg(3))
    (pictures / "b" / "more.jpg").write_bytes(jpeg(3, 80))
    manifest = run(project)
    assert row(manifest, "a/again.jpg")["twins"] == row(manifest, "b/more.jpg")["twins"] == [id_of(manifest, "a/3.png")]
    assert row(manifest, "a/3.png")["twins"] == []
    said = capsys.readouterr().err
    assert "ingest: near-duplicates: 2 images resembling 1 earlier one" in said


def test_twins_are_found_among_photographs(project: Project) -> None:
    for number in range(8):
        photograph = picture(number).resize((400, 300), Image.Resampling.BICUBIC)
        path = project.raw / "pictures" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph.save(path, quality=90)
    photograph.resize((320, 240)).save(path.with_name("again.jpg"), quality=80)
    manifest = run(project)
    tied = manifest.filter(pl.col("twins").list.len() > 0)
    assert manifest.height == 9
    assert {Path(name).name for name in tied["path"]} < {"7.jpg", "again.jpg"}


def test_of_one_drop_the_smallest_image_id_comes_first(project: Project, pictures: Path) -> None:
    (pictures / "a" / "again.jpg").write_bytes(jpeg(3))
    manifest = run(project)
    first, second = sorted([id_of(manifest, "a/3.png"), id_of(manifest, "a/again.jpg")])
    twins = dict(manifest.select("image_id", "twins").iter_rows())
    assert twins[first] == []
    assert twins[second] == [first]


def test_what_was_decided_stays_when_more_arrives(project: Project, pictures: Path) -> None:
    (pictures / "a" / "again.jpg").write_bytes(jpeg(3))
    before = run(project)
    for number in range(4):
        (pictures / "b" / f"new{number}.jpg").write_bytes(jpeg(number, 80))
    after = run(project)
    assert after.join(before, on="image_id", how="semi").equals(before)
    assert after.filter(pl.col("drop") == 2)["twins"].list.len().to_list() == [1] * 4


def test_a_twin_goes_where_the_earlier_image_is(project: Project, pictures: Path) -> None:
    run(project)
    before = splits_of(project)
    for number in (*range(12), *range(100, 112)):
        (pictures / "a" / f"{number}.jpg").write_bytes(jpeg(number))
    manifest = run(project)
    after = splits_of(project)
    assert before.items() <= after.items()
    for name, twins in manifest.filter(pl.col("drop") == 2).select("image_id", "twins").iter_rows():
        assert after[name] == after[twins[0]]


def test_a_group_stays_where_it_is_when_its_first_image_leaves(project: Project, pictures: Path) -> None:
    run(project)
    for number in range(12):
        (pictures / "a" / f"{number}.jpg").write_bytes(jpeg(number))
    manifest = run(project)
    before = splits_of(project)
    for number in range(12):
        (pictures / "a" / f"{number}.png").unlink()
    remaining = run(project)
    assert remaining.height == 24
    assert splits_of(project).items() <= before.items()
    assert dataset.read_table(project.dataset, dataset.DEPARTED).height == 12
    assert row(remaining, "a/3.jpg")["twins"] == [id_of(manifest, "a/3.png")]


def test_a_new_twin_of_one_whose_first_image_left_joins_the_same_split(project: Project, pictures: Path) -> None:
    run(project)
    for number in range(12):
        (pictures / "a" / f"{number}.jpg").write_bytes(jpeg(number))
    run(project)
    for number in range(12):
        (pictures / "a" / f"{number}.png").unlink()
        (pictures / "b" / f"{number}.jpg").write_bytes(jpeg(number, 80))
    manifest = run(project)
    found = splits_of(project)
    for number in range(12):
        assert row(manifest, f"b/{number}.jpg")["twins"] == [id_of(manifest, f"a/{number}.jpg")]
        assert found[id_of(manifest, f"b/{number}.jpg")] == found[id_of(manifest, f"a/{number}.jpg")]


def test_an_image_that_comes_back_takes_its_old_place(project: Project, pictures: Path) -> None:
    (pictures / "a" / "again.jpg").write_bytes(jpeg(3))
    before = run(project)
    first = next(path for path in ("a/3.png", "a/again.jpg") if row(before, path)["twins"] == [])
    data = (pictures / first).read_bytes()
    (pictures / first).unlink()
    run(project)
    (pictures / first).write_bytes(data)
    after = run(project)
    assert after.drop("shard").equals(before.drop("shard"))
    assert row(after, first)["shard"] == "shard-00002-00000.parquet"
    assert dataset.read_table(project.dataset, dataset.DEPARTED).is_empty()
    (pictures / "a" / "next.png").write_bytes(png(50))
    assert row(run(project), "a/next.png")["drop"] == 3


def test_images_of_another_source_are_not_remembered(project: Project, pictures: Path) -> None:
    (pictures / "a" / "again.jpg").write_bytes(jpeg(3))
    run(project)
    run(project, "data/raw/digits")
    assert dataset.read_table(project.dataset, dataset.DEPARTED).is_empty()


def test_images_of_a_damaged_shard_keep_their_place(project: Project, pictures: Path) -> None:
    (pictures / "a" / "again.jpg").write_bytes(jpeg(3))
    before = run(project)
    (pictures / "b" / "new.jpg").write_bytes(jpeg(100))
    run(project)
    (project.dataset / "shard-00001-00000.parquet").unlink()
    after = run(project)
    assert after.filter(pl.col("drop") == 1).drop("shard").equals(before.drop("shard"))
    assert after["shard"].unique().sort().to_list() == ["shard-00002-00000.parquet", "shard-00003-00000.parquet"]
    assert row(after, "b/new.jpg")["twins"] == [id_of(after, "b/100.png")]


def make_version_1(project: Project) -> None:
    """Turn the dataset into one that the first form's ingest would have written."""
    folder = project.dataset
    manifest = dataset.read_manifest(folder).drop(LATER)
    write_table(manifest, folder / dataset.MANIFEST)
    for name in (dataset.CORRECTIONS, dataset.CROSSINGS, dataset.DEPARTED):
        (folder / name).unlink()
    digests = {path.name: sha256_of(path) for path in folder.iterdir() if path.name != dataset.DIGESTS}
    content = read_json(folder / dataset.DIGESTS)
    content |= {"format_version": 1, "files": digests, "digest": dataset.digest_over(digests)}
    write_json(folder / dataset.DIGESTS, content)


def test_a_dataset_of_the_first_form_is_brought_up_by_the_next_ingest(project: Project, pictures: Path) -> None:
    run(project)
    (pictures / "a" / "again.jpg").write_bytes(jpeg(3))
    run(project)
    present = contents(project)
    make_version_1(project)
    places = {path.name: path.stat().st_ino for path in project.dataset.glob("shard-*")}
    run(project)
    assert contents(project) == present
    assert {path.name: path.stat().st_ino for path in project.dataset.glob("shard-*")} == places


def test_what_arrives_with_the_upgrade_is_compared_too(project: Project, pictures: Path) -> None:
    run(project)
    make_version_1(project)
    (pictures / "a" / "again.jpg").write_bytes(jpeg(3))
    (pictures / "a" / "4.png").unlink()
    manifest = run(project)
    assert row(manifest, "a/again.jpg")["twins"] == [id_of(manifest, "a/3.png")]
    assert manifest["drop"].unique().sort().to_list() == [1, 2]
    assert manifest.height == 24


@pytest.mark.usefixtures("pictures")
def test_split_asks_for_the_upgrade(project: Project) -> None:
    run(project)
    make_version_1(project)
    with pytest.raises(DataError, match=r"a dataset of an older form\. Run `dvc repro ingest`"):
        splits_of(project)


def test_further_columns_of_a_table_reach_the_manifest(project: Project, pictures: Path) -> None:
    rows = [
        f"pictures/{path.relative_to(pictures)},{path.parent.name},S{path.stem}" for path in pictures.rglob("*.png")
    ]
    (project.raw / "table.csv").write_text("\n".join(["path,label,scanner", *rows, ""]))
    manifest = run(project, "data/raw/table.csv")
    assert row(manifest, "pictures/a/3.png")["attributes"] == '{"scanner": "S3"}'
    # They follow the table, not the drop.
    (project.raw / "table.csv").write_text("\n".join(["path,label", *(text.rpartition(",")[0] for text in rows), ""]))
    assert run(project, "data/raw/table.csv")["attributes"].null_count() == 24
