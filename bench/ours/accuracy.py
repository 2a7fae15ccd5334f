"""A training of our `fast` recipe in the project of the working folder, after ingest, and its accuracy on test.

Arguments: the seed, and the CPU-seconds that the training may take. The learning rate falls with the CPU-seconds spent,
not with the steps, and the training ends with them: so the figure is what they give, however fast the machine is
meanwhile, and two runs are not equal. The weights are the last ones; validation only tells how it goes.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import count

import torch

from calotype import params
from calotype.console import say
from calotype.data import dataset
from calotype.evaluation import scoring
from calotype.learning import setup
from calotype.learning.device import choose_device
from calotype.learning.training import Trainer
from calotype.project import Project


def main(seed: str, budget: str) -> None:
    """Train and print what was reached, as JSON."""
    project = Project.find()
    values = params.load(project.params)
    values = values.model_copy(update={"train": values.train.model_copy(update={"seed": int(seed)})})
    torch.set_num_threads(values.train.threads)
    plan = setup.read_plan(values, project)
    data = setup.load(values, project, plan)
    start = time.process_time()
    trainer = setup.make_trainer(values, project, plan, data, choose_device("cpu"))
    history = train(trainer, start, float(budget))
    spent = time.process_time() - start
    test = scoring.of_test_split(project, dataset.read_manifest(project.dataset))
    trainer.validation_set = setup.labelled(values, project, plan, test, values.image)
    images = history[-1]["steps"] * values.train.batch_size
    print(
        json.dumps(
            {
                "epochs": round(images / len(data.training), 2),
                "training_cpu_s": spent,
                "test_accuracy": trainer.validate()[1],
                "images_per_cpu_s": images / spent,
                "history": history,
            }
        )
    )


def train(trainer: Trainer, start: float, budget: float) -> list[dict[str, float]]:
    """Train until the CPU-seconds are spent; what validation said after each epoch but the last, unfinished one."""
    steps = 0

    def set_learning_rate(_epoch: int, _step: int) -> float:
        left = 1 - (time.process_time() - start) / budget
        if left <= 0:
            raise StopIteration
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.params.lr * left * group["relative_lr"]
        return trainer.params.lr * left

    def on_step(_: int) -> None:
        nonlocal steps
        steps += 1

    trainer._set_learning_rate = set_learning_rate  # type: ignore[method-assign]
    history: list[dict[str, float]] = []
    try:
        for epoch in count():
            trainer.train_epoch(epoch, on_step)
            spent, (_, accuracy) = time.process_time() - start, trainer.validate()
            history.append({"steps": steps, "cpu_s": spent, "val_accuracy": accuracy})
            say("accuracy", f"epoch {epoch + 1}, {spent:.0f} CPU-s, {accuracy:.2%} on validation")
    except StopIteration:
        return [*history, {"steps": steps, "cpu_s": time.process_time() - start}]


if __name__ == "__main__":
    main(*sys.argv[1:])
