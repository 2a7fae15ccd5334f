"""Embeddings: few numbers that say what a network saw in an image, for whoever compares many images with many others.

An embedding is the input of the network's last layer, by which the classes are told apart, times a fixed matrix of
orthonormal columns drawn at random. Such a projection keeps the distance of two points, up to one common factor and an
error that shrinks as one over the root of its columns, whatever the points are (Johnson and Lindenstrauss 1984;
Dasgupta and Gupta 2003, "An elementary proof"): about a tenth for the 64 columns here. So it needs no look at data,
as principal components would, which keep what varied among the images they were taken from and drop the direction in
which tomorrow's differ. Where the last layer takes no more numbers than that, the matrix turns them and no distance
changes.
"""

from __future__ import annotations

import threading

import numpy as np
import torch
from torch import Tensor, nn

PROJECTION = "embedding.projection"
"""Name of the matrix among a bundle's weights."""

SIZE = 64
"""Numbers of an embedding, at most."""

_SEED = 64

_SEEN = threading.local()


class Embedding(nn.Module):
    """What a network's last layer was given in the latest forward pass of this thread, projected: float32 (N, D).

    A map is averaged over its pixels. Several threads may run the network at once.
    """

    projection: Tensor

    def __init__(self, network: nn.Module, projection: Tensor) -> None:
        super().__init__()
        self.register_buffer("projection", projection)
        # A function that keeps nothing in the module: copies of the network, folded ones too, go on calling it.
        last_layer(network).register_forward_pre_hook(_remember)

    def forward(self) -> Tensor:
        features: Tensor = _SEEN.__dict__.pop("features").float()
        if features.dim() == 4:
            features = features.mean((2, 3))
        return features @ self.projection


def last_layer(network: nn.Module) -> nn.Linear | nn.Conv2d:
    """The layer that gives the logits: fully connected, or a convolution whose maps are then averaged."""
    layers = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return layers[-1]


def draw(network: nn.Module) -> Tensor:
    """Draw the projection for a network, float32 (F, D) with D = min(64, F): the same for every network of this F."""
    layer = last_layer(network)
    features = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    drawn = np.random.default_rng(_SEED).standard_normal((features, min(SIZE, features)))
    orthonormal, triangle = np.linalg.qr(drawn)
    # Columns have a sign to choose; libraries choose differently.
    return torch.from_numpy((orthonormal * np.sign(np.diag(triangle))).astype(np.float32))


def _remember(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    _SEEN.features = inputs[0]
