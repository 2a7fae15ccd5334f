"""evaluate: scores the test split and nothing else, with the model's own classes, into files that agree."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from calotype import params, tracking
from calotype.data import dataset
from calotype.data.split_digest import split_digest
from calotype.data.splitting import read_splits
from calotype.errors import DataError, ParamsError
from calotype.evaluation import scoring
from calotype.evaluation.abstention import NEVER
from calotype.evaluation.calibration import expected_calibration_error
from calotype.files import read_json, sha256_of
from calotype.learning import bundle
from calotype.learning.network import build
from calotype.learning.run_record import RunRecord
from calotype.params import Params
from calotype.project import Project
from calotype.stages import evaluate, ingest, scan, split
from tests.conftest import make_project, run

THRESHOLD = 0.1124
"""Some answers of the untrained network are below it."""

HISTORY = [
    {"epoch": 1, "train_loss": 2.0, "train_accuracy": 0.2, "val_loss": 2.1, "val_accuracy": 0.1, "lr": 0.01}
    | {"images_per_second": 100.0}
]


def write_model(project: Project, values: Params, made: bundle.Bundle | None = None) -> bundle.Bundle:
    """Put an untrained network and the record of its training in place."""
    torch.manual_seed(0)
    classes = tuple(str(digit) for digit in range(10))
    weights = build(values.network, values.image, len(classes)).state_dict()
    made = made or bundle.Bundle(
        network=values.network,
        classes=classes,
        image=values.image,
        mean=(0.3,),
        std=(0.4,),
        temperature=0.5,
        weights=weights,
        trained_with={"dataset_digest": dataset.digest(project.dataset)},
        abstain_below=THRESHOLD,
    )
    bundle.save(made, project.bundle)
    RunRecord(
        key="0" * 32,
        mlflow_run_id="0" * 32,
        experiment=values.name,
        started_at=1_790_000_000.0,
        ended_at=1_790_000_014.0,
        best_epoch=1,
        history=HISTORY,
        params=params.flatten(values),
        bundle_digest=bundle.digest(project.bundle),
        dataset={"digest": "d" * 64, "dvc_md5": "", "splits_sha256": "e" * 64, "train": 200, "val": 30, "test": 60},
        environment={"git_commit": "abc1234", "git_dirty": True, "git_diff": "", "device": "cpu"},
    ).write(project.run_json)
    return made


@pytest.fixture(scope="module")
def values() -> Params:
    shipped = params.load(Path(__file__).parents[3] / "params.yaml")
    # One thread: two wait for one another where several tests run at once.
    return shipped.model_copy(
        update={
            "train": shipped.train.model_copy(update={"threads": 1}),
            "evaluate": shipped.evaluate.model_copy(update={"bootstrap": 200}),
        }
    )


@pytest.fixture(scope="module")
def modelled(tmp_path_factory: pytest.TempPathFactory, values: Params) -> Project:
    """A project with data, splits and a model, not yet evaluated; read it, or work on a copy."""
    made = make_project(tmp_path_factory.mktemp("evaluate") / "project")
    for stage in (scan, ingest, split):
        stage.run(values, made)
    write_model(made, values)
    return made


@pytest.fixture(scope="module")
def evaluated(modelled: Project, values: Params) -> Project:
    evaluate.run(values, modelled)
    return modelled


@pytest.fixture
def copied(modelled: Project, tmp_path: Path) -> Project:
    """A copy to change."""
    shutil.copytree(modelled.root, tmp_path / "project", ignore=shutil.ignore_patterns("mlruns", "reports"))
    return Project(tmp_path / "project")


def predictions(project: Project) -> pl.DataFrame:
    return pl.read_parquet(project.reports / "predictions.parquet")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_test_image_is_scored_once_and_no_other(evaluated: Project) -> None:
    splits = read_splits(evaluated.splits)
    expected = splits.filter(pl.col("split") == "test")["image_id"].sort().to_list()
    assert predictions(evaluated)["image_id"].to_list() == expected
    assert read_json(evaluated.reports / "metrics.json")["images"] == len(expected) > 20


def test_a_prediction_is_its_largest_probability(evaluated: Project) -> None:
    rows = predictions(evaluated)
    assert rows.columns == ["image_id", "path", "label", "predicted", "confidence", "abstained", "probabilities"]
    metadata = pl.read_parquet_metadata(evaluated.reports / "predictions.parquet")
    classes = json.loads(metadata["classes"])
    assert metadata["bundle_digest"] == bundle.digest(evaluated.bundle)
    assert metadata["splits_sha256"] == sha256_of(evaluated.splits)
    assert metadata["split_digest"] == split_digest(rows["image_id"].to_list(), rows["label"].to_list())
    probabilities = np.array(rows["probabilities"].to_list())
    assert probabilities.shape == (len(rows), 10)
    assert rows["predicted"].to_list() == [classes[place] for place in probabilities.argmax(axis=1)]
    assert np.allclose(rows["confidence"], probabilities.max(axis=1))


def test_the_figures_are_those_of_the_predictions(evaluated: Project) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    rows, figures = predictions(evaluated), read_json(evaluated.reports / "metrics.json")
    assert figures["accuracy"] == pytest.approx(accuracy_score(rows["label"], rows["predicted"]))
    expected = f1_score(rows["label"], rows["predicted"], average="macro", zero_division=0)
    assert figures["f1_macro"] == pytest.approx(expected)
    assert figures["accuracy_interval"]["low"] <= figures["accuracy"] <= figures["accuracy_interval"]["high"]


def test_the_further_figures_are_those_of_the_predictions(evaluated: Project) -> None:
    rows, figures = predictions(evaluated), read_json(evaluated.reports / "metrics.json")
    right = (rows["label"] == rows["predicted"]).to_numpy()
    confidence = rows["confidence"].to_numpy()
    assert figures["ece"] == pytest.approx(expected_calibration_error(confidence, right))
    assert figures["ece_interval"]["low"] <= figures["ece"] <= figures["ece_interval"]["high"]
    assert rows["abstained"].to_list() == (confidence < THRESHOLD).tolist()
    assert figures["coverage"] == pytest.approx((~rows["abstained"]).mean())
    assert 0 < figures["coverage"] < 1
    assert figures["selective_precision"] == pytest.approx(right[confidence >= THRESHOLD].mean())
    assert (figures["temperature"], figures["abstain_below"]) == (0.5, THRESHOLD)
    assert not [name for name in figures if "second" in name]


def test_golden_images_carry_their_bytes_and_answers(evaluated: Project) -> None:
    rows, golden = predictions(evaluated), pl.read_parquet(evaluated.reports / "golden.parquet")
    assert golden["image_id"].to_list() == rows["image_id"].sort().head(32).to_list()
    for row in golden.iter_rows(named=True):
        assert hashlib.sha256(row["image"]["bytes"]).hexdigest() == row["image_id"]
    assert golden["probabilities"].to_list() == rows.head(32)["probabilities"].to_list()
    metadata = pl.read_parquet_metadata(evaluated.reports / "golden.parquet")
    assert metadata["bundle_digest"] == bundle.digest(evaluated.bundle)
    assert json.loads(metadata["classes"]) == list(bundle.load(evaluated.bundle).classes)


def test_slices_and_changes_are_tables_that_add_up(evaluated: Project) -> None:
    rows = predictions(evaluated)
    cuts = table(evaluated.reports / "plots" / "slices.csv")
    assert {row["slice"] for row in cuts} == {"brightness"}
    assert sum(int(row["images"]) for row in cuts) == len(rows)
    changed = table(evaluated.reports / "plots" / "robustness.csv")
    assert len(changed) == 18
    right = (rows["label"] == rows["predicted"]).mean()
    for row in changed:
        assert float(row["drop"]) == pytest.approx(right - float(row["accuracy"]))
        assert float(row["drop_low"]) <= float(row["drop"]) <= float(row["drop_high"])


def test_the_plots_are_tables_of_the_predictions_and_of_the_training(evaluated: Project) -> None:
    plots = evaluated.reports / "plots"
    pairs = [(row["actual"], row["predicted"]) for row in table(plots / "confusion.csv")]
    rows = predictions(evaluated)
    assert sorted(pairs) == sorted(zip(rows["label"], rows["predicted"], strict=True))
    curves = table(plots / "curves.csv")
    assert curves[0]["epoch"] == "1"
    assert float(curves[0]["val_loss"]) == 2.1
    scores = table(plots / "per_class.csv")
    assert [row["class"] for row in scores] == [str(digit) for digit in range(10)]
    assert sum(int(row["images"]) for row in scores) == len(rows)
    assert (plots / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_names_model_data_commit_and_run(evaluated: Project) -> None:
    page = (evaluated.reports / "report.html").read_text(encoding="utf-8")
    for fact in (bundle.digest(evaluated.bundle), dataset.digest(evaluated.dataset), "abc1234, with changes", "0" * 32):
        assert fact in page
    assert page.count("data:image/png;base64,") == evaluate.report.MOST_MISTAKES


def test_mlflow_gets_figures_report_and_plots_into_the_run_of_the_training(evaluated: Project) -> None:
    client = tracking.connect(evaluated)
    found = client.get_run(tracking.ensure_run(evaluated))
    figures = read_json(evaluated.reports / "metrics.json")
    assert found.data.metrics["test/accuracy"] == pytest.approx(figures["accuracy"])
    assert found.data.metrics["test/accuracy_low"] == pytest.approx(figures["accuracy_interval"]["low"])
    for name in ("test_class/7/recall", "slice/brightness/dark/accuracy", "robustness/blur/sigma1", "test/ece"):
        assert 0 <= found.data.metrics[name] <= 1, name
    assert found.data.metrics["model/images_per_second"] > 0
    folders = ("report", "plots", "predictions", "golden")
    names = {item.path for folder in folders for item in client.list_artifacts(found.info.run_id, folder)}
    assert {"report/report.html", "plots/confusion.csv", "plots/confusion.png", "plots/curves.csv"} <= names
    assert {"predictions/predictions.parquet", "golden/golden.parquet", "plots/slices.csv"} <= names


def test_evaluating_again_gives_equal_bytes(evaluated: Project, copied: Project, values: Params) -> None:
    evaluate.score(values, copied)
    for path in sorted(set(evaluated.reports.rglob("*.*")) - {evaluated.reports / "data.html"}):
        again = copied.reports / path.relative_to(evaluated.reports)
        # The speed of this moment is the one thing that may differ.
        one, other = (
            re.sub(rb"[\d,]+ images a second|median of \d+", b"", file.read_bytes()) for file in (path, again)
        )
        assert one == other, path.name


def test_batched_is_one_by_one(evaluated: Project, copied: Project, values: Params) -> None:
    plain = values.evaluate.model_copy(update={"robustness_images": 0})
    single = values.model_copy(
        update={"predict": values.predict.model_copy(update={"batch_size": 1}), "evaluate": plain}
    )
    evaluate.score(single, copied)
    left, right = (np.array(predictions(one)["probabilities"].to_list()) for one in (evaluated, copied))
    assert np.allclose(left, right, atol=1e-5)


def test_many_small_chunks_give_what_one_gives(
    evaluated: Project, copied: Project, values: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "CHUNK_BYTES", 7 * 64)
    evaluate.score(values, copied)
    left, right = (np.array(predictions(one)["probabilities"].to_list()) for one in (evaluated, copied))
    assert np.allclose(left, right, atol=1e-5)


def test_another_order_of_the_model_s_classes_changes_no_prediction(
    evaluated: Project, copied: Project, values: Params
) -> None:
    made = bundle.load(copied.bundle)
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    last = [name for name, tensor in made.weights.items() if tensor.ndim and tensor.shape[0] == 10][-2:]
    weights = {name: tensor[order] if name in last else tensor for name, tensor in made.weights.items()}
    classes = tuple(made.classes[place] for place in order)
    write_model(copied, values, replace(made, classes=classes, weights=weights))
    evaluate.score(values, copied)
    assert predictions(copied)["predicted"].to_list() == predictions(evaluated)["predicted"].to_list()
    before, after = (read_json(one.reports / "metrics.json") for one in (evaluated, copied))
    for name, figure in before.items():
        assert after[name] == pytest.approx(figure, abs=1e-6), name


def test_a_label_that_the_model_does_not_know_is_an_error_that_names_it(copied: Project, values: Params) -> None:
    made = bundle.load(copied.bundle)
    write_model(copied, values, replace(made, classes=(*made.classes[:9], "ten")))
    with pytest.raises(DataError, match=r"does not know the label '9' \(30 images\).*no images of 'ten'"):
        evaluate.score(values, copied)
    assert not copied.reports.exists()


def test_a_record_of_another_training_is_an_error(copied: Project, values: Params) -> None:
    made = bundle.load(copied.bundle)
    bundle.save(replace(made, temperature=2.0), copied.bundle)
    with pytest.raises(DataError, match=r"models/run\.json tells of the bundle .*, found .* in models/model"):
        evaluate.score(values, copied)


def test_an_unknown_slice_is_an_error_that_names_the_known_ones(copied: Project, values: Params) -> None:
    wrong = values.model_copy(update={"evaluate": values.evaluate.model_copy(update={"slices": ["dorp"]})})
    with pytest.raises(ParamsError, match=r"evaluate\.slices: found 'dorp'.*expected some of .*drop"):
        evaluate.score(wrong, copied)
    assert not copied.reports.exists()


def test_without_images_for_it_no_change_is_tried(copied: Project, values: Params) -> None:
    off = values.model_copy(update={"evaluate": values.evaluate.model_copy(update={"robustness_images": 0})})
    assert evaluate.score(off, copied).robustness is None
    assert table(copied.reports / "plots" / "robustness.csv") == []
    assert "Under change" not in (copied.reports / "report.html").read_text(encoding="utf-8")


def test_a_model_that_always_abstains_has_no_precision(copied: Project, values: Params) -> None:
    write_model(copied, values, replace(bundle.load(copied.bundle), abstain_below=NEVER))
    evaluate.score(values, copied)
    figures = read_json(copied.reports / "metrics.json")
    assert figures["coverage"] == 0
    assert "selective_precision" not in figures
    assert predictions(copied)["abstained"].all()
    assert "every answer is marked as abstained" in (copied.reports / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_dvc_compares_metrics_and_plots_with_the_last_commit(trained_project: Project) -> None:
    author = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    for command in (["add", "-A"], [*author, "commit", "-qm", "Train"]):
        subprocess.run(["git", *command], cwd=trained_project.root, check=True, capture_output=True)
    text = trained_project.params.read_text(encoding="utf-8")
    trained_project.params.write_text(text.replace("top_k: 3", "top_k: 2"), encoding="utf-8")
    done = run(trained_project, "dvc", "repro")
    assert done.returncode == 0, done.stderr
    assert "Running stage 'evaluate'" in done.stdout
    assert "Running stage 'train'" not in done.stdout
    difference = json.loads(run(trained_project, "dvc", "metrics", "diff", "--json").stdout)
    assert difference["reports/metrics.json"]["top_k"] == {"old": 3, "new": 2, "diff": -1}
    assert "accuracy" not in difference["reports/metrics.json"]
    plotted = run(trained_project, "dvc", "plots", "diff", "--out", "compared")
    assert plotted.returncode == 0, plotted.stderr
    page = (trained_project.root / "compared" / "index.html").read_text(encoding="utf-8")
    for word in ("Confusion of the test split", "Loss", "Learning rate", "Recall of each class"):
        assert word in page
