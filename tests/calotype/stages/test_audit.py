"""The audit ranks wrong labels first, reads nothing of the test split, and gives back a list to fill in."""

from __future__ import annotations

import csv
from collections.abc import Callable

import polars as pl
import pytest
from sklearn.datasets import load_digits

from calotype.data.tables import write_table
from calotype.errors import DataError
from calotype.params import Params
from calotype.project import Project
from calotype.stages import audit

WriteDataset = Callable[[list[dict[str, object]]], pl.DataFrame]
FLIPPED = range(0, 240, 40)


def images(wrong: range = FLIPPED, wrong_in_test: bool = False) -> list[dict[str, object]]:
    """300 digits, the last 60 for the test; some labels are wrong."""
    digits = load_digits()
    rows: list[dict[str, object]] = []
    for number in range(300):
        pixels = (digits.images[number] * 255 / 16).round().astype("uint8").tobytes()
        is_wrong = number in wrong or (wrong_in_test and number >= 240)
        label = str((int(digits.target[number]) + is_wrong) % 10)
        rows.append({"data": b"P5\n8 8\n255\n" + pixels, "label": label, "path": f"{number:03}.pgm"})
    return rows


def write_splits(project: Project, manifest: pl.DataFrame, **columns: pl.Expr) -> None:
    number = pl.col("path").str.head(3).cast(pl.Int32)
    split = (
        pl.when(number >= 240).then(pl.lit("test")).when(number >= 200).then(pl.lit("val")).otherwise(pl.lit("train"))
    )
    group, status = pl.lit(None, pl.String).alias("group"), pl.lit("kept").alias("status")
    table = manifest.select("image_id", "path", split.alias("split"), group, status).with_columns(**columns)
    write_table(table.drop("path"), project.splits)


@pytest.fixture
def quick(values: Params) -> Params:
    small = values.network.model_copy(update={"widths": [8, 16], "convs": 1, "hidden": [], "dropout": 0.0})
    update = {"threads": 1, "batch_size": 16, "lr": 0.01, "precision": "float32"}
    return values.model_copy(
        update={
            "network": small,
            "train": values.train.model_copy(update=update),
            "audit": values.audit.model_copy(update={"folds": 3, "epochs": 8}),
        }
    )


def rows_of(project: Project) -> list[dict[str, str]]:
    with (project.reports / "suspects.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_wrong_labels_come_first_with_the_right_one_suggested(
    project: Project, quick: Params, write_dataset: WriteDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    write_splits(project, write_dataset(images()))
    audit.run(quick, project)
    rows = rows_of(project)
    assert list(rows[0]) == ["rank", "image_id", "path", "label", "suggestion", "score", "corrected"]
    assert [int(row["rank"]) for row in rows] == list(range(1, 101))
    assert {row["corrected"] for row in rows} == {""}
    wrong = [row for row in rows[: 3 * len(FLIPPED)] if int(row["path"][:3]) in FLIPPED]
    assert len(wrong) >= len(FLIPPED) - 1
    truth = load_digits().target
    assert sum(row["suggestion"] == str(truth[int(row["path"][:3])]) for row in wrong) >= len(FLIPPED) - 1
    assert not [row for row in rows if int(row["path"][:3]) >= 240]
    said = capsys.readouterr()
    assert said.out == ""
    assert "audit: fold 3/3" in said.err
    page = (project.reports / "audit.html").read_text(encoding="utf-8")
    assert page.count("<li><img") == 100
    assert "240 images of train and val" in page


def test_nothing_of_the_test_split_is_looked_at(project: Project, quick: Params, write_dataset: WriteDataset) -> None:
    hurried = quick.model_copy(update={"audit": quick.audit.model_copy(update={"folds": 2, "epochs": 1})})
    made = []
    for wrong_in_test in (False, True):
        write_splits(project, write_dataset(images(wrong_in_test=wrong_in_test)))
        audit.run(hurried, project)
        made.append([(project.reports / name).read_bytes() for name in ("suspects.csv", "audit.html")])
        project.dataset.rename(project.dataset.with_name(f"seen-{wrong_in_test}"))
    assert made[0] == made[1]


def test_near_duplicates_share_a_fold_and_what_is_left_out_is_not_audited(
    project: Project, write_dataset: WriteDataset
) -> None:
    manifest = write_dataset(images())
    leader = manifest.row(by_predicate=pl.col("path") == "007.pgm", named=True)["image_id"]
    is_twin, is_bridge = pl.col("path") == "008.pgm", pl.col("path") == "009.pgm"
    write_splits(
        project,
        manifest,
        group=pl.when(is_twin).then(pl.lit(leader)),
        split=pl.when(~is_bridge).then(pl.col("split")),
    )
    rows = {row["path"]: row for row in audit.read_rows(project).iter_rows(named=True)}
    assert rows["007.pgm"]["key"] == rows["008.pgm"]["key"] == leader
    assert rows["010.pgm"]["key"] == rows["010.pgm"]["image_id"]
    assert len(rows) == 239
    assert "009.pgm" not in rows


def test_splits_of_another_dataset_are_refused(project: Project, write_dataset: WriteDataset) -> None:
    manifest = write_dataset(images())
    write_splits(project, manifest.head(100))
    with pytest.raises(DataError, match="dvc repro split"):
        audit.read_rows(project)
