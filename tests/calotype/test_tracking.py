"""MLflow as a projection of files, on a real SQLite store."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from calotype import tracking
from calotype.errors import CalotypeError
from calotype.learning.run_record import RunRecord
from calotype.project import Project

pytestmark = pytest.mark.slow


def test_a_restored_run_says_what_the_training_said(trained_project: Project) -> None:
    record = RunRecord.read(trained_project.run_json)
    run_id = tracking.ensure_run(trained_project)
    client = tracking.connect(trained_project)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags[tracking.RESTORED_TAG] == "true"
    assert run.data.params["train.lr"] == str(record.params["train.lr"])
    assert len(run.data.params) == len(record.params)
    losses = client.get_metric_history(run_id, "val/loss")
    assert [metric.value for metric in losses] == pytest.approx([row["val_loss"] for row in record.history])
    assert {item.path for item in client.list_artifacts(run_id, "bundle")} == {
        "bundle/digests.json",
        "bundle/model.json",
        "bundle/model.safetensors",
        "bundle/reference.safetensors",
    }
    dataset = run.inputs.dataset_inputs[0].dataset
    assert dataset.digest == record.dataset["dvc_md5"]
    assert dataset.digest.endswith(".dir")


def test_a_run_is_written_anew_once(trained_project: Project) -> None:
    assert tracking.ensure_run(trained_project) == tracking.ensure_run(trained_project)
    client = tracking.connect(trained_project)
    experiment_id = tracking.experiment(trained_project, client, "digits")
    assert len(client.search_runs([experiment_id])) == 1


def test_history_that_is_known_is_not_written_twice(trained_project: Project) -> None:
    run_id = tracking.ensure_run(trained_project)
    client = tracking.connect(trained_project)
    record = RunRecord.read(trained_project.run_json)
    tracking.log_history(client, run_id, record.history)
    assert len(client.get_metric_history(run_id, "val/loss")) == len(record.history)


def test_the_training_run_holds_everything(reproduced: Project) -> None:
    record = RunRecord.read(reproduced.run_json)
    client = tracking.connect(reproduced)
    run = client.get_run(record.mlflow_run_id)
    assert tracking.RESTORED_TAG not in run.data.tags
    assert len(run.data.tags["mlflow.source.git.commit"]) == 40
    assert {"train/loss", "val/accuracy", "train/lr", "train/images_per_second", "test/accuracy"} <= set(
        run.data.metrics
    )
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"bundle", "inputs", "report", "plots"} <= artifacts
    inputs = {item.path for item in client.list_artifacts(run.info.run_id, "inputs")}
    files = {"params.yaml", "dvc.yaml", "dvc.lock", "environment.json", "splits.parquet"}
    assert {f"inputs/{name}" for name in files} <= inputs
    kept = Path(client.download_artifacts(run.info.run_id, "inputs/splits.parquet"))
    assert kept.read_bytes() == reproduced.splits.read_bytes()


def test_splits_of_another_state_are_not_kept_with_a_run(trained_project: Project) -> None:
    trained_project.splits.write_bytes(b"another split")
    run_id = tracking.ensure_run(trained_project)
    inputs = {item.path for item in tracking.connect(trained_project).list_artifacts(run_id, "inputs")}
    assert "inputs/dvc.lock" in inputs
    assert "inputs/splits.parquet" not in inputs


def test_mlflows_own_loader_gives_the_same_probabilities(trained_project: Project) -> None:
    import mlflow
    import numpy as np

    from calotype.learning import bundle
    from calotype.learning.inference import Classifier

    run_id = tracking.ensure_run(trained_project)
    client = tracking.connect(trained_project)
    before = client.get_run(run_id).info
    model_id = tracking.ensure_model(trained_project, run_id)
    assert tracking.ensure_model(trained_project, run_id) == model_id
    after = client.get_run(run_id).info
    assert (after.status, after.end_time) == (before.status, before.end_time)
    loaded = mlflow.pyfunc.load_model(f"models:/{model_id}")
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)
    ours = Classifier(bundle.load(trained_project.bundle), device="cpu", batch_size=8).probabilities(images)
    assert np.allclose(loaded.predict(images), ours, atol=1e-4)


def test_a_deleted_experiment_is_said(trained_project: Project) -> None:
    client = tracking.connect(trained_project)
    client.delete_experiment(tracking.experiment(trained_project, client, "digits"))
    with pytest.raises(CalotypeError, match="the experiment 'digits' is deleted"):
        tracking.ensure_run(trained_project)


def test_a_server_that_does_not_answer_is_one_line_within_seconds(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    start = time.monotonic()
    with pytest.raises(CalotypeError, match=r"no answer from http://127\.0\.0\.1"):
        tracking.connect(project)
    assert time.monotonic() - start < 50


def test_an_s3_that_does_not_answer_is_one_line_before_anything_is_trained(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("CALOTYPE_MLFLOW_ARTIFACTS", "s3://nobody/mlflow")
    with pytest.raises(
        CalotypeError, match=r"^s3://nobody/mlflow: MLflow's artifacts cannot be .* \(Could not connect "
    ):
        tracking.connect(project)


@pytest.mark.parametrize(
    ("uri", "artifacts", "location"),
    [
        ("", "", "file://.*/mlruns/artifacts/a%20name"),
        ("", "s3://line/mlflow/", "s3://line/mlflow/a%20name"),
        ("", "mlflow-artifacts:/line", "mlflow-artifacts:/line/a%20name"),
        ("http://elsewhere:5000", "s3://line/mlflow", "s3://line/mlflow/a%20name"),
        # By the id: the store's own choice.
        ("http://elsewhere:5000", "file:///only/here", ".*mlruns/1"),
        ("http://elsewhere:5000", "", ".*mlruns/1"),
    ],
)
def test_an_experiment_keeps_its_artifacts_where_the_environment_says_or_the_server_chooses(
    project: Project, monkeypatch: pytest.MonkeyPatch, uri: str, artifacts: str, location: str
) -> None:
    client = tracking.connect(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("CALOTYPE_MLFLOW_ARTIFACTS", artifacts)
    made = client.get_experiment(tracking.experiment(project, client, "a name"))
    assert re.fullmatch(location, made.artifact_location)


def test_a_fresh_store_opened_by_several_processes_at_once_is_made_once(project: Project) -> None:
    code = (
        "from pathlib import Path; from calotype import tracking; from calotype.project import Project\n"
        f"p = Project(Path({str(project.root)!r}))\n"
        "print(tracking.experiment(p, tracking.connect(p), 'digits'))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(tracking.__file__).parents[1])}
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    results = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], results
    assert len({out for out, _ in results}) == 1


def test_a_store_that_another_process_writes_is_waited_for(project: Project) -> None:
    tracking.connect(project)
    code = (
        "from pathlib import Path; from calotype import tracking; from calotype.project import Project\n"
        f"client = tracking.connect(Project(Path({str(project.root)!r})))\n"
        "print(client.get_experiment('0').name)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(tracking.__file__).parents[1])}
    with closing(sqlite3.connect(project.mlruns / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        waiting = subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(15)
        other.rollback()
    out, err = waiting.communicate()
    assert out == "Default\n", err


def test_an_experiment_keeps_its_artifacts_in_the_project(project: Project) -> None:
    client = tracking.connect(project)
    found = client.get_experiment(tracking.experiment(project, client, "digits"))
    assert found.artifact_location == (project.mlruns / "artifacts" / "digits").as_uri()


def test_the_record_reads_back(trained_project: Project) -> None:
    record = RunRecord.read(trained_project.run_json)
    assert json.loads(trained_project.run_json.read_text()) == record.model_dump()
    assert record.history[0]["epoch"] == 1
    assert record.environment["processor_flags"]
