"""What a model costs: parameters, bytes, multiply-adds for an image, images in a second. Depends on the machine."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calotype.learning.bundle import Bundle
from calotype.learning.inference import Classifier
from calotype.learning.network import build, count_parameters

BUDGET_S = 0.5
"""Seconds that the timing may take."""

MOST_REPEATS = 50

KNOWN = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
"""Layers whose cost is known from their weights; a norm's is not counted."""


@dataclass(frozen=True)
class Cost:
    """Size and speed of a model.

    Attributes
    ----------
    parameters
        Numbers that were learned.
    bytes
        Of the weights as they are stored.
    multiply_adds
        For one image, in convolutions and matrix products.
    images_per_second
        Median over ``repeats`` forward passes of ``batch_size`` images that lie in memory.
    device
        Where that was measured, and with how many threads.
    """

    parameters: int
    bytes: int
    multiply_adds: int
    images_per_second: float
    batch_size: int
    repeats: int
    device: str


def measure(bundle: Bundle, classifier: Classifier, images_nchw: NDArray[np.uint8], batch_size: int) -> Cost:
    """Weigh a model and time it on some of its images, repeated where there are fewer than a batch."""
    batch = np.resize(images_nchw, (batch_size, *images_nchw.shape[1:]))
    rates = _rates(classifier, batch)
    return Cost(
        parameters=_count_parameters(bundle),
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in bundle.weights.values()),
        multiply_adds=multiply_adds(bundle),
        images_per_second=statistics.median(rates),
        batch_size=batch_size,
        repeats=len(rates),
        device=classifier.where,
    )


def multiply_adds(bundle: Bundle) -> int:
    """What one image costs in convolutions and matrix products, by their shapes alone."""
    network = build(bundle.network, bundle.image, len(bundle.classes)).eval()
    shape = (1, bundle.image.channels, bundle.image.size, bundle.image.size)
    if all(isinstance(module, KNOWN) for module in network.modules() if list(module.parameters(recurse=False))):
        return _by_layers(network, torch.zeros(shape))
    # It knows attention, too; it takes a second and a half to import.
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.to("meta")(torch.empty(shape, device="meta"))
    return int(counter.get_total_flops()) // 2


def _by_layers(network: nn.Module, image: Tensor) -> int:
    counts: list[int] = []

    def count(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        # Each number of the output is a product of one filter, or one row of the matrix, with its input.
        weight = layer.weight
        assert isinstance(weight, Tensor)
        counts.append(output.numel() * weight[0].numel())

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(image)
    return sum(counts)


def _count_parameters(bundle: Bundle) -> int:
    with torch.device("meta"):
        return count_parameters(build(bundle.network, bundle.image, len(bundle.classes)))


def _rates(classifier: Classifier, batch: NDArray[np.uint8]) -> list[float]:
    classifier.probabilities(batch)
    rates: list[float] = []
    end = time.perf_counter() + BUDGET_S
    while len(rates) < MOST_REPEATS and (time.perf_counter() < end or not rates):
        start = time.perf_counter()
        classifier.probabilities(batch)
        rates.append(len(batch) / (time.perf_counter() - start))
    return rates
