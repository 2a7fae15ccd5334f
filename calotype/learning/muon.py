"""Muon (Jordan et al. 2024): steps of orthogonalised momentum for the kernels of convolutions, SGD for all else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton–Schulz iteration, which brings singular values close to 1 in few steps (Jordan et al. 2024)."""

ITERATIONS = 4
"""Steps of that iteration; more change nothing that training notices."""


class Muon(torch.optim.Optimizer):
    """Kernels move along their orthogonalised momentum and keep their norm; other parameters take Nesterov SGD.

    Parameters
    ----------
    groups
        Parameter groups; one with ``orthogonal: True`` holds kernels (4 dimensions).
    lr, momentum
        Defaults of the groups. Weight decay, given by group, is void for kernels: their norm is fixed.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float, momentum: float) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": 0.0, "orthogonal": False}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step from the gradients that the parameters hold."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if group["orthogonal"]:
                    update = orthogonalised(self._momentum(parameter, parameter.grad, group["momentum"]))
                    parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
                else:
                    gradient = parameter.grad.add(parameter, alpha=group["weight_decay"])
                    update = self._momentum(parameter, gradient, group["momentum"])
                parameter.add_(update, alpha=-group["lr"])

    def _momentum(self, parameter: nn.Parameter, gradient: Tensor, momentum: float) -> Tensor:
        """Nesterov's: the momentum after this gradient, looked at one step ahead."""
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].mul_(momentum).add_(gradient)
        return gradient.add(state["momentum"], alpha=momentum)


def orthogonalised(kernel: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix, about, to a kernel flattened to (out, in · height · width)."""
    matrix = kernel.reshape(len(kernel), -1)
    x = matrix.to(torch.bfloat16 if kernel.device.type == "cuda" else torch.float32)
    x = x / (x.norm() + 1e-7)
    is_tall = x.shape[0] > x.shape[1]
    near = _iterated(x.T).T if is_tall else _iterated(x)
    return near.reshape(kernel.shape).to(kernel.dtype)


def _iterated(x: Tensor) -> Tensor:
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x
