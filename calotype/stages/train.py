"""Train the network on the training split, watched by the validation split; resume where a killed training stopped.

At the end the validation split also gives the temperature, and the confidence below which the model abstains. Weights
of a finished training are kept: a change of those two numbers alone (`evaluate.target_precision`) costs no epoch.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch
from ruamel.yaml import YAML

from calotype import tracking
from calotype.console import say
from calotype.data import dataset
from calotype.data.decoded import decoded
from calotype.data.splitting import read_splits
from calotype.errors import DataError
from calotype.evaluation import columns
from calotype.files import sha256_of
from calotype.learning import bundle, checkpoint, network
from calotype.learning.calibrating import calibrated
from calotype.learning.device import choose_device, processor_flags, uses_bf16
from calotype.learning.run_record import RunRecord
from calotype.learning.training import Labelled, State, Statistics, Trainer, history_rows, pixel_statistics, train
from calotype.params import ImageParams, Params, flatten
from calotype.project import Project
from calotype.provenance import environment, lineage

SHAPING = ("image", "network", "train", "augment")
"""Sections of params.yaml that make a training what it is."""

MARGIN, LARGEST_SMALL = 1.15, 64
"""Training images above so many pixels are stored larger by this factor: crops of them lose less detail."""

AFTERWARDS = (
    "calotype/evaluation/abstention.py",
    "calotype/evaluation/calibration.py",
    "calotype/evaluation/columns.py",
    "calotype/evaluation/metrics.py",
    "calotype/learning/calibrating.py",
)
"""Code that works on the finished weights: a change of it asks for no epoch."""


@dataclass(frozen=True)
class Plan:
    """Which images are for what (image_id, label), the classes in order, and the digests that name the data."""

    training: pl.DataFrame
    validation: pl.DataFrame
    classes: tuple[str, ...]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Data:
    """What a training reads."""

    training: Labelled
    validation: Labelled
    statistics: Statistics


def run(params: Params, project: Project) -> None:
    """Train, and write the bundle, the record of the run, and MLflow's run.

    Raises
    ------
    ParamsError
        If the network does not run at the image size, the device is absent, or ``evaluate.slices`` names a column
        that the data do not have.
    DataError
        If dataset and splits do not belong together.
    """
    network.check(params.network, params.image)
    device = choose_device(params.train.device)
    torch.set_num_threads(params.train.threads)
    plan = _plan(params, project)
    key = _key(params, project, plan, device)
    stopped = checkpoint.load(_checkpoint(project), key)
    finished = checkpoint.load(_finished(project), key) if stopped is None else None
    if finished is not None:
        _calibrate_anew(params, project, plan, finished, device)
        return
    state, names = stopped or (State(), {"run_key": uuid.uuid4().hex})
    _train_anew(params, project, plan, key, state, names, device)


def _train_anew(
    params: Params,
    project: Project,
    plan: Plan,
    key: str,
    state: State,
    names: dict[str, str],
    device: torch.device,
) -> None:
    """Train from a state to the end, and keep the weights for another look at validation."""
    if state.next_epoch:
        say("train", f"resumes after epoch {state.next_epoch} of {params.train.epochs}")
    data = _load(params, project, plan)
    trainer = _trainer(params, project, plan, data, device)
    record = _record(params, project, plan, state, names["run_key"], device)
    with _mlflow_run(project, record) as run_id:
        try:
            _train(trainer, state, project, key, names, run_id)
        except KeyboardInterrupt:
            say("train", f"interrupted after epoch {state.next_epoch}: `dvc repro` goes on from there")
            raise
        _finish(params, project, plan, state, data.statistics, data.validation, record, run_id)
    checkpoint.save(_finished(project), key, _weights_alone(state), names | _as_names(data.statistics))
    _checkpoint(project).unlink(missing_ok=True)


def _calibrate_anew(
    params: Params, project: Project, plan: Plan, finished: tuple[State, dict[str, str]], device: torch.device
) -> None:
    """Take the weights of the finished training that had all the same inputs; a bundle and a run of their own."""
    state, names = finished
    kept = project.relative(_finished(project))
    say("train", f"trains no epoch: {kept} holds the weights of an equal training. To train again, delete it")
    validation = _labelled(params, project, plan.validation, plan.classes, params.image)
    record = _record(params, project, plan, state, uuid.uuid4().hex, device)
    record = record.model_copy(update={"environment": record.environment | {"weights_from": names["run_key"]}})
    with _mlflow_run(project, record) as run_id:
        _finish(params, project, plan, state, _from_names(names), validation, record, run_id)


def _plan(params: Params, project: Project) -> Plan:
    manifest = dataset.read_manifest(project.dataset)
    splits = read_splits(project.splits)
    rows = manifest.select("image_id", "label").join(splits.select("image_id", "split"), on="image_id")
    # Left out by split (its `split` is null), an image is in no list below.
    if not len(rows) == len(manifest) == len(splits):
        raise DataError(f"{project.relative(project.splits)}: not the split of this dataset. Run `dvc repro split`.")
    # Order by image_id, never by shard: the same images train the same network however they arrived.
    chosen = {name: rows.filter(pl.col("split") == name).sort("image_id") for name in ("train", "val", "test")}
    if len(chosen["test"]):
        # evaluate would say it, too, but only when the training is over.
        columns.check(manifest.join(chosen["test"], on="image_id", how="semi"), params.evaluate.slices)
    say("train", f"{len(chosen['train']):,} training and {len(chosen['val']):,} validation images")
    facts = {
        "digest": dataset.digest(project.dataset),
        "splits_sha256": sha256_of(project.splits),
        "dvc_md5": _dvc_md5(project),
    } | {name: len(frame) for name, frame in chosen.items()}
    return Plan(chosen["train"], chosen["val"], tuple(sorted(rows["label"].unique().to_list())), facts)


def _labelled(
    params: Params, project: Project, rows: pl.DataFrame, classes: tuple[str, ...], image: ImageParams
) -> Labelled:
    images = decoded(
        project.dataset,
        rows["image_id"].to_list(),
        image,
        max_megapixels=params.ingest.max_megapixels,
        memory_gb=params.train.memory_gb,
        cache=project.cache / "decoded",
        prefix="train",
    )
    index = {label: number for number, label in enumerate(classes)}
    labels = torch.tensor([index[label] for label in rows["label"]], dtype=torch.int64)
    return Labelled(torch.from_numpy(images), labels)


def _load(params: Params, project: Project, plan: Plan) -> Data:
    training = _labelled(params, project, plan.training, plan.classes, _stored(params))
    validation = _labelled(params, project, plan.validation, plan.classes, params.image)
    return Data(training, validation, pixel_statistics(training.images))


def _stored(params: Params) -> ImageParams:
    """The form in which training images are kept: photographs that are cropped at random, a little larger."""
    image = params.image
    if params.augment.crop_scale < 1 and image.size > LARGEST_SMALL:
        return image.model_copy(update={"size": round(MARGIN * image.size)})
    return image


def _trainer(params: Params, project: Project, plan: Plan, data: Data, device: torch.device) -> Trainer:
    torch.manual_seed(params.train.seed)
    model = network.build(params.network, params.image, len(plan.classes))
    loaded = network.load_initial_weights(model, params.network, project.root)
    precision = "bf16" if uses_bf16(params.train.precision, device) else "float32"
    say(
        "train",
        f"{params.network.name} with {network.count_parameters(model):,} parameters, {loaded}; "
        f"{device.type}, {precision}, {params.train.threads} threads",
    )
    return Trainer(
        model,
        data.training,
        data.validation,
        data.statistics,
        train=params.train,
        augmentation=params.augment,
        device=device,
        classes=len(plan.classes),
    )


def _train(trainer: Trainer, state: State, project: Project, key: str, names: dict[str, str], run_id: str) -> None:
    client = tracking.connect(project)
    epochs = trainer.params.epochs

    with _progress(trainer, state) as (on_step, on_line):

        def on_epoch(now: State) -> None:
            checkpoint.save(_checkpoint(project), key, now, names)
            row = history_rows(now.history)[-1]
            tracking.log_epoch(client, run_id, row)
            on_line(
                f"epoch {now.next_epoch:>{len(str(epochs))}}/{epochs}  loss {row['train_loss']:.4f}  "
                f"val loss {row['val_loss']:.4f}  val accuracy {row['val_accuracy']:.2%}  "
                f"{row['images_per_second']:,.0f} images/s"
            )

        train(trainer, state, on_step=on_step, on_epoch=on_epoch)
    if state.next_epoch < epochs:
        say("train", f"stopped early after epoch {state.next_epoch}: validation did not improve")


def _finish(
    params: Params,
    project: Project,
    plan: Plan,
    state: State,
    statistics: Statistics,
    validation: Labelled,
    started: RunRecord,
    run_id: str,
) -> None:
    """Write the bundle, then the record, then MLflow: each is a projection of the one before."""
    best = state.history[state.best_epoch]
    say("train", f"keeps epoch {state.best_epoch + 1}: validation accuracy {best.val_accuracy:.2%}")
    bundle.save(calibrated(_bundle(params, plan, state, statistics), validation, params), project.bundle)
    record = started.model_copy(
        update={
            "mlflow_run_id": run_id,
            "ended_at": time.time(),
            "best_epoch": state.best_epoch + 1,
            "history": history_rows(state.history),
            "bundle_digest": bundle.digest(project.bundle),
        }
    )
    record.write(project.run_json)
    tracking.log_bundle(project, run_id)


def _bundle(params: Params, plan: Plan, state: State, statistics: Statistics) -> bundle.Bundle:
    sections = params.model_dump()
    return bundle.Bundle(
        network=params.network,
        classes=plan.classes,
        image=params.image,
        mean=statistics.mean,
        std=statistics.std,
        temperature=1.0,
        weights=state.best_weights,
        trained_with={
            "params": {name: sections[name] for name in SHAPING},
            "dataset_digest": plan.facts["digest"],
            "splits_sha256": plan.facts["splits_sha256"],
            "counts": {name: plan.facts[name] for name in ("train", "val", "test")},
        },
    )


def _record(
    params: Params, project: Project, plan: Plan, state: State, run_key: str, device: torch.device
) -> RunRecord:
    return RunRecord(
        key=run_key,
        mlflow_run_id="",
        experiment=params.name,
        started_at=time.time(),
        ended_at=time.time(),
        best_epoch=0,
        history=history_rows(state.history),
        params=flatten(params),
        bundle_digest="",
        dataset=plan.facts,
        environment=environment.describe(project.root, device.type, params.train.threads),
    )


@contextmanager
def _mlflow_run(project: Project, record: RunRecord) -> Iterator[str]:
    """A run that ends as FINISHED, as KILLED on a signal, as FAILED otherwise; a resumed training reopens it."""
    run_id = tracking.open_run(project, record)
    previous = signal.signal(signal.SIGTERM, _interrupt)
    status = "FAILED"
    try:
        with tracking.system_metrics(project, run_id):
            yield run_id
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        tracking.close_run(project, run_id, status)
        signal.signal(signal.SIGTERM, previous)


def _interrupt(*_: object) -> None:
    # A second signal follows when dvc, which got the first too, is gone: it must not cut off the closing of the run.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def _progress(trainer: Trainer, state: State) -> Iterator[tuple[Callable[[int], None], Callable[[str], None]]]:
    """A bar over all steps on a terminal, one line per epoch everywhere."""
    if not sys.stderr.isatty():
        yield (lambda _: None), (lambda line: say("train", line))
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("train:"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as progress:
        total = trainer.params.epochs * trainer.steps_per_epoch
        task = progress.add_task("", total=total, completed=state.next_epoch * trainer.steps_per_epoch)
        yield (lambda _: progress.advance(task)), (lambda line: progress.console.print(f"train: {line}"))


def _key(params: Params, project: Project, plan: Plan, device: torch.device) -> str:
    """Digest of parameters, data, code and processor: a checkpoint of any other combination is not this training's."""
    snapshot = lineage.snapshot("train", project)
    code = {name: value for name, value in snapshot.items() if name.endswith(".py") and name not in AFTERWARDS}
    values = params.model_dump()
    machine = [torch.__version__, device.type, list(processor_flags())]
    data = [plan.facts["digest"], plan.facts["splits_sha256"]]
    parts = [{name: values[name] for name in SHAPING}, data, code, machine]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _weights_alone(state: State) -> State:
    """What of a finished training is worth its space: the best weights and the history."""
    return replace(state, weights={}, optimizer={})


def _as_names(statistics: Statistics) -> dict[str, str]:
    return {"statistics": json.dumps([statistics.mean, statistics.std])}


def _from_names(names: dict[str, str]) -> Statistics:
    mean, std = json.loads(names["statistics"])
    return Statistics(tuple(mean), tuple(std))


def _checkpoint(project: Project) -> Path:
    return project.cache / "checkpoint.safetensors"


def _finished(project: Project) -> Path:
    return project.cache / "finished.safetensors"


def _dvc_md5(project: Project) -> str:
    """DVC's hash of the dataset, as dvc.lock holds it since ingest ended; empty where DVC has not run."""
    lock = project.root / "dvc.lock"
    stages = YAML(typ="safe").load(lock).get("stages", {}) if lock.is_file() else {}
    outs = stages.get("ingest", {}).get("outs", [])
    return next((out["md5"] for out in outs if out["path"] == "data/dataset"), "")
