"""The line through the real DVC: what runs again, what a kill leaves, what equal inputs give."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from calotype import tracking
from calotype.files import read_json
from calotype.learning import bundle
from calotype.learning.run_record import RunRecord
from calotype.project import Project
from tests.conftest import environment, run, write_digits

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def line(reproduced: Project, tmp_path: Path) -> Project:
    """A copy of a reproduced project, its runs and DVC cache included."""
    shutil.copytree(reproduced.root, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


def edit(project: Project, old: str, new: str) -> None:
    text = project.params.read_text(encoding="utf-8")
    assert old in text
    project.params.write_text(text.replace(old, new), encoding="utf-8")


def ran(output: str) -> list[str]:
    return [part.split("'")[0] for part in output.split("Running stage '")[1:]]


def begin_training(project: Project) -> subprocess.Popen[str]:
    """Start `dvc repro train` in a process group of its own; return when its first checkpoint is there."""
    started = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "train"],
        cwd=project.root,
        env=environment(project),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while not (project.cache / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return started


def test_nothing_changed_runs_the_scan_alone_and_changed_epochs_only_what_depends_on_them(line: Project) -> None:
    again = run(line, "dvc", "repro")
    assert again.returncode == 0, again.stderr
    assert ran(again.stdout) == ["scan"]
    edit(line, "epochs: 2", "epochs: 1")
    changed = run(line, "dvc", "repro")
    assert changed.returncode == 0, changed.stderr
    assert ran(changed.stdout) == ["scan", "train", "evaluate"]
    diff = run(line, "dvc", "metrics", "diff", "--no-path")
    assert diff.returncode == 0
    assert "accuracy" in diff.stdout


def test_new_images_run_the_line_again_and_move_none(line: Project) -> None:
    import polars as pl

    before = pl.read_parquet(line.splits)
    shutil.rmtree(line.root / "data" / "raw" / "digits")
    write_digits(line.root / "data" / "raw" / "digits", 36)
    done = run(line, "dvc", "repro", "split")
    assert done.returncode == 0, done.stderr
    assert ran(done.stdout) == ["scan", "ingest", "split"]
    after = pl.read_parquet(line.splits)
    assert len(after) == 360
    joined = before.join(after, on="image_id", suffix="_after")
    assert len(joined) == 300
    assert (joined["split"] == joined["split_after"]).all()


def test_dvc_repro_works_without_an_activated_environment(dvc_project: Project) -> None:
    (dvc_project.root / ".venv").symlink_to(sys.prefix)
    bare = {name: value for name, value in environment(dvc_project).items() if name != "VIRTUAL_ENV"}
    bare["PATH"] = "/usr/bin:/bin"
    command = [str(dvc_project.root / ".venv" / "bin" / "dvc"), "repro", "split"]
    done = subprocess.run(command, cwd=dvc_project.root, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert dvc_project.splits.is_file()


def test_a_killed_training_resumes_into_its_run_and_ends_with_the_same_weights(line: Project) -> None:
    edit(line, "epochs: 2", "epochs: 6")
    undisturbed = Project(line.root.parent / "undisturbed")
    shutil.copytree(line.root, undisturbed.root, symlinks=True)
    checkpoint = line.cache / "checkpoint.safetensors"
    started = begin_training(line)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    assert checkpoint.exists()
    assert not line.run_json.exists()
    resumed = run(line, "dvc", "repro", "train")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumes after epoch" in resumed.stderr
    assert run(undisturbed, "dvc", "repro", "train").returncode == 0
    assert bundle.digest(line.bundle) == bundle.digest(undisturbed.bundle)
    _assert_one_whole_run(line)
    assert not checkpoint.exists()


def _assert_one_whole_run(project: Project) -> None:
    record = RunRecord.read(project.run_json)
    client = tracking.connect(project)
    experiment_id = tracking.experiment(project, client, record.experiment)
    # One of the reproduced project, one of the training that was killed and resumed.
    assert len(client.search_runs([experiment_id])) == 2
    assert client.get_run(record.mlflow_run_id).info.status == "FINISHED"
    steps = [metric.step for metric in client.get_metric_history(record.mlflow_run_id, "val/loss")]
    assert steps == list(range(1, 7))


def test_processes_share_one_training_and_one_run(line: Project) -> None:
    edit(line, "processes: 1", "processes: 2")
    done = run(line, "dvc", "repro", "train")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("threads in each of 2 processes") == 1
    assert done.stderr.count("train: epoch 2/2") == 1
    record = RunRecord.read(line.run_json)
    assert record.environment["processes"] == 2
    assert len(record.history) == 2
    client = tracking.connect(line)
    experiment_id = tracking.experiment(line, client, record.experiment)
    # One of the reproduced project, one of this training.
    assert len(client.search_runs([experiment_id])) == 2
    assert client.get_run(record.mlflow_run_id).info.status == "FINISHED"


def test_a_failure_in_one_of_several_processes_is_said_once(line: Project) -> None:
    edit(line, "processes: 1", "processes: 2")
    edit(line, "optimizer: adamw", "optimizer: sgd")
    edit(line, "lr: 0.003", "lr: 1.0e+30")
    done = run(line, "dvc", "repro", "train")
    assert done.returncode != 0
    assert done.stderr.count("train: the loss is") == 1
    assert "Traceback" not in done.stderr
    assert "elastic" not in done.stderr


@pytest.mark.parametrize("processes", [1, 2])
def test_a_terminated_training_closes_its_run_as_killed(line: Project, processes: int) -> None:
    edit(line, "epochs: 2", "epochs: 400")
    if processes > 1:
        edit(line, "processes: 1", f"processes: {processes}")
    started = begin_training(line)
    os.killpg(started.pid, signal.SIGTERM)
    assert started.wait(60) != 0
    client = tracking.connect(line)
    runs = client.search_runs([tracking.experiment(line, client, "digits")], order_by=["start_time DESC"])
    deadline = time.monotonic() + 120
    while client.get_run(runs[0].info.run_id).info.status == "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert client.get_run(runs[0].info.run_id).info.status == "KILLED"


def test_parameters_edited_while_a_stage_runs_are_refused(line: Project) -> None:
    """DVC would write the new value into dvc.lock, beside a model trained with the old one."""
    edit(line, "epochs: 2", "epochs: 3")
    started = begin_training(line)
    edit(line, "lr: 0.003", "lr: 0.004")
    _, said = started.communicate(timeout=240)
    assert started.returncode != 0
    assert "train: changed while the stage ran: train was" in said


def test_an_experiment_with_another_value_gives_its_own_model_and_metrics(line: Project) -> None:
    done = run(line, "dvc", "exp", "run", "-S", "train.epochs=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(RunRecord.read(line.run_json).history) == 1
    shown = run(line, "dvc", "exp", "show", "--csv", "--no-pager")
    assert "train.epochs" in shown.stdout


def test_another_target_precision_trains_no_epoch_and_gives_a_version_of_its_own(line: Project) -> None:
    before, weights = RunRecord.read(line.run_json), (line.bundle / "model.safetensors").read_bytes()
    edit(line, "target_precision: 0.99", "target_precision: 0.5")
    done = run(line, "dvc", "repro", "train")
    assert done.returncode == 0, done.stderr
    assert "trains no epoch: .cache/finished.safetensors holds the weights of an equal training" in done.stderr
    assert "train: epoch 1/2" not in done.stderr
    after = RunRecord.read(line.run_json)
    assert (line.bundle / "model.safetensors").read_bytes() == weights
    assert bundle.load(line.bundle).trained_with["calibration"]["target_precision"] == 0.5
    assert after.bundle_digest == bundle.digest(line.bundle) != before.bundle_digest
    assert after.environment["weights_from"] == before.key != after.key
    assert after.history == before.history
    client = tracking.connect(line)
    for record in (before, after):
        assert client.get_run(record.mlflow_run_id).info.status == "FINISHED"
    steps = [metric.step for metric in client.get_metric_history(after.mlflow_run_id, "val/loss")]
    assert steps == [1, 2]


def test_another_learning_rate_trains_again(line: Project) -> None:
    edit(line, "lr: 0.003", "lr: 0.002")
    done = run(line, "dvc", "repro", "train")
    assert done.returncode == 0, done.stderr
    assert "epoch 2/2" in done.stderr
    assert "weights_from" not in RunRecord.read(line.run_json).environment


def test_dvcs_plots_can_be_drawn(line: Project) -> None:
    done = run(line, "dvc", "plots", "diff", "HEAD", "--json")
    assert done.returncode == 0, done.stderr
    assert "confusion" in done.stdout
    assert "Traceback" not in done.stderr


def test_metrics_are_those_of_the_test_split(line: Project) -> None:
    metrics = read_json(line.reports / "metrics.json")
    assert metrics["images"] == RunRecord.read(line.run_json).dataset["test"]
