"""Schedules and optimizers by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from calotype import params as parameters
from calotype.learning.optimization import build_optimizer, learning_rate
from calotype.params import TrainParams

PARAMS = Path(__file__).parents[3] / "params.yaml"
SHIPPED = parameters.load(PARAMS).train


def recipe(**changes: object) -> TrainParams:
    return SHIPPED.model_copy(update=changes)


def rates(train: TrainParams, steps: int = 100, per_epoch: int = 10) -> list[float]:
    return [learning_rate(step, steps=steps, steps_per_epoch=per_epoch, train=train) for step in range(steps)]


def test_cosine_warms_up_linearly_then_falls_to_nothing() -> None:
    seen = rates(recipe(schedule="cosine", warmup_epochs=2, lr=1.0))
    assert seen[0] == pytest.approx(1 / 21)
    assert seen[10] - seen[9] == pytest.approx(1 / 21)
    assert max(seen) == seen[20] == 1.0
    assert seen[20:] == sorted(seen[20:], reverse=True)
    assert seen[-1] < 0.001


def test_one_cycle_rises_to_the_peak_and_falls() -> None:
    seen = rates(recipe(schedule="one-cycle", lr=1.0))
    assert seen[0] == pytest.approx(1 / 25)
    assert seen[30] == max(seen) == pytest.approx(1.0)
    assert seen[:31] == sorted(seen[:31])
    assert seen[30:] == sorted(seen[30:], reverse=True)


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
def test_a_training_of_one_step_has_a_rate(schedule: str) -> None:
    assert rates(recipe(schedule=schedule, warmup_epochs=5), steps=1, per_epoch=1)[0] > 0


@pytest.mark.parametrize(("name", "kind"), [("sgd", "SGD"), ("adam", "Adam"), ("adamw", "AdamW")])
def test_weight_decay_spares_norms_and_biases(name: str, kind: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    optimizer = build_optimizer(model, recipe(optimizer=name, weight_decay=0.5))
    assert isinstance(optimizer, getattr(torch.optim, kind))
    decayed, others = optimizer.param_groups
    assert decayed["weight_decay"] == 0.5
    assert others["weight_decay"] == 0.0
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize(("name", "kind"), [("sgd", "SGD"), ("adam", "Adam"), ("adamw", "AdamW")])
def test_steps_are_those_of_torch(name: str, kind: str) -> None:
    ours, theirs = (nn.Linear(3, 2) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizer = build_optimizer(ours, recipe(optimizer=name))
    momentum = {"momentum": SHIPPED.momentum, "nesterov": True} if name == "sgd" else {}
    decays = [({"weight_decay": SHIPPED.weight_decay}, theirs.weight), ({"weight_decay": 0.0}, theirs.bias)]
    groups = [{"params": [parameter]} | decay for decay, parameter in decays]
    reference = getattr(torch.optim, kind)(groups, lr=SHIPPED.lr, fused=True, **momentum)
    for step in range(3):
        for model, one in ((ours, optimizer), (theirs, reference)):
            one.zero_grad()
            model(torch.full((4, 3), step + 1.0)).square().sum().backward()
            one.step()
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "muon"])
def test_no_optimizer_imports_the_compiler(name: str) -> None:
    code = (
        "import sys; from pathlib import Path; from torch import nn\n"
        "from calotype import params; from calotype.learning.optimization import build_optimizer\n"
        f"train = params.load(Path({str(PARAMS)!r})).train.model_copy(update={{'optimizer': {name!r}}})\n"
        "model = nn.Linear(2, 2); optimizer = build_optimizer(model, train)\n"
        "model(model.weight).sum().backward(); optimizer.step(); optimizer.zero_grad()\n"
        "optimizer.load_state_dict(optimizer.state_dict())\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr


def test_sgd_uses_nesterov_momentum() -> None:
    optimizer = build_optimizer(nn.Linear(1, 1), recipe(optimizer="sgd", momentum=0.9))
    assert optimizer.defaults["nesterov"]
    assert isinstance(optimizer, torch.optim.SGD)
