"""Random changes to training images, on whole batches, with every draw from one generator."""

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


def augment(images_nchw: Tensor, augmentation: AugmentParams, generator: torch.Generator) -> Tensor:
    """Flip, shift, crop and erase at random.

    Parameters
    ----------
    images_nchw
        Normalised float images (N, C, S, S) on any device.
    augmentation
        What may happen, and how far.
    generator
        A CPU generator: the draws do not depend on the device.

    Returns
    -------
    Tensor
        New images of the same shape. What a shift uncovers is filled by reflection, what is erased is 0: the mean.
    """
    changed = _move(images_nchw, augmentation, generator)
    return _erase(changed, augmentation.erase, generator) if augmentation.erase > 0 else changed


def _move(images: Tensor, augmentation: AugmentParams, generator: torch.Generator) -> Tensor:
    """One affine map for flip, shift and crop, so that pixels are interpolated once; whole-pixel shifts stay exact."""
    count, size = len(images), images.shape[-1]
    matrices = torch.zeros(count, 2, 3)
    scale_x, scale_y = _crop_scales(count, augmentation.crop_scale, generator)
    flips = torch.rand(count, generator=generator) < augmentation.flip
    matrices[:, 0, 0] = torch.where(flips, -scale_x, scale_x)
    matrices[:, 1, 1] = scale_y
    reach = round(augmentation.translate * size)
    for axis, scale in enumerate((scale_x, scale_y)):
        shift = torch.randint(-reach, reach + 1, (count,), generator=generator) * (2 / size)
        position = (torch.rand(count, generator=generator) * 2 - 1) * (1 - scale)
        matrices[:, axis, 2] = shift + position
    if torch.equal(matrices, torch.eye(2, 3).expand(count, 2, 3)):
        return images
    grid = F.affine_grid(matrices.to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _crop_scales(count: int, smallest: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Width and height of each crop, as fractions of the image; area and aspect as in Szegedy et al. 2014."""
    if smallest >= 1:
        return torch.ones(count), torch.ones(count)
    area = torch.empty(count).uniform_(smallest, 1, generator=generator)
    log_aspect = torch.empty(count).uniform_(-1, 1, generator=generator) * math.log(LARGEST_ASPECT)
    width = (area * log_aspect.exp()).sqrt().clamp(max=1)
    height = (area / log_aspect.exp()).sqrt().clamp(max=1)
    return width, height


def _erase(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Set a rectangle of some images to 0 (random erasing, Zhong et al. 2017)."""
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
    return images.masked_fill(mask[:, None].to(images.device), 0.0)
