"""Random changes to training images: whole batches of uint8, on their device, with every draw from one generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from calotype.params import AugmentParams

ERASED_AREA = (0.02, 0.2)
"""Smallest and largest share of an image that erasing covers."""

LARGEST_ASPECT = 4 / 3
"""Random-resized-crop: the widest crop, as width over height; its inverse is the tallest."""


def augment(
    images_nchw: Tensor,
    chosen: Tensor,
    flips: Tensor,
    augmentation: AugmentParams,
    generator: torch.Generator,
    *,
    size: int,
    fill: Tensor,
) -> Tensor:
    """Take some images of a set, flipped, shifted, cropped and erased at random.

    Parameters
    ----------
    images_nchw
        The whole set, uint8 (N, C, R, R), on any device; fastest in `torch.channels_last`.
    chosen
        Indices of the batch, int64 (B,), on the CPU.
    flips
        Which images of the batch are mirrored, bool (B,), on the CPU.
    augmentation
        What may happen, and how far.
    generator
        A CPU generator: the draws do not depend on the device.
    size
        Height and width of what is returned; the set may be stored larger where `crop_scale` cuts from it.
    fill
        The value of erased pixels, uint8 (C,): the mean.

    Returns
    -------
    Tensor
        uint8 (B, C, size, size), channels_last. What a shift uncovers is filled by reflection.
    """
    if augmentation.crop_scale < 1 or images_nchw.shape[-1] != size:
        changed = _crop(images_nchw, chosen, flips, augmentation, generator, size)
    else:
        changed = _shift(images_nchw, chosen, flips, augmentation, generator)
    return _erase(changed, augmentation.erase, fill, generator) if augmentation.erase > 0 else changed


def phases(count: int, seed: int) -> Tensor:
    """Where each image stands in its cycle of flips, uniform between 0 and 1, float32 (N,)."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def flips_of(phases_of_chosen: Tensor, epoch: int, probability: float) -> Tensor:
    """Which images are mirrored in an epoch, bool (B,).

    Every image is mirrored in that share of its epochs, evenly spread: at 0.5 in every other one, so that two epochs
    show both sides of each (Jordan 2024, "alternating flip").
    """
    return (phases_of_chosen + epoch * probability) % 1 < probability


def _shift(
    images: Tensor, chosen: Tensor, flips: Tensor, augmentation: AugmentParams, generator: torch.Generator
) -> Tensor:
    """Flip and shift by whole pixels: one copy of each pixel from where it comes."""
    count, channels, size, _ = images.shape
    batch = len(chosen)
    reach = round(augmentation.translate * size)
    shifts = torch.randint(-reach, reach + 1, (2, batch, 1), generator=generator)
    pixel = torch.arange(size)[None]
    rows = _reflected(pixel + shifts[0], size)
    columns = _reflected(torch.where(flips[:, None], size - 1 - pixel, pixel) + shifts[1], size)
    sources = (chosen[:, None, None] * size + rows[:, :, None]) * size + columns[:, None, :]
    pixels = images.permute(0, 2, 3, 1).reshape(count * size * size, channels)
    taken = pixels.index_select(0, sources.flatten().to(images.device))
    return taken.view(batch, size, size, channels).permute(0, 3, 1, 2)


def _reflected(position: Tensor, size: int) -> Tensor:
    """Positions beyond an edge, mirrored at it: -1 is 0, -2 is 1."""
    position = torch.where(position < 0, -1 - position, position)
    return torch.where(position >= size, 2 * size - 1 - position, position)


def _crop(
    images: Tensor, chosen: Tensor, flips: Tensor, augmentation: AugmentParams, generator: torch.Generator, size: int
) -> Tensor:
    """One affine map for flip, shift and crop, so that pixels are interpolated once."""
    count = len(chosen)
    matrices = torch.zeros(count, 2, 3)
    scale_x, scale_y = _crop_scales(count, augmentation.crop_scale, generator)
    matrices[:, 0, 0] = torch.where(flips, -scale_x, scale_x)
    matrices[:, 1, 1] = scale_y
    reach = round(augmentation.translate * size)
    for axis, scale in enumerate((scale_x, scale_y)):
        shift = torch.randint(-reach, reach + 1, (count,), generator=generator) * (2 / size)
        position = (torch.rand(count, generator=generator) * 2 - 1) * (1 - scale)
        matrices[:, axis, 2] = shift + position
    taken = images.index_select(0, chosen.to(images.device)).float()
    shape = [count, images.shape[1], size, size]
    grid = F.affine_grid(matrices.to(images.device), shape, align_corners=False)
    cropped = F.grid_sample(taken, grid, padding_mode="reflection", align_corners=False)
    return cropped.round_().to(torch.uint8).contiguous(memory_format=torch.channels_last)


def _crop_scales(count: int, smallest: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Width and height of each crop, as fractions of the image; area and aspect as in Szegedy et al. 2014."""
    if smallest >= 1:
        return torch.ones(count), torch.ones(count)
    area = torch.empty(count).uniform_(smallest, 1, generator=generator)
    log_aspect = torch.empty(count).uniform_(-1, 1, generator=generator) * math.log(LARGEST_ASPECT)
    width = (area * log_aspect.exp()).sqrt().clamp(max=1)
    height = (area / log_aspect.exp()).sqrt().clamp(max=1)
    return width, height


def _erase(images: Tensor, probability: float, fill: Tensor, generator: torch.Generator) -> Tensor:
    """Set a rectangle of some images to the mean (random erasing, Zhong et al. 2017)."""
    count, size = len(images), images.shape[-1]
    area = torch.empty(count).uniform_(*ERASED_AREA, generator=generator) * size * size
    log_aspect = torch.empty(count).uniform_(-1, 1, generator=generator) * math.log(3)
    height = (area * log_aspect.exp()).sqrt().round().clamp(1, size)
    width = (area / log_aspect.exp()).sqrt().round().clamp(1, size)
    top = (torch.rand(count, generator=generator) * (size - height + 1)).floor()
    left = (torch.rand(count, generator=generator) * (size - width + 1)).floor()
    chosen = torch.rand(count, generator=generator) < probability
    pixel = torch.arange(size)
    rows = (pixel >= top[:, None]) & (pixel < (top + height)[:, None])
    columns = (pixel >= left[:, None]) & (pixel < (left + width)[:, None])
    mask = chosen[:, None, None] & rows[:, :, None] & columns[:, None, :]
    return torch.where(mask[:, None].to(images.device), fill.view(1, -1, 1, 1), images)
