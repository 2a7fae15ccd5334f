"""Split writes splits and counts, says them, and refuses a class that a split lacks."""

from __future__ import annotations

import polars as pl
import pytest

from calotype import params as parameters
from calotype.dataset import read_manifest
from calotype.errors import DataError
from calotype.params import Params
from calotype.project import Project
from calotype.splitting import read_splits
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


def test_groups_that_the_source_divides_are_warned_of(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"path": str(path.relative_to(project.raw)), "label": path.parent.name, "split": name, "group": f"g{number}"}
        for label in ("0", "1")
        for number, path in enumerate(sorted((project.raw / "digits" / label).iterdir()))
        for name in [("train", "val", "test")[number % 3 if label == "0" else (number + 1) % 3]]
    ]
    pl.DataFrame(rows).write_csv(project.raw / "table.csv")
    params = with_source(parameters.load(project.params), "data/raw/table.csv")
    ingest.run(params, project)
    split.run(params, project)
    assert "images of 30 groups in different splits: g0, g1" in capsys.readouterr().err


def test_a_long_table_shows_the_smallest_classes() -> None:
    counts = pl.DataFrame(
        {"label": [f"c{n:03}" for n in range(100)], "train": [100 - n for n in range(100)], "val": 1, "test": 1}
    )
    lines = split.table_of(counts)
    assert len(lines) == split.MOST_CLASSES_SHOWN + 3
    assert "c099" in lines[-3]
    assert "80 larger classes" in lines[-2]
    assert "5,050" in lines[-1]


def with_source(params: Params, source: str) -> Params:
    return params.model_copy(update={"ingest": params.ingest.model_copy(update={"source": source})})
