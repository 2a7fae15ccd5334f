"""A project in production, made by the real commands: servers up, two trainings, two batches, drift, late labels.

The images are Fashion-MNIST's, a folder per class, from Debian's package.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calotype.fetch import DEBIAN_FOLDER, FASHION_CLASSES
from calotype.params_edit import edit
from calotype.project import Project
from calotype.services import web
from tests.conftest import make_dvc_project, run
from tests.waiting import until

WITHOUT_IMAGES = "needs Fashion-MNIST: apt-get install dataset-fashion-mnist"
SOURCE = "data/raw/fashion"
PER_CLASS = 300
GOOD, DIM = 300, 200
"""Images of the first drop in the inbox, and of the second, for which somebody turned the lamp down."""

PERSON = {"LOGNAME": "ann", "USER": "ann"}
WORDS = tuple(name.lower().replace("/top", "").replace(" ", "-") for name in FASHION_CLASSES)

VALUES = {
    "train.epochs": 6,
    # So few images cannot show that 99 of 100 answers are right.
    "evaluate.target_precision": 0.9,
    "network.widths": [24, 64, 96],
    # Two threads beside a browser and two servers wait for one another.
    "train.threads": 1,
    # One window with drift is enough to ask for a training.
    "monitor.windows": 1,
    "monitor.of_last": 1,
}


@dataclass
class Scene:
    """The project, and where its servers answer."""

    project: Project
    prefect: str = ""
    mlflow: str = ""

    def command(self, *arguments: str) -> str:
        """Run a program that must succeed; return what it said."""
        done = run(self.project, *arguments, timeout=600, **PERSON)
        assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}"
        return done.stdout

    def deploy(self, deployment: str) -> None:
        """Run a deployment to its end, as a person does."""
        self.command("prefect", "deployment", "run", deployment, "--watch")

    def completed(self, flow: str) -> list[dict[str, Any]]:
        """The completed runs of a flow, the latest first."""
        asked = {
            "flows": {"name": {"any_": [flow]}},
            "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
            "sort": "START_TIME_DESC",
        }
        return list(web.ask(f"{self.prefect}/api/flow_runs/filter", asked))

    def artifact(self, run: dict[str, Any], key: str) -> str:
        """The address of the page of what a run of Prefect published."""
        asked = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}, "key": {"any_": [key]}}}
        (found,) = web.ask(f"{self.prefect}/api/artifacts/filter", asked)
        return f"{self.prefect}/artifacts/artifact/{found['id']}"

    def runs(self) -> tuple[str, list[str]]:
        """MLflow's id of the experiment, and of each training in it."""
        api = f"{self.mlflow}/api/2.0/mlflow"
        experiment = web.ask(f"{api}/experiments/get-by-name?experiment_name=fashion")["experiment"]["experiment_id"]
        found = web.ask(f"{api}/runs/search", {"experiment_ids": [experiment]})
        return experiment, [run["info"]["run_id"] for run in found["runs"]]


@contextlib.contextmanager
def production(root: Path) -> Iterator[Scene]:
    """Lay out a project, start its servers, let a week's work pass, and end the servers afterwards."""
    scene = Scene(make_dvc_project(root))
    write_source(scene)
    printed = scene.command("calotype", "up")
    try:
        scene.prefect, scene.mlflow = re.findall(r"http://127\.0\.0\.1:\d+", printed)[:2]
        play(scene)
        yield scene
    finally:
        run(scene.project, "calotype", "down")


def play(scene: Scene) -> None:
    """Train, predict, see drift, train again because of it, and learn the truth about what was predicted."""
    scene.deploy("training/local")
    truth = drop(scene, "monday", "t10k", range(GOOD), brightness=1.0)
    unreadable(scene)
    scene.deploy("batch-prediction/nightly")
    scene.deploy("monitoring/daily")
    truth |= drop(scene, "tuesday", "t10k", range(GOOD, GOOD + DIM), brightness=0.6)
    scene.deploy("batch-prediction/nightly")
    change(scene, {"train.lr": 0.08})
    scene.deploy("monitoring/daily")
    label(scene, truth)
    # The event that the monitoring emitted has started it.
    assert until(lambda: len(scene.completed("training")) == 2, 300), "drift started no training"


def write_source(scene: Scene) -> None:
    """Write the labelled images as a person's folder, and the values that fit them."""
    images, labels = fashion("train")
    for label, word in enumerate(WORDS):
        folder = scene.project.root / SOURCE / word
        folder.mkdir(parents=True)
        for number in np.flatnonzero(labels == label)[:PER_CLASS]:
            Image.fromarray(images[number]).save(folder / f"{number:05}.png")
    scene.command("calotype", "use", SOURCE)
    change(scene, VALUES)


def change(scene: Scene, values: dict[str, Any]) -> None:
    """Edit params.yaml."""
    params = scene.project.params
    params.write_text(edit(params.read_text(encoding="utf-8"), values), encoding="utf-8")


def drop(scene: Scene, folder: str, part: str, numbers: range, brightness: float) -> dict[str, str]:
    """Lay images in the inbox that no training saw; return their true labels by path."""
    images, labels = fashion(part)
    truth = {}
    for number in numbers:
        path = Path(scene.project.inbox) / folder / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((images[number] * brightness).astype("uint8")).save(path)
        _settle(path)
        truth[f"{folder}/{path.name}"] = WORDS[labels[number]]
    return truth


def unreadable(scene: Scene) -> None:
    """Lay files in the inbox that are no images, or not whole."""
    folder = Path(scene.project.inbox) / "monday"
    whole = (folder / "00000.png").read_bytes()
    for name, data in {"torn.png": whole[:200], "empty.png": b"", "notes.jpg": b"call the supplier"}.items():
        (folder / name).write_bytes(data)
        _settle(folder / name)


def label(scene: Scene, truth: dict[str, str]) -> None:
    """Hand in true labels for two of three images, as a table, and make the page about them."""
    path = scene.project.root / "labels.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        rows.writerows(pair for number, pair in enumerate(truth.items()) if number % 3)
    scene.command("calotype", "labels", "add", "labels.csv")
    scene.command("calotype", "labels", "report")


def fashion(part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (N, 28, 28) and labels (N,) of ``train`` or ``t10k``."""
    images = gzip.decompress((DEBIAN_FOLDER / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((DEBIAN_FOLDER / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28), np.frombuffer(labels, np.uint8, offset=8)


def _settle(path: Path) -> None:
    """Let a file look as if it had been written a minute ago: nobody waits for it then."""
    minute = time.time() - 60
    os.utime(path, (minute, minute))
