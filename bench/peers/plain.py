"""What the peers' programs share: the same network in plain torch, and a clock over a process and its workers."""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import dataclass, field

from torch import Tensor, nn

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Cnn(nn.Module):
    """The `cnn` of calotype with widths 32, 64, 128, one convolution a block and 128 hidden units: 10.6 MMAC at 32 px.

    Tensors have the names that they have in a bundle, whose weights can so be loaded.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        before = 3
        for width in (32, 64, 128):
            blocks += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            blocks.append(nn.MaxPool2d(2))
            before = width
        self.features = nn.Sequential(*blocks)
        layers = [nn.Flatten(), nn.Dropout(0.2), nn.Linear(128 * 4 * 4, 128), nn.ReLU(), nn.Dropout(0.2)]
        self.classifier = nn.Sequential(*layers, nn.Linear(128, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of normalised float images (N, 3, 32, 32)."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


def build(name: str, classes: int) -> nn.Module:
    """The network of a name: ``cnn``, or one of torchvision without pretrained weights."""
    if name == "cnn":
        return Cnn(classes)
    import torchvision

    network: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes)
    return network


@dataclass
class Clock:
    """CPU and wall seconds since it was made, workers that have ended included."""

    cpu: float = field(default_factory=lambda: cpu_s())
    wall: float = field(default_factory=time.perf_counter)

    def read(self) -> dict[str, float]:
        """Seconds so far."""
        return {"cpu_s": cpu_s() - self.cpu, "wall_s": time.perf_counter() - self.wall}


def cpu_s() -> float:
    """User and system seconds of this process and of its ended children."""
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in parts)


def report(**values: object) -> None:
    """Print the values as the last line, which the harness reads."""
    sys.stdout.flush()
    print(json.dumps(values))
