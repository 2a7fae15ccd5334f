"""Convolutions over maps of a few pixels, as one product with a matrix.

Networks made for photographs end, on small images, with maps of 2 × 2 or 1 × 1 pixels. There most taps of a kernel
see padding alone, and libraries of convolutions take several times as long as for the taps that matter.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LARGEST = 9
"""Pixels of the largest map that is multiplied: the matrix holds each tap for each pair of pixels that it joins."""


def multiplied(model: nn.Module) -> nn.Module:
    """Let a model's convolutions multiply where maps are small; parameters and their names stay as they are."""
    for module in model.modules():
        if type(module) is nn.Conv2d and _is_plain(module):
            module.__class__ = SmallMapConv2d
    return model


class SmallMapConv2d(nn.Conv2d):
    """A convolution that takes maps (N, C, H, W) of at most `LARGEST` pixels as rows of a matrix."""

    def forward(self, maps: Tensor) -> Tensor:
        count, channels, height, width = maps.shape
        if height * width > LARGEST:
            return super().forward(maps)
        taps, out_height, out_width = _taps((height, width), self.kernel_size[0], self.stride[0], int(self.padding[0]))
        # (O, C, k, k) as (O, k · k, C), and a last tap of zeros for pixels that no tap joins.
        kernel = self.weight.permute(0, 2, 3, 1).flatten(1, 2)
        kernel = F.pad(kernel, (0, 0, 0, 1))
        chosen = kernel.index_select(1, taps).view(self.out_channels, out_height * out_width, height * width * channels)
        matrix = chosen.transpose(0, 1).reshape(-1, height * width * channels)
        rows = maps.permute(0, 2, 3, 1).reshape(count, height * width * channels)
        answers = F.linear(rows, matrix).view(count, out_height, out_width, self.out_channels)
        answers = answers.permute(0, 3, 1, 2)
        return answers if self.bias is None else answers + self.bias.view(1, -1, 1, 1)


def _is_plain(module: nn.Conv2d) -> bool:
    edge = module.kernel_size[0]
    return (
        edge > 1
        and module.kernel_size == (edge, edge)
        and module.stride[0] == module.stride[1]
        and module.padding in ((0, 0), (edge // 2, edge // 2))
        and module.dilation == (1, 1)
        and module.groups == 1
        and module.padding_mode == "zeros"
    )


@cache
def _taps(size: tuple[int, int], edge: int, stride: int, padding: int) -> tuple[Tensor, int, int]:
    """For each pixel that comes out and each that goes in the number of the tap that joins them, or edge² for none."""
    out = [(length + 2 * padding - edge) // stride + 1 for length in size]
    joined = [_offsets(length, out_length, stride, padding) for length, out_length in zip(size, out, strict=True)]
    rows, columns = joined[0][:, None, :, None], joined[1][None, :, None, :]
    is_joined = (rows >= 0) & (rows < edge) & (columns >= 0) & (columns < edge)
    taps = torch.where(is_joined, rows * edge + columns, edge * edge)
    return taps.flatten(), out[0], out[1]


def _offsets(length: int, out_length: int, stride: int, padding: int) -> Tensor:
    """Which row of the kernel meets a row of the map for a row that comes out, (out, in)."""
    return torch.arange(length)[None, :] - torch.arange(out_length)[:, None] * stride + padding
