"""Split writes splits and counts, says them, and refuses a class that a split lacks."""

from __future__ import annotations

import shutil

import polars as pl
import pytest

from calotype import params as parameters
from calotype.data.dataset import DIGESTS, MANIFEST, digest_over, read_manifest
from calotype.data.splitting import LEAK_SCHEMA, assign, read_splits
from calotype.data.tables import write_table
from calotype.errors import DataError
from calotype.files import read_json, sha256_of, write_json
from calotype.params import Params
from calotype.project import Project
from calotype.stages import ingest, split


@pytest.fixture
def ingested(project: Project) -> tuple[Params, Project]:
    params = parameters.load(project.params)
    ingest.run(params, project)
    return params, project


def test_every_image_has_one_split(ingested: tuple[Params, Project]) -> None:
    params, project = ingested
    split.run(params, project)
    splits = read_splits(project.splits)
    assert splits["image_id"].to_list() == read_manifest(project.dataset)["image_id"].to_list()
    assert set(splits["split"]) == {"train", "val", "test"}


def test_running_again_gives_equal_bytes(ingested: tuple[Params, Project]) -> None:
    params, project = ingested
    split.run(params, project)
    first = [project.splits.read_bytes(), (project.root / "data/split_counts.csv").read_bytes()]
    split.run(params, project)
    assert [project.splits.read_bytes(), (project.root / "data/split_counts.csv").read_bytes()] == first


def test_the_counts_are_saved_and_said(ingested: tuple[Params, Project], capsys: pytest.CaptureFixture[str]) -> None:
    params, project = ingested
    split.run(params, project)
    counts = pl.read_csv(project.root / "data" / "split_counts.csv", schema_overrides={"label": pl.String})
    assert counts.columns == ["label", "train", "val", "test"]
    assert counts.select(pl.sum_horizontal("train", "val", "test")).to_series().to_list() == [30] * 10
    said = capsys.readouterr()
    assert said.out == ""
    row = [str(value) for value in counts.row(3)]
    assert ["split:", *row] in [line.split() for line in said.err.splitlines()]


def test_a_class_that_a_split_lacks_is_refused_before_anything_is_written(ingested: tuple[Params, Project]) -> None:
    params, project = ingested
    tiny = params.model_copy(update={"split": params.split.model_copy(update={"val": 0.001})})
    with pytest.raises(DataError, match="missing from a split"):
        split.run(tiny, project)
    assert not project.splits.exists()


def test_a_damaged_manifest_is_refused(ingested: tuple[Params, Project]) -> None:
    params, project = ingested
    path = project.dataset / "manifest.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    with pytest.raises(DataError, match="differ from the digest"):
        split.run(params, project)


def divided(project: Project) -> Params:
    """A source that declares splits, and in which each of ten groups has an image in train and one in test."""
    rows = ["path,label,split,group"]
    for label in ("0", "1"):
        for number, path in enumerate(sorted((project.raw / "digits" / label).iterdir())):
            name = ("train", "val", "test")[number % 3]
            group = f"g{label}{number // 3}" if number < 15 and name != "val" else ""
            rows.append(f"digits/{label}/{path.name},{label},{name},{group}")
    (project.raw / "table.csv").write_text("\n".join([*rows, ""]))
    params = parameters.load(project.params)
    return params.model_copy(
        update={"ingest": params.ingest.model_copy(update={"source": "data/raw/table.csv"}), "split": params.split}
    )


def test_few_groups_that_make_uneven_splits_are_said_and_shown(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["path,label,group"]
    for label in ("0", "1"):
        paths = sorted((project.raw / "digits" / label).iterdir())
        rows += [f"digits/{label}/{path.name},{label},g{number // 10}" for number, path in enumerate(paths)]
    (project.raw / "table.csv").write_text("\n".join([*rows, ""]))
    params = parameters.load(project.params)
    salt = next(salt for salt in map(str, range(999)) if splits_drawn(params, salt) == {"train", "val", "test"})
    params = params.model_copy(
        update={
            "ingest": params.ingest.model_copy(update={"source": "data/raw/table.csv"}),
            "split": params.split.model_copy(update={"salt": salt}),
        }
    )
    ingest.run(params, project)
    split.run(params, project)
    words = "shares more than 5 points from those asked: train 33 % (asked 70 %), val 33 % (asked 10 %)"
    assert f"split: {words}" in capsys.readouterr().err
    assert f"Splits: {words}" in (project.reports / "data.html").read_text()


def splits_drawn(params: Params, salt: str) -> set[str]:
    """Where three groups go."""
    columns = {"image_id": ["a", "b", "c"], "drop": 1, "declared_split": None, "group": ["g0", "g1", "g2"]}
    images = pl.DataFrame(columns).with_columns(pl.lit([], pl.List(pl.String)).alias("twins"))
    return set(assign(images, params.split.model_copy(update={"salt": salt}))["split"])


def leaking(params: Params, on_leak: str) -> Params:
    return params.model_copy(update={"split": params.split.model_copy(update={"on_leak": on_leak})})


def statuses(project: Project) -> dict[str, int]:
    return dict(read_splits(project.splits)["status"].value_counts().iter_rows())


def test_leaks_are_refused_listed_and_shown_where_they_are_an_error(project: Project) -> None:
    params = divided(project)
    ingest.run(params, project)
    with pytest.raises(DataError) as caught:
        split.run(leaking(params, "error"), project)
    lines = str(caught.value).splitlines()
    assert "split: 10 images leak" in lines[0]
    assert "reports/leaks.csv" in lines[0]
    assert "`split.on_leak` to move" in lines[0]
    assert lines[1] == "  digits/0/0000.pgm (train) ~ digits/0/0002.pgm (test): group g00"
    leaks = pl.read_csv(project.reports / "leaks.csv")
    assert leaks.height == 10
    assert leaks.columns == list(LEAK_SCHEMA)
    assert (project.reports / "data.html").exists()
    assert not project.splits.exists()
    split.run(leaking(params, "keep"), project)
    assert pl.read_csv(project.reports / "leaks.csv").height == 10
    split.run(leaking(params, "move"), project)
    assert not (project.reports / "leaks.csv").exists()


def test_leaks_are_moved_and_counted(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    params = divided(project)
    ingest.run(params, project)
    split.run(leaking(params, "move"), project)
    splits = read_splits(project.splits)
    assert (
        splits.drop_nulls("group").group_by("group").agg(pl.col("split").unique())["split"].to_list() == [["test"]] * 10
    )
    assert statuses(project) == {"kept": 50, "moved": 10}
    said = capsys.readouterr().err
    assert "split: grouped: 20 images in 10 groups" in said
    assert "split: moved: 10 images, declared elsewhere than where their group lives" in said


def copied(project: Project) -> Params:
    """A source that declares splits: one test image lies in train too, and one val image twice."""
    root = project.raw / "copied"
    for label in ("0", "1"):
        for number, path in enumerate(sorted((project.raw / "digits" / label).iterdir())):
            target = root / ("train", "val", "test")[number % 3] / label / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    shutil.copy(root / "test/0/0002.pgm", root / "train/0/again.pgm")
    for name in ("one", "two"):
        shutil.copy(root / "val/1/0001.pgm", root / f"train/1/{name}.pgm")
    params = parameters.load(project.params)
    return params.model_copy(
        update={"ingest": params.ingest.model_copy(update={"source": "data/raw/copied", "min_per_class": 1})}
    )


def test_identical_files_in_different_declared_splits_are_refused_where_leaks_are_an_error(project: Project) -> None:
    params = copied(project)
    ingest.run(params, project)
    with pytest.raises(DataError) as caught:
        split.run(leaking(params, "error"), project)
    assert str(caught.value) == (
        "split: 2 images are declared for different splits by files of identical bytes: train/0/again.pgm (train) = "
        "test/0/0002.pgm (test); train/1/one.pgm (train) = val/1/0001.pgm (val); train/1/two.pgm (train) = "
        "val/1/0001.pgm (val). All are in reports/leaks.csv and shown in reports/data.html. Remove the copies, or set "
        "`split.on_leak` to move or keep (both keep one file of each image, that of test before val before train), "
        "then run `dvc repro`."
    )
    leaks = pl.read_csv(project.reports / "leaks.csv")
    assert leaks.select("path", "other_path", "tie").row(0) == (
        "train/0/again.pgm",
        "test/0/0002.pgm",
        "identical bytes",
    )
    page = (project.reports / "data.html").read_text()
    assert "3 files that split.on_leak: error refuses" in page
    assert not project.splits.exists()


@pytest.mark.parametrize("on_leak", ["move", "keep"])
def test_identical_files_in_different_declared_splits_are_one_image_and_shown(project: Project, on_leak: str) -> None:
    params = copied(project)
    ingest.run(params, project)
    split.run(leaking(params, on_leak), project)
    both = read_manifest(project.dataset).join(read_splits(project.splits), on="image_id")
    assert both.height == 60
    assert both["split"].equals(both["declared_split"].rename("split"))
    assert not (project.reports / "leaks.csv").exists()
    page = (project.reports / "data.html").read_text()
    assert "3 files set aside, the image is kept once" in page
    assert "<td>train/0/again.pgm</td><td>train</td><td>test/0/0002.pgm</td><td>test</td>" in page
    assert "No image has a near-duplicate or a group mate in another split" in page


def test_once_the_copies_are_removed_nothing_is_refused(project: Project) -> None:
    params = copied(project)
    ingest.run(params, project)
    for path in ("0/again", "1/one", "1/two"):
        (project.raw / "copied" / "train" / f"{path}.pgm").unlink()
    ingest.run(params, project)
    split.run(leaking(params, "error"), project)
    assert statuses(project) == {"kept": 60}


@pytest.mark.parametrize("on_leak", ["keep", "error"])
def test_a_leak_is_gone_everywhere_once_its_counterpart_left(
    project: Project, on_leak: str, capsys: pytest.CaptureFixture[str]
) -> None:
    params = divided(project)
    ingest.run(params, project)
    split.run(leaking(params, "keep"), project)
    table = project.raw / "table.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(line for line in lines if ",test,g" not in line))
    ingest.run(params, project)
    capsys.readouterr()
    split.run(leaking(params, on_leak), project)
    assert statuses(project) == {"kept": 50}
    assert not (project.reports / "leaks.csv").exists()
    page = (project.reports / "data.html").read_text()
    assert "Leaks between splits" not in page
    assert "No image has a near-duplicate or a group mate in another split" in page
    assert "leaks kept" not in capsys.readouterr().err


def test_leaks_are_kept_and_counted(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    params = divided(project)
    ingest.run(params, project)
    split.run(leaking(params, "keep"), project)
    both = read_manifest(project.dataset).join(read_splits(project.splits), on="image_id")
    assert both["split"].equals(both["declared_split"].rename("split"))
    assert statuses(project) == {"kept": 50, "leak": 10}
    assert "split: leaks kept: 10 images, declared elsewhere" in capsys.readouterr().err


def test_a_left_out_image_is_said_and_counted_in_no_split(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    params = divided(project)
    ingest.run(params, project)
    manifest = read_manifest(project.dataset)
    ends = {
        name: manifest.filter(pl.col("group").is_null(), declared_split=name)["image_id"][0] for name in ("val", "test")
    }
    newcomer = manifest.filter(pl.col("group").is_null(), declared_split="train")["image_id"][0]
    tied = pl.when(pl.col("image_id") == newcomer)
    changed = manifest.with_columns(
        tied.then(pl.lit(list(ends.values()))).otherwise("twins").alias("twins"),
        tied.then(pl.lit(2, pl.Int32)).otherwise("drop").alias("drop"),
    )
    with_manifest(project, changed)
    split.run(params, project)
    splits = read_splits(project.splits)
    assert splits.filter(image_id=newcomer).select("split", "status").row(0) == (None, "bridge")
    assert pl.read_csv(project.root / "data" / "split_counts.csv").select("train", "val", "test").to_numpy().sum() == 59
    assert "split: left out: 1 image tied to groups of different splits" in capsys.readouterr().err


def with_manifest(project: Project, manifest: pl.DataFrame) -> None:
    """Put another manifest into the dataset, digests and all."""
    write_table(manifest, project.dataset / MANIFEST)
    content = read_json(project.dataset / DIGESTS)
    content["files"][MANIFEST] = sha256_of(project.dataset / MANIFEST)
    write_json(project.dataset / DIGESTS, content | {"digest": digest_over(content["files"])})


def test_a_long_table_shows_the_smallest_classes() -> None:
    counts = pl.DataFrame(
        {"label": [f"c{n:03}" for n in range(100)], "train": [100 - n for n in range(100)], "val": 1, "test": 1}
    )
    lines = split.table_of(counts)
    assert len(lines) == split.MOST_CLASSES_SHOWN + 3
    assert "c099" in lines[-3]
    assert "80 larger classes" in lines[-2]
    assert "5,050" in lines[-1]
    assert "1 larger class in" in split.table_of(counts.head(split.MOST_CLASSES_SHOWN + 1))[-2]
