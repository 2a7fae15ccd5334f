"""MLflow as a projection of the project's files: one run per training, found again by its key or written anew."""

from __future__ import annotations

import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock

from calotype import databases, object_store
from calotype.errors import CalotypeError
from calotype.files import sha256_of
from calotype.learning.run_record import RunRecord
from calotype.project import Project

# Read by mlflow at import: no telemetry, no bars, no pickle ever loaded, and an absent server noticed in seconds.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"

import mlflow  # its settings come first
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelStatus, Metric, Param, Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError

KEY_TAG = "calotype.key"
RESTORED_TAG = "calotype.restored"
MODEL_NAME = "model"
CURVES = {
    "train_loss": "train/loss",
    "train_accuracy": "train/accuracy",
    "val_loss": "val/loss",
    "val_accuracy": "val/accuracy",
    "lr": "train/lr",
    "images_per_second": "train/images_per_second",
}
"""Columns of the history, and the names of the metrics: groups sort together on MLflow's compare page."""

LOCKED_S = 30.0
"""Seconds for which the store may be locked by others when it is opened."""

LARGEST_BATCH = 1000
"""Metrics that MLflow takes at once."""

LARGEST_PARAM = 6000
"""Characters of a parameter's value that MLflow keeps."""


def connect(project: Project) -> MlflowClient:
    """Reach the tracking store, made ready on first use.

    Raises
    ------
    CalotypeError
        If a server, a database or S3 is named and does not answer.
    """
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    uri = project.tracking_uri
    _point_at(uri)
    _require_artifacts(project.mlflow_artifacts)
    if uri.startswith("http"):
        _require_health(uri)
    elif uri == f"sqlite:///{project.mlruns / 'mlflow.db'}":
        _initialise(project, uri)
    elif databases.is_postgres(uri):
        _initialise_postgres(uri)
    return _opened(uri)


def open_run(project: Project, record: RunRecord, *, restored: bool = False) -> str:
    """Open the run of a training, or the one that its key finds; return its id.

    Parameters
    ----------
    project
        Whose store.
    record
        The training. Its parameters, dataset, git state and curves so far are written.
    restored
        Whether the run is written anew from the files.
    """
    client = connect(project)
    experiment_id = experiment(project, client, record.experiment)
    run = find_run(client, experiment_id, record.key)
    if run is None:
        tags = _tags(record) | ({RESTORED_TAG: "true"} if restored else {})
        run = client.create_run(experiment_id, start_time=int(record.started_at * 1000), tags=tags)
        _log_start(project, client, run.info.run_id, record)
    else:
        client.update_run(run.info.run_id, status="RUNNING")
    log_history(client, run.info.run_id, record.history)
    return str(run.info.run_id)


def experiment(project: Project, client: MlflowClient, name: str) -> str:
    """Find or make an experiment; return its id.

    It names its artifacts' place itself where the environment does, or the store is on this machine: one made by a
    server would keep artifacts at an address that no client reads once the server is gone.
    """
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            raise CalotypeError(
                f"mlflow: the experiment {name!r} is deleted. Restore it on its page or by `mlflow experiments "
                f"restore --experiment-id {found.experiment_id}`, or change `name` in params.yaml."
            )
        return str(found.experiment_id)
    # A folder of this machine means nothing to a server elsewhere, which then chooses the place.
    is_named = _is_local(project.tracking_uri) or not project.mlflow_artifacts.startswith("file:")
    location = f"{project.mlflow_artifacts}/{quote(name)}" if is_named else None
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException:
        # Another process was faster.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def find_run(client: MlflowClient, experiment_id: str, key: str) -> Run | None:
    """Find the run that carries an idempotency key."""
    runs = client.search_runs([experiment_id], filter_string=f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    return runs[0] if runs else None


def log_history(client: MlflowClient, run_id: str, history: list[dict[str, float]]) -> None:
    """Write the epochs that the run lacks."""
    if not history:
        return
    known = {metric.step for metric in client.get_metric_history(run_id, CURVES["val_loss"])}
    _log_metrics(client, run_id, [metric for row in history if int(row["epoch"]) not in known for metric in _of(row)])


def log_epoch(client: MlflowClient, run_id: str, row: dict[str, float]) -> None:
    """Write one epoch's figures, in one batch."""
    _log_metrics(client, run_id, _of(row))


@contextmanager
def system_metrics(project: Project, run_id: str) -> Iterator[None]:
    """Record processor, memory, disk, network and GPU figures into a run while the body works."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(
        run_id, sampling_interval=2, samples_before_logging=5, tracking_uri=project.tracking_uri
    )
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


def close_run(project: Project, run_id: str, status: str) -> None:
    """End a run as FINISHED, FAILED or KILLED."""
    connect(project).set_terminated(run_id, status)


def log_bundle(project: Project, run_id: str) -> None:
    """Write the bundle into a run."""
    connect(project).log_artifacts(run_id, str(project.bundle), "bundle")


def ensure_run(project: Project) -> str:
    """The run of the training in models/: found by its key, or written anew from the files with the tag `restored`.

    A bundle that DVC brought from a cache or a remote is thereby as good as one trained here.
    """
    record = RunRecord.read(project.run_json)
    client = connect(project)
    run = find_run(client, experiment(project, client, record.experiment), record.key)
    if run is not None:
        return str(run.info.run_id)
    run_id = open_run(project, record, restored=True)
    log_bundle(project, run_id)
    client.set_terminated(run_id, "FINISHED", end_time=int(record.ended_at * 1000))
    return run_id


def log_metrics(client: MlflowClient, run_id: str, metrics: Mapping[str, float], *, at_ms: int) -> None:
    """Write figures into a run, as of a moment in milliseconds since 1970."""
    _log_metrics(client, run_id, [Metric(name, value, at_ms, 0) for name, value in metrics.items()])


def log_evaluation(project: Project, metrics: Mapping[str, float], artifacts: Mapping[str, list[Path]]) -> str:
    """Write an evaluation into the run of its training; return the run's id.

    Parameters
    ----------
    project
        Whose training.
    metrics
        Names and values.
    artifacts
        Artifact folder of the run → files.
    """
    run_id = ensure_run(project)
    client = connect(project)
    now = int(time.time() * 1000)
    _log_metrics(client, run_id, [Metric(name, value, now, 0) for name, value in metrics.items()])
    for folder, paths in artifacts.items():
        for path in paths:
            client.log_artifact(run_id, str(path), folder)
    return run_id


def _of(row: dict[str, float]) -> list[Metric]:
    """One epoch's figures."""
    now = int(time.time() * 1000)
    return [Metric(name, float(row[column]), now, int(row["epoch"])) for column, name in CURVES.items()]


def _log_metrics(client: MlflowClient, run_id: str, metrics: list[Metric]) -> None:
    for start in range(0, len(metrics), LARGEST_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + LARGEST_BATCH])


def _log_start(project: Project, client: MlflowClient, run_id: str, record: RunRecord) -> None:
    params = [Param(key, str(value)[:LARGEST_PARAM]) for key, value in record.params.items()]
    for start in range(0, len(params), 100):
        client.log_batch(run_id, params=params[start : start + 100])
    client.log_inputs(run_id, datasets=[_dataset_input(record)])
    if record.environment.get("git_diff"):
        client.log_text(run_id, record.environment["git_diff"], "inputs/git.diff")
    described = {name: value for name, value in record.environment.items() if name != "git_diff"}
    client.log_dict(run_id, described, "inputs/environment.json")
    _log_inputs(project, client, run_id, record)


def _log_inputs(project: Project, client: MlflowClient, run_id: str, record: RunRecord) -> None:
    """Keep what the training read, once, at its start: later the same files may speak of another training."""
    inputs = [project.params, project.dvc_yaml, project.root / "dvc.lock", project.root / "requirements.lock"]
    if project.splits.is_file() and sha256_of(project.splits) == record.dataset["splits_sha256"]:
        inputs.append(project.splits)
    for path in filter(Path.is_file, inputs):
        client.log_artifact(run_id, str(path), "inputs")


def _dataset_input(record: RunRecord) -> DatasetInput:
    data = record.dataset
    dataset = Dataset(
        name=str(record.params["ingest.source"])[-500:],
        # DVC's hash of the folder, 36 characters with .dir: exactly what the field holds.
        digest=str(data["dvc_md5"] or data["digest"])[:36],
        source_type="local",
        source=json.dumps({"uri": "data/dataset"}),
        profile=json.dumps({name: data[name] for name in ("train", "val", "test")}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _tags(record: RunRecord) -> dict[str, str]:
    environment = record.environment
    tags = {
        KEY_TAG: record.key,
        "mlflow.runName": f"{record.params['network.name']}-{record.params['image.size']}px-{record.key[:6]}",
        "mlflow.source.name": "dvc repro train",
        "mlflow.source.type": "LOCAL",
        "calotype.git_dirty": str(environment.get("git_dirty", False)).lower(),
        "calotype.data_digest": str(record.dataset["digest"]),
        "calotype.dvc_md5": str(record.dataset["dvc_md5"]),
        "calotype.flow_run_id": environment.get("flow_run_id", ""),
        "calotype.flow_run_name": environment.get("flow_run_name", ""),
        "calotype.reason": environment.get("reason", ""),
        "mlflow.source.git.commit": environment.get("git_commit", ""),
    }
    return {name: value for name, value in tags.items() if value}


def ensure_model(project: Project, run_id: str) -> str:
    """The id of the run's `pt2` model for MLflow's own loaders, logged if the run has none. The bundle stays of record.

    It takes uint8 N×C×S×S and gives probabilities. A training does not log it: its export costs seconds, and only a
    version needs it.
    """
    client = connect(project)
    outputs = client.get_run(run_id).outputs
    logged = [client.get_logged_model(output.model_id) for output in outputs.model_outputs] if outputs else []
    # One that was killed on its way is not ready.
    ready = [model for model in logged if model.status == LoggedModelStatus.READY]
    return str(ready[-1].model_id) if ready else _log_pt2(project, run_id)


def _log_pt2(project: Project, run_id: str) -> str:
    import mlflow.pytorch
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from calotype.learning import bundle
    from calotype.learning.inference import probability_model

    loaded = bundle.load(project.bundle)
    shape = (loaded.image.channels, loaded.image.size, loaded.image.size)
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, *shape))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(loaded.classes)))]),
    )
    # Given the id, MLflow leaves the run as it is: `start_run` would open it again and move its end.
    info = mlflow.pytorch.log_model(
        probability_model(loaded),
        name=MODEL_NAME,
        signature=signature,
        # Two images: an example of one would freeze the batch size to one.
        input_example=np.zeros((2, *shape), np.uint8),
        pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", "torch", "numpy")],
        metadata={"classes": list(loaded.classes)},
        run_id=run_id,
    )
    return str(info.model_id)


def _point_at(uri: str) -> None:
    """Point MLflow's fluent calls at a store, and leave the environment as it is.

    MLflow exports the address it is given: later calls would take it for the user's own MLFLOW_TRACKING_URI.
    """
    named = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    if named is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)


@cache
def _require_artifacts(url: str) -> None:
    """Ask S3 once: MLflow would wait for minutes, and only when a training has ended."""
    object_store.require(url, "MLflow's artifacts", "CALOTYPE_MLFLOW_ARTIFACTS")


def _require_health(uri: str) -> None:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5):  # an http address
            return
    except (urllib.error.URLError, TimeoutError, ValueError) as error:
        raise CalotypeError(
            f"mlflow: no answer from {databases.without_password(uri)} ({error}). Start the server, or correct "
            "MLFLOW_TRACKING_URI, or unset it to use the store under mlruns/."
        ) from error


def _initialise(project: Project, uri: str) -> None:
    """Make the SQLite store under a lock: two processes that migrate at once break it."""
    project.mlruns.mkdir(parents=True, exist_ok=True)
    if (project.mlruns / "mlflow.db").exists() and (project.mlruns / ".ready").exists():
        return
    with FileLock(project.mlruns / ".initialise.lock"):
        MlflowClient(uri, uri).search_experiments(max_results=1)
        (project.mlruns / ".ready").touch()


def _initialise_postgres(uri: str) -> None:
    """Make the tables of a new database; whoever comes second waits."""
    variable = "MLFLOW_TRACKING_URI" if os.environ.get("MLFLOW_TRACKING_URI") else "CALOTYPE_MLFLOW_STORE"
    with databases.setting_up(uri, variable, "registered_model_aliases") as is_new:
        if is_new:
            MlflowClient(uri, uri).search_experiments(max_results=1)


def _opened(uri: str) -> MlflowClient:
    """Open a store; SQLite gives up after five seconds while another process writes, a command should not."""
    last = time.monotonic() + LOCKED_S
    while True:
        try:
            return MlflowClient(uri, uri)
        except OperationalError as error:
            if "database is locked" not in str(error) or time.monotonic() > last:
                raise
            time.sleep(0.1)


def _is_local(uri: str) -> bool:
    return not uri.startswith("http") or any(host in uri for host in ("//127.0.0.1", "//localhost", "//[::1]"))
