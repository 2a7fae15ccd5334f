"""Count the multiply-adds of networks at 32 pixels, by torch's own counter. Arguments: names as ``timm/resnet10t``."""

from __future__ import annotations

import sys

import torch
from plain import build, report
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def network(name: str) -> nn.Module:
    """A network of timm, of ultralytics, or of the loop, without weights."""
    origin, _, model = name.partition("/")
    if origin == "timm":
        import timm

        return timm.create_model(model, pretrained=False, num_classes=10)
    if origin == "ultralytics":
        from ultralytics.nn.tasks import ClassificationModel

        return ClassificationModel(f"{model}.yaml", nc=10, verbose=False)
    return build(model, 10)


def mmacs(name: str) -> float:
    """Millions of multiply-adds of one forward pass of one image of 32×32 pixels."""
    counted = network(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        counted(torch.zeros(1, 3, 32, 32))
    return round(counter.get_total_flops() / 2e6, 1)


if __name__ == "__main__":
    report(**{name: mmacs(name) for name in sys.argv[1:]})
