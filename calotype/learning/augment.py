"""Random changes to training images: whole batches of uint8, on their device, with every draw from one generator."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from calotype.params import AugmentParams

ERASED_AREA = (0.02, 0.2)
"""Smallest and largest share of an image that erasing covers."""

LARGEST_ASPECT = 4 / 3
"""Random-resized-crop: the widest crop, as width over height; its inverse is the tallest."""


@dataclass(frozen=True)
class Changes:
    """What happens to each image of a batch: every tensor has one entry for each image, on the CPU.

    Attributes
    ----------
    flips
        Which are mirrored, bool (B,).
    shifts
        By how many pixels content moves down and right, int64 (B, 2).
    crops
        Width and height of a crop as fractions of the image, and its place between -1 and 1, float32 (B, 4); None
        where the whole image is taken.
    erased
        Top, left, height and width in pixels of the rectangle that is set to the mean, float32 (B, 4); None for none.
    """

    flips: Tensor
    shifts: Tensor
    crops: Tensor | None
    erased: Tensor | None

    def part(self, take: Callable[[Tensor], Tensor]) -> Changes:
        """Those of some of the images."""
        crops = None if self.crops is None else take(self.crops)
        erased = None if self.erased is None else take(self.erased)
        return Changes(take(self.flips), take(self.shifts), crops, erased)


def draw(
    flips: Tensor, augmentation: AugmentParams, generator: torch.Generator, *, size: int, stored_size: int
) -> Changes:
    """Draw the changes of a whole batch.

    Parameters
    ----------
    flips
        Which images of the batch are mirrored, bool (B,), as `flips_of` says.
    augmentation
        What may happen, and how far.
    generator
        A CPU generator: the draws do not depend on the device.
    size, stored_size
        Height and width of the images that the network sees, and of those that are kept.
    """
    count = len(flips)
    reach = round(augmentation.translate * size)
    crops = None
    if augmentation.crop_scale < 1 or stored_size != size:
        crops = _crops(count, augmentation.crop_scale, generator)
    shifts = torch.randint(-reach, reach + 1, (2, count), generator=generator).T
    erased = _rectangles(count, size, augmentation.erase, generator) if augmentation.erase > 0 else None
    return Changes(flips, shifts, crops, erased)


def augment(images_nchw: Tensor, chosen: Tensor, changes: Changes, *, size: int, fill: Tensor) -> Tensor:
    """Take some images of a set, flipped, shifted, cropped and erased.

    Parameters
    ----------
    images_nchw
        The whole set, uint8 (N, C, R, R), on any device; fastest in `torch.channels_last`.
    chosen
        Indices of the batch, int64 (B,), on the CPU.
    changes
        What happens to each of them.
    size
        Height and width of what is returned; the set may be stored larger where `crop_scale` cuts from it.
    fill
        The value of erased pixels, uint8 (C,): the mean.

    Returns
    -------
    Tensor
        uint8 (B, C, size, size), channels_last. What a shift uncovers is filled by reflection.
    """
    if changes.crops is None:
        changed = _shift(images_nchw, chosen, changes.flips, changes.shifts)
    else:
        changed = _crop(images_nchw, chosen, changes.flips, changes.shifts, changes.crops, size)
    return changed if changes.erased is None else _erase(changed, changes.erased, fill)


def phases(count: int, seed: int) -> Tensor:
    """Where each image stands in its cycle of flips, uniform between 0 and 1, float32 (N,)."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def flips_of(phases_of_chosen: Tensor, epoch: int, probability: float) -> Tensor:
    """Which images are mirrored in an epoch, bool (B,).

    Every image is mirrored in that share of its epochs, evenly spread: at 0.5 in every other one, so that two epochs
    show both sides of each (Jordan 2024, "alternating flip").
    """
    return (phases_of_chosen + epoch * probability) % 1 < probability


def _shift(images: Tensor, chosen: Tensor, flips: Tensor, shifts: Tensor) -> Tensor:
    """Flip and shift by whole pixels: one copy of each pixel from where it comes."""
    count, channels, size, _ = images.shape
    batch = len(chosen)
    pixel = torch.arange(size)[None]
    rows = _reflected(pixel + shifts[:, :1], size)
    columns = _reflected(torch.where(flips[:, None], size - 1 - pixel, pixel) + shifts[:, 1:], size)
    sources = (chosen[:, None, None] * size + rows[:, :, None]) * size + columns[:, None, :]
    pixels = images.permute(0, 2, 3, 1).reshape(count * size * size, channels)
    taken = pixels.index_select(0, sources.flatten().to(images.device))
    return taken.view(batch, size, size, channels).permute(0, 3, 1, 2)


def _reflected(position: Tensor, size: int) -> Tensor:
    """Positions beyond an edge, mirrored at it: -1 is 0, -2 is 1."""
    position = torch.where(position < 0, -1 - position, position)
    return torch.where(position >= size, 2 * size - 1 - position, position)


def _crop(images: Tensor, chosen: Tensor, flips: Tensor, shifts: Tensor, crops: Tensor, size: int) -> Tensor:
    """One affine map for flip, shift and crop, so that pixels are interpolated once."""
    pixel = (torch.arange(size) * 2 + 1) / size - 1
    scales, places = crops[:, :2, None], crops[:, 2:, None]
    # Down and right in pixels; across and down between -1 and 1.
    offsets = shifts.flip(1)[:, :, None] * (2 / size) + places * (1 - scales)
    across = torch.where(flips[:, None], -pixel, pixel) * scales[:, 0] + offsets[:, 0]
    down = pixel * scales[:, 1] + offsets[:, 1]
    grid = torch.empty(len(chosen), size, size, 2, device=images.device)
    grid[..., 0], grid[..., 1] = across.to(images.device)[:, None, :], down.to(images.device)[:, :, None]
    taken = images.index_select(0, chosen.to(images.device)).float()
    cropped = F.grid_sample(taken, grid, padding_mode="reflection", align_corners=False)
    return cropped.round_().to(torch.uint8).contiguous(memory_format=torch.channels_last)


def _crops(count: int, smallest: float, generator: torch.Generator) -> Tensor:
    """Width, height and place of each crop; area and aspect as in Szegedy et al. 2014."""
    places = torch.rand(count, 2, generator=generator) * 2 - 1
    if smallest >= 1:
        return torch.cat([torch.ones(count, 2), places], dim=1)
    area = torch.empty(count).uniform_(smallest, 1, generator=generator)
    log_aspect = torch.empty(count).uniform_(-1, 1, generator=generator) * math.log(LARGEST_ASPECT)
    width = (area * log_aspect.exp()).sqrt().clamp(max=1)
    height = (area / log_aspect.exp()).sqrt().clamp(max=1)
    return torch.cat([torch.stack([width, height], dim=1), places], dim=1)


def _rectangles(count: int, size: int, probability: float, generator: torch.Generator) -> Tensor:
    """Rectangles to erase (random erasing, Zhong et al. 2017); of height 0 where nothing is."""
    area = torch.empty(count).uniform_(*ERASED_AREA, generator=generator) * size * size
    log_aspect = torch.empty(count).uniform_(-1, 1, generator=generator) * math.log(3)
    height = (area * log_aspect.exp()).sqrt().round().clamp(1, size)
    width = (area / log_aspect.exp()).sqrt().round().clamp(1, size)
    top = (torch.rand(count, generator=generator) * (size - height + 1)).floor()
    left = (torch.rand(count, generator=generator) * (size - width + 1)).floor()
    is_erased = torch.rand(count, generator=generator) < probability
    return torch.stack([top, left, height * is_erased, width], dim=1)


def _erase(images: Tensor, rectangles: Tensor, fill: Tensor) -> Tensor:
    pixel = torch.arange(images.shape[-1])
    top, left, height, width = rectangles[:, :, None].unbind(1)
    rows = (pixel >= top) & (pixel < top + height)
    columns = (pixel >= left) & (pixel < left + width)
    mask = rows[:, :, None] & columns[:, None, :]
    return torch.where(mask[:, None].to(images.device), fill.view(1, -1, 1, 1), images)
