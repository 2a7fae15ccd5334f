"""Optimizers and learning-rate schedules, by the names of params.yaml."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import nn

from calotype.learning.muon import Muon
from calotype.params import TrainParams

ONE_CYCLE_RISE = 0.3
"""one-cycle: the share of the training in which the learning rate rises (Smith and Topin 2017)."""

ONE_CYCLE_START = 1 / 25
"""one-cycle: the first learning rate, as a fraction of the peak."""

MUON_MATRICES, MUON_VECTORS = 2.8, 0.22
"""muon: learning rates of matrices and of norms and biases, which take SGD, as multiples of the kernels'."""

MUON_SGD_MOMENTUM = 0.85
"""muon: momentum of what takes SGD; `train.momentum` is that of the kernels."""


def build_optimizer(model: nn.Module, train: TrainParams) -> torch.optim.Optimizer:
    """Make the optimizer; weight decay applies to matrices and kernels, not to norms and biases.

    Each group's ``relative_lr`` says by what the scheduled learning rate is multiplied.
    """
    _spare_compiler()
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if train.optimizer == "muon":
        return _muon(learnt, train)
    decayed = [parameter for parameter in learnt if parameter.ndim > 1]
    others = [parameter for parameter in learnt if parameter.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": train.weight_decay, "relative_lr": 1.0},
        {"params": others, "weight_decay": 0.0, "relative_lr": 1.0},
    ]
    if train.optimizer == "sgd":
        nesterov = train.momentum > 0
        return _SGD(groups, lr=train.lr, momentum=train.momentum, nesterov=nesterov, fused=True)
    kind = _AdamW if train.optimizer == "adamw" else _Adam
    return kind(groups, lr=train.lr, fused=True)


def learning_rate(step: int, *, steps: int, steps_per_epoch: int, train: TrainParams) -> float:
    """Learning rate of a step, counted from 0, of ``steps`` in all; it depends on nothing else.

    ``cosine`` rises linearly over ``warmup_epochs``, then falls along a half cosine to 0 (Loshchilov and Hutter 2016);
    ``linear`` rises likewise and falls along a line.
    ``one-cycle`` rises along a half cosine to the peak and falls along another (Smith and Topin 2017).
    """
    if train.schedule == "one-cycle":
        rise = max(1, round(ONE_CYCLE_RISE * steps))
        if step < rise:
            return train.lr * (1 - (1 - ONE_CYCLE_START) * _half_cosine(step / rise))
        return train.lr * _half_cosine((step - rise) / max(1, steps - rise))
    warmup = min(train.warmup_epochs * steps_per_epoch, steps - 1)
    if step < warmup:
        return train.lr * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    return train.lr * (1 - done if train.schedule == "linear" else _half_cosine(done))


def _spare_compiler() -> None:
    """Mark the methods of torch's optimizers as ones that its compiler knows to leave alone.

    Otherwise the first call of each imports that compiler to say so: 1 CPU-second and 150 MB for what nobody compiles.
    """
    for method in vars(torch.optim.Optimizer).values():
        if hasattr(method, "__wrapped__"):
            vars(method.__wrapped__).setdefault("__dynamo_disable", method.__wrapped__)


def _eager(kind: type[torch.optim.Optimizer]) -> Any:
    """The step of an optimizer without the wrapper that imports the compiler."""
    return torch.no_grad()(inspect.unwrap(kind.step))


class _AdamW(torch.optim.AdamW):
    step = _eager(torch.optim.AdamW)


class _Adam(torch.optim.Adam):
    step = _eager(torch.optim.Adam)


class _SGD(torch.optim.SGD):
    step = _eager(torch.optim.SGD)


def _muon(learnt: list[nn.Parameter], train: TrainParams) -> Muon:
    kinds = {
        "kernels": [parameter for parameter in learnt if parameter.ndim == 4],
        "matrices": [parameter for parameter in learnt if parameter.ndim in (2, 3)],
        "vectors": [parameter for parameter in learnt if parameter.ndim == 1],
    }
    groups = [
        {"params": kinds["kernels"], "orthogonal": True, "momentum": train.momentum, "relative_lr": 1.0},
        {"params": kinds["matrices"], "weight_decay": train.weight_decay, "relative_lr": MUON_MATRICES},
        {"params": kinds["vectors"], "relative_lr": MUON_VECTORS},
    ]
    return Muon([group for group in groups if group["params"]], lr=train.lr, momentum=MUON_SGD_MOMENTUM)


def _half_cosine(fraction: float) -> float:
    """From 1 at the start to 0 at the end."""
    return (1 + math.cos(math.pi * fraction)) / 2
