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
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from calotype import processes, tracking
from calotype.console import say
from calotype.learning import bundle, checkpoint, network, ranks, setup
from calotype.learning.calibrating import calibrated
from calotype.learning.device import choose_device, processor_flags
from calotype.learning.interruption import Interruption
from calotype.learning.ranks import Ranks
from calotype.learning.run_record import RunRecord
from calotype.learning.training import Labelled, State, Statistics, Trainer, history_rows, train
from calotype.params import Params, flatten
from calotype.project import Project
from calotype.provenance import environment, lineage

SHAPING = ("image", "network", "train", "augment")
"""Sections of params.yaml that make a training what it is."""

AFTERWARDS = (
    "calotype/data/appearance.py",
    "calotype/evaluation/abstention.py",
    "calotype/evaluation/calibration.py",
    "calotype/evaluation/columns.py",
    "calotype/evaluation/metrics.py",
    "calotype/learning/calibrating.py",
    "calotype/learning/embedding.py",
    "calotype/learning/reference.py",
)
"""Code that works on the finished weights: a change of it asks for no epoch."""


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
    count = processes.count() or params.train.processes
    ranks.check(count, params.train.batch_size, device)
    if count > 1 and not processes.count():
        ranks.launch(count)
        return
    torch.set_num_threads(params.train.threads)
    with ranks.joined(device) as group:
        _run(params, project, group, group.device(device))


def _run(params: Params, project: Project, group: Ranks, device: torch.device) -> None:
    plan = setup.read_plan(params, project)
    key = _key(params, project, plan, device, group)
    stopped = checkpoint.load(_checkpoint(project), key)
    finished = checkpoint.load(_finished(project), key) if stopped is None else None
    if finished is not None:
        if group.leads:
            _calibrate_anew(params, project, plan, finished, device)
        return
    state, names = stopped or (State(), {"run_key": uuid.uuid4().hex})
    if state.next_epoch:
        say("train", f"resumes after epoch {state.next_epoch} of {params.train.epochs}")

    def prepare() -> tuple[setup.Data, Trainer]:
        with group.leader_first():
            data = setup.load(params, project, plan, group)
        return data, setup.make_trainer(params, project, plan, data, device, group)

    if group.leads:
        record = _record(params, project, plan, state, names["run_key"], device, group)
        _lead(params, project, plan, prepare, key, state, names, record)
    else:
        _follow(prepare()[1], state)


def _lead(
    params: Params,
    project: Project,
    plan: setup.Plan,
    prepare: Callable[[], tuple[setup.Data, Trainer]],
    key: str,
    state: State,
    names: dict[str, str],
    record: RunRecord,
) -> None:
    """Train from a state to the end, write and log what comes of it, and keep the weights for another look."""
    with _mlflow_run(project, record) as (opening, interruption):
        data, trainer = prepare()
        run_id = opening.result()
        try:
            with tracking.system_metrics(project, run_id):
                _train(trainer, state, project, key, names, run_id, interruption)
        except KeyboardInterrupt:
            say("train", f"interrupted after epoch {state.next_epoch}: `dvc repro` goes on from there")
            raise
        _finish(params, project, plan, state, data.statistics, data.validation, record, run_id)
    checkpoint.save(_finished(project), key, _weights_alone(state), names | _as_names(data.statistics))
    _checkpoint(project).unlink(missing_ok=True)


def _follow(trainer: Trainer, state: State) -> None:
    """Train along; Ctrl-C reaches each process of a terminal, and it is the leader who answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    train(trainer, state, on_step=lambda _: None, on_epoch=lambda _: None)


def _calibrate_anew(
    params: Params, project: Project, plan: setup.Plan, finished: tuple[State, dict[str, str]], device: torch.device
) -> None:
    """Take the weights of the finished training that had all the same inputs; a bundle and a run of their own."""
    state, names = finished
    kept = project.relative(_finished(project))
    say("train", f"trains no epoch: {kept} holds the weights of an equal training. To train again, delete it")
    record = _record(params, project, plan, state, uuid.uuid4().hex, device, ranks.ALONE)
    record = record.model_copy(update={"environment": record.environment | {"weights_from": names["run_key"]}})
    with _mlflow_run(project, record) as (opening, _):
        validation = setup.labelled(params, project, plan, plan.validation, params.image)
        _finish(params, project, plan, state, _from_names(names), validation, record, opening.result())


def _train(
    trainer: Trainer,
    state: State,
    project: Project,
    key: str,
    names: dict[str, str],
    run_id: str,
    interruption: Interruption,
) -> None:
    client = tracking.connect(project)
    epochs = trainer.params.epochs

    with _progress(trainer, state) as (on_step, on_line):

        def on_epoch(now: State) -> None:
            row = history_rows(now.history)[-1]
            with interruption.held():
                checkpoint.save(_checkpoint(project), key, now, names)
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
    plan: setup.Plan,
    state: State,
    statistics: Statistics,
    validation: Labelled,
    started: RunRecord,
    run_id: str,
) -> None:
    """Write the bundle, then the record, then MLflow: each is a projection of the one before."""
    best = state.history[state.best_epoch]
    say("train", f"keeps epoch {state.best_epoch + 1}: validation accuracy {best.val_accuracy:.2%}")
    made, reference = calibrated(_bundle(params, plan, state, statistics), validation, params)
    bundle.save(made, project.bundle, reference)
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


def _bundle(params: Params, plan: setup.Plan, state: State, statistics: Statistics) -> bundle.Bundle:
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
    params: Params,
    project: Project,
    plan: setup.Plan,
    state: State,
    run_key: str,
    device: torch.device,
    group: Ranks,
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
        environment=environment.describe(project.root, device.type, params.train.threads) | {"processes": group.size},
    )


@contextmanager
def _mlflow_run(project: Project, record: RunRecord) -> Iterator[tuple[Future[str], Interruption]]:
    """A run, opened while data load; it ends as FINISHED, as KILLED on a signal, as FAILED otherwise.

    A resumed training reopens it.
    """
    status = "FAILED"
    with ThreadPoolExecutor(1, thread_name_prefix="mlflow") as pool, Interruption() as interruption:
        opening = pool.submit(tracking.open_run, project, record)
        try:
            yield opening, interruption
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            with interruption.held():
                tracking.close_run(project, opening.result(), status)


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


def _key(params: Params, project: Project, plan: setup.Plan, device: torch.device, group: Ranks) -> str:
    """Digest of parameters, data, code and processor: a checkpoint of any other combination is not this training's."""
    snapshot = lineage.snapshot("train", project)
    code = {name: value for name, value in snapshot.items() if name.endswith(".py") and name not in AFTERWARDS}
    values = params.model_dump()
    machine = [torch.__version__, device.type, list(processor_flags()), group.size]
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
