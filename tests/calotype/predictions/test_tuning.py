"""The fastest engine is chosen among those that answer as float32 does."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from calotype import params
from calotype.learning import bundle, engine_choice, engines
from calotype.learning.bundle import Bundle
from calotype.learning.engine_names import OF_GRAPH, TOLERANCES
from calotype.learning.inference import probability_model
from calotype.predictions import tuning
from calotype.predictions.prediction import predict_to_file
from calotype.project import Project
from tests.conftest import run


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "ROUND_S", 0.01)
    monkeypatch.setattr(tuning, "BATCH_SIZES", (16, 32))


def test_answers_are_compared_by_label_and_by_probability() -> None:
    expected = np.array([[0.9, 0.1], [0.4, 0.6]], np.float32)
    near = tuning.compare(expected + np.float32(0.01), expected)
    assert near.equal_labels == 1
    assert near.is_accepted
    assert not tuning.compare(np.array([[0.9, 0.1], [0.51, 0.49]], np.float32), expected).is_accepted
    assert not tuning.compare(expected + np.float32(0.03), expected).is_accepted
    assert tuning.compare(expected * np.float32("nan"), expected).largest_difference == 1


def test_an_engine_that_moves_labels_is_not_chosen(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
    monkeypatch.setattr(tuning, "EQUAL_LABELS", 0.0)
    monkeypatch.setattr(tuning, "LARGEST_DIFFERENCE", 1e-5)
    choice = tuning.measure(tiny_bundle, images, torch.device("cpu"))
    assert choice.engine != "bf16"
    accepted = {one.engine: one.accepted for one in choice.measured}
    # A processor without bfloat16 runs openvino in float32.
    assert accepted == {"float32": True, "onnx": True, "openvino": accepted["openvino"], "bf16": False}


@pytest.mark.slow
def test_prediction_takes_the_engine_that_tune_chose(
    champion_project: Project, fifteen_files: Path, tmp_path: Path
) -> None:
    values = params.load(champion_project.params)
    try:
        said = tuning.tune(champion_project, values, champion=True)
        digest = bundle.digest(champion_project.bundle)
        path = champion_project.engines / f"{digest}.json"
        choice, _ = engine_choice.read(champion_project.engines, digest, "cpu")
        assert choice is not None
        assert said.splitlines()[-1].startswith(f"digits version 1: {choice.engine}, batches of {choice.batch_size} → ")
        for engine in ("onnx", "openvino", "bf16"):
            engine_choice.write(champion_project.engines, digest, choice.model_copy(update={"engine": engine}))
            predict_to_file(champion_project, values, fifteen_files, tmp_path / "out.parquet")
            assert set(pl.read_parquet(tmp_path / "out.parquet")["engine"].drop_nulls()) == {engine}
        assert path.is_file()
    finally:
        shutil.rmtree(champion_project.engines)


@pytest.mark.slow
@pytest.mark.parametrize("engine", OF_GRAPH)
def test_a_kept_graph_answers_without_torch_and_a_damaged_one_is_not_asked(
    champion_project: Project, fifteen_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setattr(tuning, "EQUAL_LABELS", 0.0)
    values = params.load(champion_project.params)
    digest = bundle.digest(champion_project.bundle)
    graph = engines.export(probability_model(bundle.load(champion_project.bundle)), values.image)
    choice = tuning.measure(
        bundle.load(champion_project.bundle), np.zeros((20, 1, 8, 8), np.uint8), torch.device("cpu")
    ).model_copy(update={"engine": engine})
    predict_to_file(champion_project, values, fifteen_files, tmp_path / "float32.parquet")
    expected = pl.read_parquet(tmp_path / "float32.parquet")
    try:
        engine_choice.write(champion_project.engines, digest, choice, graph)
        for name in ("torch", "pandas"):
            (tmp_path / f"{name}.py").write_text(f"raise ImportError('no {name} here')\n")
        neither = {"PYTHONPATH": str(tmp_path)}
        words = ("calotype", "predict", str(fifteen_files), "--to", str(tmp_path / "graph.parquet"))
        done = run(champion_project, *words, **neither)
        assert done.returncode == 0, done.stderr
        answered = pl.read_parquet(tmp_path / "graph.parquet")
        assert set(answered["engine"].drop_nulls()) == {engine}
        assert answered["label"].equals(expected["label"])
        assert (answered["confidence"] - expected["confidence"]).abs().max() <= TOLERANCES[engine]
        kept = champion_project.engines / f"{digest}.onnx"
        kept.write_bytes(kept.read_bytes()[:-1] + b"x")
        refused = run(champion_project, *words, **neither)
        assert refused.returncode != 0
        assert "no torch here" in refused.stderr
        done = run(champion_project, *words)
        assert done.returncode == 0, done.stderr
    finally:
        shutil.rmtree(champion_project.engines)
