"""Ingest keeps each image once, leaves what is there as it is, and converges wherever it was killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from calotype import params as parameters
from calotype.data import dataset, shards
from calotype.errors import CalotypeError, DataError
from calotype.files import read_json, write_json
from calotype.project import Project
from calotype.stages import ingest, scan

Contents = dict[str, bytes]


def run(project: Project, **changes: object) -> pl.DataFrame:
    params = parameters.load(project.params)
    ingest.run(params.model_copy(update={"ingest": params.ingest.model_copy(update=changes)}), project)
    return dataset.read_manifest(project.dataset)


def contents(project: Project) -> Contents:
    return {path.name: path.read_bytes() for path in project.dataset.iterdir()}


def shards_of(project: Project) -> Contents:
    return {name: data for name, data in contents(project).items() if name.startswith("shard")}


def digits(project: Project) -> Path:
    return project.raw / "digits"


def pgm(number: int, size: int = 8) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, size * size, dtype=np.uint8).tobytes()
    return b"P5\n%d %d\n255\n" % (size, size) + pixels


def refused(project: Project, **changes: object) -> str:
    with pytest.raises(DataError) as caught:
        run(project, **changes)
    return str(caught.value)


def test_each_image_becomes_a_row(project: Project) -> None:
    manifest = run(project)
    assert manifest.height == 300
    assert manifest["image_id"].is_sorted()
    assert manifest.schema == dataset.MANIFEST_SCHEMA
    row = manifest.filter(pl.col("path") == "3/0004.pgm").row(0, named=True)
    assert (row["label"], row["width"], row["height"], row["mode"], row["format"]) == ("3", 8, 8, "L", "PPM")
    assert (row["bytes"], row["drop"], row["shard"]) == (75, 1, "shard-00001-00000.parquet")
    assert set(contents(project)) == {
        "shard-00001-00000.parquet",
        "manifest.parquet",
        "rejects.parquet",
        "corrections.parquet",
        "crossings.parquet",
        "departed.parquet",
        "digests.json",
    }


def test_digests_are_those_of_the_files(project: Project) -> None:
    run(project)
    listed = dataset.read_digests(project.dataset)
    assert set(listed) == set(contents(project)) - {"digests.json"}
    assert all(dataset.read_verified(project.dataset, name, listed) for name in listed)


def test_running_again_touches_nothing(project: Project) -> None:
    run(project)
    before = {path: (path.read_bytes(), path.stat().st_ino) for path in project.dataset.iterdir()}
    run(project)
    assert {path: (path.read_bytes(), path.stat().st_ino) for path in project.dataset.iterdir()} == before


def test_an_equal_source_elsewhere_gives_equal_bytes(project: Project) -> None:
    run(project)
    first = contents(project)
    shutil.rmtree(project.dataset)
    shutil.move(digits(project), project.raw / "elsewhere")
    run(project, source="data/raw/elsewhere")
    assert contents(project) == first


def test_a_second_drop_adds_shards_and_leaves_the_old_ones(project: Project) -> None:
    run(project)
    before = shards_of(project)
    for number in range(20):
        (digits(project) / "7" / f"more{number}.pgm").write_bytes(pgm(number))
    manifest = run(project)
    after = shards_of(project)
    assert before.items() < after.items()
    assert set(after) - set(before) == {"shard-00002-00000.parquet"}
    assert manifest.filter(pl.col("drop") == 2)["path"].str.starts_with("7/more").all()
    assert manifest.height == 320


def test_an_image_gone_from_the_source_leaves_manifest_and_shard(project: Project) -> None:
    gone = run(project).filter(pl.col("path") == "5/0007.pgm")["image_id"].item()
    (digits(project) / "5" / "0007.pgm").unlink()
    manifest = run(project)
    assert gone not in manifest["image_id"].to_list()
    rows = pl.read_parquet(project.dataset / "shard-00001-00000.parquet")
    assert sorted(rows["image_id"]) == manifest["image_id"].to_list()
    assert manifest["drop"].unique().to_list() == [1]


def test_a_shard_that_every_image_left_is_gone(project: Project) -> None:
    run(project)
    added = [digits(project) / "7" / f"more{number}.pgm" for number in range(5)]
    for number, path in enumerate(added):
        path.write_bytes(pgm(number))
    before = run(project).height
    for path in added:
        path.unlink()
    assert run(project).height == before - 5
    assert set(shards_of(project)) == {"shard-00001-00000.parquet"}


def test_only_the_shards_that_images_left_are_rewritten(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_IMAGES", 100)
    manifest = run(project)
    before = shards_of(project)
    assert set(before) == {shards.name_of(1, number) for number in range(3)}
    leaving = manifest.filter(pl.col("shard") == shards.name_of(1, 1)).row(0, named=True)
    (digits(project) / leaving["path"]).unlink()
    run(project)
    after = shards_of(project)
    assert [name for name in before if before[name] != after[name]] == [shards.name_of(1, 1)]


def test_shards_are_bounded_in_bytes(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_BYTES", 75 * 60)
    assert run(project)["shard"].value_counts()["count"].to_list() == [60] * 5


def test_a_renamed_file_changes_the_manifest_alone(project: Project) -> None:
    before_manifest = run(project)
    before = shards_of(project)
    (digits(project) / "5" / "0007.pgm").rename(digits(project) / "5" / "seven.pgm")
    manifest = run(project)
    assert shards_of(project) == before
    assert "5/seven.pgm" in manifest["path"].to_list()
    assert manifest.drop("path").equals(before_manifest.drop("path"))


def test_a_relabelled_file_changes_the_manifest_alone(project: Project) -> None:
    run(project)
    before = shards_of(project)
    (digits(project) / "5" / "0007.pgm").rename(digits(project) / "6" / "7.pgm")
    manifest = run(project)
    assert shards_of(project) == before
    assert manifest.filter(pl.col("path") == "6/7.pgm")["label"].item() == "6"


def test_another_source_starts_from_drop_one(project: Project) -> None:
    run(project)
    for label in ("a", "b"):
        (project.raw / "other" / label).mkdir(parents=True)
        for number in range(6):
            (project.raw / "other" / label / f"{number}.pgm").write_bytes(pgm(number + 100 * ord(label)))
    manifest = run(project, source="data/raw/other")
    assert manifest["drop"].unique().to_list() == [1]
    assert set(shards_of(project)) == {"shard-00001-00000.parquet"}
    assert manifest.height == 12


def test_duplicates_are_kept_once_and_said(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        shutil.copy(digits(project) / "2" / "0000.pgm", digits(project) / "2" / f"A{number}.pgm")
    manifest = run(project)
    assert manifest.height == 300
    assert "repeating the bytes of another: 3 files" in capsys.readouterr().err


def test_an_image_in_two_declared_splits_stays_in_test_and_is_named(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    root = project.raw / "declared"
    for split in ("train", "val", "test"):
        for label in ("a", "b"):
            (root / split / label).mkdir(parents=True)
            for number in range(6):
                (root / split / label / f"{number}.pgm").write_bytes(pgm(hash_of(split, label, number)))
    (root / "train" / "a" / "leak.pgm").write_bytes((root / "test" / "a" / "1.pgm").read_bytes())
    (root / "train" / "b" / "leak.pgm").write_bytes((root / "val" / "b" / "1.pgm").read_bytes())
    manifest = run(project, source="data/raw/declared")
    kept = dict(manifest.select("path", "declared_split").iter_rows())
    assert kept["test/a/1.pgm"] == "test"
    assert kept["val/b/1.pgm"] == "val"
    assert not [path for path in kept if "leak" in path]
    said = capsys.readouterr().err
    assert "2 images in several declared splits" in said
    assert "test/a/1.pgm = train/a/leak.pgm" in said
    crossings = dataset.read_table(project.dataset, dataset.CROSSINGS).select("path", "declared_split")
    assert sorted(crossings.rows()) == [
        ("test/a/1.pgm", "test"),
        ("train/a/leak.pgm", "train"),
        ("train/b/leak.pgm", "train"),
        ("val/b/1.pgm", "val"),
    ]


def hash_of(split: str, label: str, number: int) -> int:
    return int.from_bytes(f"{split}{label}{number}".encode(), "big")


def test_one_image_under_two_labels_is_refused_and_listed(project: Project) -> None:
    shutil.copy(digits(project) / "1" / "0000.pgm", digits(project) / "2" / "one.pgm")
    text = refused(project)
    assert "1 image under two labels" in text
    assert "1/0000.pgm (1) = 2/one.pgm (2)" in text
    saved = pl.read_csv(project.reports / "label_conflicts.csv")
    assert saved["path"].to_list() == ["1/0000.pgm", "2/one.pgm"]
    assert not project.dataset.exists()


def test_bad_images_are_set_aside_with_a_code(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (digits(project) / "4" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (digits(project) / "4" / "page.jpg").write_bytes(b"<!DOCTYPE html>")
    (digits(project) / "4" / "none.png").write_bytes(b"")
    assert run(project).height == 300
    rejects = pl.read_parquet(project.dataset / "rejects.parquet")
    assert rejects.select("path", "code").rows() == [
        ("4/bad.png", "truncated"),
        ("4/none.png", "empty"),
        ("4/page.jpg", "unsupported-format"),
    ]
    assert "ingest: rejected: 3 files (empty 1, truncated 1, unsupported-format 1)" in capsys.readouterr().err


def test_a_misnamed_png_is_an_image(project: Project) -> None:
    Image.new("RGB", (9, 7), "red").save(digits(project) / "4" / "really_png.jpg", "PNG")
    row = run(project).filter(pl.col("path") == "4/really_png.jpg").row(0, named=True)
    assert (row["format"], row["mode"], row["width"], row["height"]) == ("PNG", "RGB", 9, 7)


def test_too_many_bad_images_stop_the_run(project: Project) -> None:
    for number in range(4):
        (digits(project) / "4" / f"bad{number}.png").write_bytes(b"")
    text = refused(project)
    assert "4 of 304 files cannot be used (empty 4), which is 1.32%" in text
    assert "ingest.max_reject_fraction: 0.01" in text
    assert "4/bad0.png: 0 bytes" in text
    assert pl.read_csv(project.reports / "rejects.csv").height == 4
    assert run(project, max_reject_fraction=0.05).height == 300


def test_a_refused_source_leaves_the_dataset_as_it_was(project: Project) -> None:
    run(project)
    before = contents(project)
    (digits(project) / "4" / "new.pgm").write_bytes(pgm(1))
    for number in range(9):
        (digits(project) / "4" / f"bad{number}.png").write_bytes(b"")
    refused(project)
    assert contents(project) == before
    assert sorted(path.name for path in project.dataset.parent.iterdir()) == ["dataset", "raw"]


def test_small_and_empty_classes_stop_the_run_all_at_once(project: Project) -> None:
    (digits(project) / "empty").mkdir()
    (digits(project) / "few").mkdir()
    (digits(project) / "few" / "1.pgm").write_bytes(pgm(1))
    text = refused(project)
    assert "1 class without images: empty" in text
    assert "fewer than 5 different readable images (ingest.min_per_class): few (1)" in text


def test_a_single_class_stops_the_run(project: Project) -> None:
    for number in range(1, 10):
        shutil.rmtree(digits(project) / str(number))
    assert "a single class, '0'" in refused(project)


def test_a_lowered_cap_sets_known_images_aside(project: Project) -> None:
    run(project)
    for number in range(3):
        (digits(project) / "4" / f"large{number}.pgm").write_bytes(pgm(number, size=16))
    assert run(project).height == 303
    manifest = run(project, max_megapixels=0.0001)
    assert manifest.height == 300
    rejects = pl.read_parquet(project.dataset / "rejects.parquet")
    assert rejects["code"].to_list() == ["too-large"] * 3


def test_a_source_that_changed_since_scan_is_refused(project: Project) -> None:
    scan.run(parameters.load(project.params), project)
    run(project)
    (digits(project) / "4" / "new.pgm").write_bytes(pgm(1))
    with pytest.raises(CalotypeError, match=r"changed since it was scanned.*dvc repro"):
        run(project)


def test_links_into_the_cache_are_never_written_through(project: Project) -> None:
    run(project)
    cache = project.root / "cache"
    cache.mkdir()
    for path in project.dataset.iterdir():
        path.chmod(0o444)
        os.link(path, cache / path.name)
    before = {path.name: path.read_bytes() for path in cache.iterdir()}
    (digits(project) / "5" / "0007.pgm").unlink()
    (digits(project) / "5" / "new.pgm").write_bytes(pgm(5))
    run(project)
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == before
    assert contents(project)["manifest.parquet"] != before["manifest.parquet"]


@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_a_damaged_shard_is_packed_again_from_the_source(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    monkeypatch.setattr(shards, "MAX_IMAGES", 100)
    ids = run(project)["image_id"]
    path = project.dataset / shards.name_of(1, 1)
    path.write_bytes(path.read_bytes()[:-9] + b"123456789") if damage == "flipped" else path.unlink()
    whole = {name: data for name, data in shards_of(project).items() if name != path.name}
    manifest = run(project)
    assert manifest["image_id"].equals(ids)
    assert whole.items() < shards_of(project).items()
    assert set(shards_of(project)) - set(whole) == {shards.name_of(2, 0)}
    assert dict(dataset.read_bytes(project.dataset, ids.to_list())).keys() == set(ids)
    assert f"shards again: {path.name}" in capsys.readouterr().err


def test_a_damaged_manifest_starts_anew(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    run(project)
    before = contents(project)
    (project.dataset / "manifest.parquet").write_bytes(b"")
    run(project)
    assert contents(project) == before
    assert "starts anew, because the dataset is damaged" in capsys.readouterr().err


def test_a_newer_dataset_is_left_alone(project: Project) -> None:
    run(project)
    path = project.dataset / "digests.json"
    write_json(path, read_json(path) | {"format_version": 9})
    assert "format_version 9" in refused(project)


def test_strangers_in_the_folder_do_not_stay(project: Project) -> None:
    run(project)
    before = contents(project)
    (project.dataset / ".manifest.parquet.123.tmp").write_bytes(b"half")
    run(project)
    assert contents(project) == before


KILLED = """
import os, signal, sys
seen = 0
def watch(event, arguments):
    global seen
    if event in ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
        seen += 1
        if seen == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
from pathlib import Path
from calotype import params
from calotype.project import Project
from calotype.stages import ingest
project = Project(Path(sys.argv[1]))
start = seen = 0
ingest.run(params.load(project.params), project)
"""


@pytest.mark.slow
def test_killed_anywhere_the_next_run_gives_the_same_bytes(project: Project, tmp_path: Path) -> None:
    run(project)
    for name in ("0000", "0001"):
        (digits(project) / "5" / f"{name}.pgm").unlink()
    for number in range(20):
        (digits(project) / "7" / f"more{number}.pgm").write_bytes(pgm(number))
    whole = copy_of(project, tmp_path / "whole")
    run(whole)
    killed = 0
    while kill_at(copy := copy_of(project, tmp_path / f"killed{killed}"), killed + 1):
        killed += 1
        run(copy)
        assert contents(copy) == contents(whole)
        assert sorted(path.name for path in copy.dataset.parent.iterdir()) == ["dataset", "raw"]
    assert killed >= 8


def kill_at(project: Project, step: int) -> bool:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(project.root), str(step)], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def copy_of(project: Project, root: Path) -> Project:
    shutil.copytree(project.root, root)
    return Project(root)


def test_an_unreadable_file_is_set_aside(project: Project) -> None:
    (digits(project) / "4" / "nowhere.pgm").symlink_to("gone.pgm")
    run(project)
    rejects = pl.read_parquet(project.dataset / "rejects.parquet")
    assert rejects.rows() == [("4/nowhere.pgm", "unreadable", "No such file or directory")]


def test_idx_digits_are_stored_as_pgm(project: Project) -> None:
    write_idx(project.raw / "idx", 60)
    manifest = run(project, source="data/raw/idx")
    assert manifest["format"].unique().to_list() == ["PPM"]
    assert set(manifest["declared_split"]) <= {"train", "test"}
    images = dataset.load_images(
        project.dataset, manifest["image_id"].to_list(), form(), max_megapixels=1, prefix="test"
    )
    assert images.shape == (manifest.height, 1, 8, 8)


MEASURED = """
import sys
from pathlib import Path
from calotype import params
from calotype.project import Project
from calotype.stages import ingest
project = Project(Path(sys.argv[1]))
ingest.run(params.load(project.params), project)
# ru_maxrss would count the test process too, whose memory a child shares until it starts its own program.
print(next(line.split()[1] for line in Path("/proc/self/status").open() if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory from /proc")
def test_a_hundred_thousand_images_stay_under_one_gigabyte(project: Project) -> None:
    shutil.rmtree(digits(project))
    write_idx(digits(project), 50_000, size=28)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(project.root)], capture_output=True, text=True, check=False
    )
    assert "100,000 images of 3 classes" in done.stderr
    assert int(done.stdout) < 1_000_000


def form() -> parameters.ImageParams:
    return parameters.ImageParams(size=8, channels=1, resize="stretch")


def write_idx(folder: Path, count: int, size: int = 8) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("train", "t10k"):
        pixels = random.integers(0, 256, (count, size, size), dtype=np.uint8)
        header = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (count, size, size))
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        labels = (np.arange(count) % 3).astype(np.uint8)
        header = b"\0\0\x08\x01" + count.to_bytes(4, "big")
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
