"""The cost of a model: counted from its shapes, timed on this machine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from calotype.evaluation.throughput import measure, multiply_adds
from calotype.learning.bundle import Bundle
from calotype.learning.embedding import PROJECTION
from calotype.learning.inference import Classifier
from calotype.learning.network import build


def test_multiply_adds_are_those_of_the_layers(tiny_bundle: Bundle) -> None:
    # 8 × 8 → conv 3×3 to 8 channels, pool, conv 3×3 to 16 channels at 4 × 4, pool, 16·2·2 → 10.
    assert multiply_adds(tiny_bundle) == 64 * 9 * 8 + 16 * 9 * 8 * 16 + 64 * 10


@pytest.mark.parametrize(("name", "size"), [("resnet18", 32), ("mobilenet_v3_small", 32), ("swin_t", 64)])
def test_networks_of_torchvision_cost_what_torch_counts(tiny_bundle: Bundle, name: str, size: int) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    made = replace(
        tiny_bundle,
        network=tiny_bundle.network.model_copy(update={"name": name}),
        image=tiny_bundle.image.model_copy(update={"size": size, "channels": 3}),
    )
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        build(made.network, made.image, 10).eval()(torch.empty(1, 3, size, size))
    assert multiply_adds(made) == counter.get_total_flops() // 2


def test_a_model_is_weighed_and_timed(tiny_bundle: Bundle) -> None:
    classifier = Classifier(tiny_bundle, device="cpu", batch_size=16, threads=1)
    cost = measure(tiny_bundle, classifier, np.zeros((3, 1, 8, 8), dtype=np.uint8), 16)
    fixed = ("running", "num_", PROJECTION)
    learned = sum(t.numel() for name, t in tiny_bundle.weights.items() if not any(word in name for word in fixed))
    assert cost.parameters == learned
    assert cost.bytes == sum(t.numel() * t.element_size() for t in tiny_bundle.weights.values())
    assert cost.images_per_second > 0
    assert 1 <= cost.repeats <= 50
    assert cost.device == "cpu, 1 thread"


def test_a_larger_image_costs_in_proportion(tiny_bundle: Bundle) -> None:
    network = tiny_bundle.network.model_copy(update={"widths": [8], "hidden": []})
    costs = []
    for size in (8, 16):
        made = replace(tiny_bundle, network=network, image=tiny_bundle.image.model_copy(update={"size": size}))
        costs.append(multiply_adds(made) - 8 * min(7, size // 2) ** 2 * 10)
    assert costs[1] == pytest.approx(4 * costs[0])
