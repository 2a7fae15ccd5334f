"""What the peers that predict share: a model with a bundle's weights, a folder's files, and the resulting table."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from plain import Cnn
from safetensors.torch import load_file
from torch import nn


@dataclass(frozen=True)
class Trained:
    """A trained network, its classes, and the mean and standard deviation of its inputs, float32 (3, 1, 1)."""

    network: nn.Module
    classes: list[str]
    mean: np.ndarray
    std: np.ndarray


def load(bundle: str) -> Trained:
    """Read a bundle's weights into the plain network."""
    described = json.loads(Path(bundle, "model.json").read_text())
    network = Cnn(len(described["classes"]))
    weights = load_file(Path(bundle, "model.safetensors"))
    # The projection of embeddings, which the plain network does not have.
    weights.pop("embedding.projection", None)
    network.load_state_dict(weights)
    mean, std = (np.array(described[name], dtype=np.float32).reshape(3, 1, 1) for name in ("mean", "std"))
    return Trained(network.eval(), described["classes"], mean, std)


def files(folder: str) -> list[Path]:
    """Every JPEG file of a folder of folders, sorted."""
    return sorted(Path(folder).glob("*/*.jpg"))


def write(paths: Iterable[Path], labels: Iterable[str]) -> None:
    """Write ``predictions.csv`` in the working folder."""
    with Path("predictions.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "label"))
        table.writerows(zip(paths, labels, strict=True))
