"""A training of our `fast` recipe in the project of the working folder, after ingest, and its accuracy on test.

Arguments: the seed, and the CPU-seconds that the training may take, validation after each epoch included. How many
steps fit is found by timing a few of a network that is thrown away; these count, too. They are shared out evenly
among whole epochs, of which each leaves out some images, others each time.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time

import torch

from calotype import params
from calotype.data import dataset
from calotype.evaluation import scoring
from calotype.learning import setup, training
from calotype.learning.device import choose_device
from calotype.learning.training import State, Trainer
from calotype.project import Project

TIMED_STEPS = 24


def main(seed: str, budget: str) -> None:
    """Train and print what was reached, as JSON."""
    project = Project.find()
    values = params.load(project.params)
    torch.set_num_threads(values.train.threads)
    plan = setup.read_plan(values, project)
    data = setup.load(values, project, plan)
    start = time.process_time()

    def trainer(epochs: int) -> Trainer:
        recipe = values.train.model_copy(update={"epochs": epochs, "seed": int(seed)})
        chosen = values.model_copy(update={"train": recipe})
        return setup.make_trainer(chosen, project, plan, data, choose_device("cpu"))

    step_s, validation_s = _costs(trainer(1))
    left = float(budget) - (time.process_time() - start)
    whole = len(data.training) // values.train.batch_size
    epochs = max(1, math.ceil(left / (whole * step_s + validation_s)))
    made = trainer(epochs)
    made.steps_per_epoch = min(whole, int((left / epochs - validation_s) / step_s))
    state = training.train(made, State(), on_step=lambda _: None, on_epoch=lambda _: None)
    spent = time.process_time() - start
    made.model.load_state_dict(state.best_weights)
    test = scoring.of_test_split(project, dataset.read_manifest(project.dataset))
    made.validation_set = setup.labelled(values, project, plan, test, values.image)
    print(
        json.dumps(
            {
                "epochs": epochs,
                "training_cpu_s": spent,
                "test_accuracy": made.validate()[1],
                "images_per_cpu_s": epochs * made.steps_per_epoch * values.train.batch_size / spent,
                "history": training.history_rows(state.history),
            }
        )
    )


def _costs(made: Trainer) -> tuple[float, float]:
    """CPU-seconds of a step, by some after a first one, and of a validation."""
    marks: list[float] = []

    def stop(step: int) -> None:
        marks.append(time.process_time())
        if step == TIMED_STEPS:
            raise StopIteration

    with contextlib.suppress(StopIteration):
        made.train_epoch(0, stop)
    start = time.process_time()
    made.validate()
    return (marks[-1] - marks[0]) / (len(marks) - 1), time.process_time() - start


if __name__ == "__main__":
    main(*sys.argv[1:])
