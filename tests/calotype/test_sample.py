import hashlib
from pathlib import Path

import polars as pl
import pytest

from calotype import params as parameters
from calotype.data.splitting import read_splits
from calotype.errors import DataError
from calotype.project import Project
from calotype.sample import sample
from calotype.stages import ingest, scan, split


@pytest.fixture
def splitted(project: Project) -> Project:
    values = parameters.load(project.params)
    for stage in (scan, ingest, split):
        stage.run(values, project)
    return project


def test_samples_are_test_images_named_by_their_ids(splitted: Project) -> None:
    inbox = splitted.root / "data" / "inbox"
    assert sample(splitted, 20, inbox) == "20 images of the test split copied to data/inbox"
    tests = set(read_splits(splitted.splits).filter(pl.col("split") == "test")["image_id"])
    for path in inbox.iterdir():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert digest in tests
        assert path.name == f"{digest[:12]}.pgm"
    assert len(list(inbox.iterdir())) == 20


def test_the_same_images_come_each_time_and_files_there_are_kept(splitted: Project, tmp_path: Path) -> None:
    sample(splitted, 7, tmp_path / "a")
    first = sorted(path.name for path in (tmp_path / "a").iterdir())
    (tmp_path / "a" / first[0]).write_bytes(b"mine")
    said = sample(splitted, 7, tmp_path / "a")
    assert said.endswith("(7 were there)")
    assert (tmp_path / "a" / first[0]).read_bytes() == b"mine"
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == first


def test_more_than_there_are_gives_all(splitted: Project, tmp_path: Path) -> None:
    tests = read_splits(splitted.splits).filter(pl.col("split") == "test").height
    assert sample(splitted, 10_000, tmp_path / "a").startswith(f"{tests} images")


def test_without_a_dataset_it_says_what_to_do(project: Project, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dvc repro"):
        sample(project, 5, tmp_path / "a")
