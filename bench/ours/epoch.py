"""Epochs of our training, in the project of the working folder, after ingest; and where the time of a step goes.

Arguments: the epochs, and ``train``, ``profile`` (the same, with a clock at each part of a step) or ``input`` (the
images alone, no network).
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from bench.peers.plain import Clock
from calotype import params
from calotype.learning import setup, training
from calotype.learning.device import choose_device
from calotype.learning.training import Trainer
from calotype.project import Project


def main(epochs: str, mode: str) -> None:
    """Train, and print each epoch's cost and how many images it saw, as JSON."""
    loading = Clock()
    trainer = prepare()
    loaded = loading.read()
    spent: Counter[str] = Counter()
    if mode == "profile":
        watch(trainer, spent)
    if mode == "input":
        trainer._step = lambda *_: (torch.zeros(()), torch.zeros((), dtype=torch.int64))  # type: ignore[method-assign]
    costs = []
    for epoch in range(int(epochs)):
        clock = Clock()
        trainer.train_epoch(epoch, lambda _: None)
        costs.append(clock.read())
    seen = trainer.steps_per_epoch * min(trainer.params.batch_size, len(trainer.training_set))
    packed = sum(part.images.nbytes for part in (trainer.training_set, trainer.validation_set))
    print(json.dumps({"images": seen, "epochs": costs, "loading": loaded, "packed_bytes": packed, "parts_s": spent}))


def prepare() -> Trainer:
    """The trainer that the stage would make."""
    project = Project.find()
    values = params.load(project.params)
    torch.set_num_threads(values.train.threads)
    plan = setup.read_plan(values, project)
    return setup.make_trainer(values, project, plan, setup.load(values, project, plan), choose_device("cpu"))


def watch(trainer: Trainer, spent: Counter[str]) -> None:
    """Count the CPU-seconds of each part of a step."""
    places: dict[str, tuple[Any, str]] = {
        "normalise": (trainer, "_normalised"),
        "index, augment": (training, "augment"),
        "forward": (trainer, "_loss"),
        "backward": (torch.Tensor, "backward"),
        "optimizer": (trainer.optimizer, "step"),
    }
    for part, (owner, name) in places.items():
        setattr(owner, name, _clocked(getattr(owner, name), part, spent))


def _clocked(function: Callable[..., Any], part: str, spent: Counter[str]) -> Callable[..., Any]:
    def clocked(*arguments: Any, **named: Any) -> Any:
        start = time.process_time()
        try:
            return function(*arguments, **named)
        finally:
            spent[part] += time.process_time() - start

    return clocked


if __name__ == "__main__":
    main(*sys.argv[1:])
