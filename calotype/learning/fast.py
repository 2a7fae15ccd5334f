"""The `fast` network: small images, few epochs. In the spirit of Jordan 2024, "94 % on CIFAR-10 in 3.29 seconds".

A frozen first layer whitens patches of the training images, so that nothing has to be learnt about the statistics of
pixels; the layers behind it begin as near identities; normalisation has no scale, and the head is scaled down.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.params import NetworkParams

HEAD_SCALE = 1 / 9
"""What logits are multiplied by: the head begins close to indifferent, and its steps stay small."""

PATCHES_FROM = 5000
"""Training images whose patches are whitened."""

LEAST_VARIANCE = 5e-4
"""Added to the variance of a principal component, so that noise is not blown up."""


class Fast(nn.Module):
    """A whitening layer, blocks of convolutions that each halve the image, a maximum over what is left, a linear head.

    Takes float images (N, C, S, S), returns logits (N, K).
    """

    def __init__(self, network: NetworkParams, *, channels: int, classes: int) -> None:
        super().__init__()
        edge = patch_edge(channels)
        width = 2 * channels * edge * edge
        # Without a gradient: that of the widest feature maps would cost a fifth of a step.
        self.whitening = nn.Conv2d(channels, width, edge, bias=False).requires_grad_(False)
        blocks: list[nn.Module] = []
        for width_out in network.widths:
            blocks.append(_Block(width, width_out, network.convs))
            width = width_out
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(network.dropout)
        self.head = nn.Linear(width, classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.blocks(F.gelu(self.whitening(images)))
        logits: Tensor = self.head(self.dropout(features.amax((2, 3)))) * HEAD_SCALE
        return logits

    @torch.no_grad()
    def whiten(self, images_nchw: Tensor) -> None:
        """Set the first layer to the principal components of the images' patches, each scaled to unit variance.

        Each component comes twice, with both signs, because the activation behind it keeps one sign only.

        Parameters
        ----------
        images_nchw
            Normalised training images, float (N, C, S, S); a few thousand suffice.
        """
        edge = self.whitening.kernel_size[0]
        patches = images_nchw.unfold(2, edge, 1).unfold(3, edge, 1).permute(0, 2, 3, 1, 4, 5)
        flat = patches.reshape(-1, images_nchw.shape[1] * edge * edge).double()
        variances, components = torch.linalg.eigh(flat.T @ flat / len(flat))
        scaled = (components / (variances + LEAST_VARIANCE).sqrt()).T.flip(0)
        both = torch.cat([scaled, -scaled]).view_as(self.whitening.weight)
        self.whitening.weight.copy_(both)


class _Block(nn.Module):
    """Convolution, pooling, normalisation; then further convolutions, with a way around where there are two."""

    def __init__(self, width_in: int, width_out: int, convs: int) -> None:
        super().__init__()
        self.first = _convolution(width_in, width_out)
        self.first_norm = _norm(width_out)
        self.others = nn.ModuleList(_convolution(width_out, width_out) for _ in range(convs - 1))
        self.norms = nn.ModuleList(_norm(width_out) for _ in range(convs - 1))

    def forward(self, features: Tensor) -> Tensor:
        features = F.gelu(self.first_norm(F.max_pool2d(self.first(features), 2)))
        for number, (conv, norm) in enumerate(zip(self.others, self.norms, strict=True)):
            changed = norm(conv(features))
            features = F.gelu(changed if number == 0 else changed + features)
        return features


def patch_edge(channels: int) -> int:
    """Height and width of the patches that are whitened: 2 pixels of colour, 3 of grey, which say about as much."""
    return 2 if channels == 3 else 3


def smallest_size(network: NetworkParams, channels: int) -> int:
    """The smallest image that the blocks do not halve to nothing."""
    return int(2 ** len(network.widths)) + patch_edge(channels) - 1


def _convolution(width_in: int, width_out: int) -> nn.Conv2d:
    convolution = nn.Conv2d(width_in, width_out, 3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight[:width_in])
    return convolution


def _norm(width: int) -> nn.BatchNorm2d:
    # Trainings are short: the running statistics must follow quickly.
    norm = nn.BatchNorm2d(width, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm
