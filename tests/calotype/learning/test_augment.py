"""Augmentation of whole batches: exact where it can be, seeded always."""

from __future__ import annotations

import pytest
import torch

from calotype.learning.augment import augment
from calotype.params import AugmentParams

IMAGES = torch.rand(64, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def params(**changes: float) -> AugmentParams:
    return AugmentParams(**({"flip": 0.0, "translate": 0.0, "crop_scale": 1.0, "erase": 0.0} | changes))


def draw(seed: int = 0, **changes: float) -> torch.Tensor:
    return augment(IMAGES, params(**changes), torch.Generator().manual_seed(seed))


def test_nothing_asked_changes_nothing() -> None:
    assert torch.equal(draw(), IMAGES)


def test_a_sure_flip_is_a_mirror_image() -> None:
    assert torch.allclose(draw(flip=1.0), IMAGES.flip(3), atol=1e-5)


def test_a_shift_moves_whole_pixels() -> None:
    shifted = draw(translate=0.1)
    for before, after in zip(IMAGES, shifted, strict=True):
        shifts = [torch.roll(before, (dy, dx), (1, 2)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        inside = slice(2, -2)
        assert any(torch.allclose(after[:, inside, inside], s[:, inside, inside], atol=1e-4) for s in shifts)


@pytest.mark.parametrize("changes", [{"flip": 0.5}, {"translate": 0.2}, {"crop_scale": 0.5}, {"erase": 0.5}])
def test_the_seed_decides(changes: dict[str, float]) -> None:
    assert torch.equal(draw(1, **changes), draw(1, **changes))
    assert not torch.equal(draw(1, **changes), draw(2, **changes))


def test_about_half_the_images_flip() -> None:
    flipped = draw(flip=0.5)
    count = sum(not torch.allclose(a, b, atol=1e-4) for a, b in zip(flipped, IMAGES, strict=True))
    assert 20 <= count <= 44


def test_a_crop_stays_inside_the_image() -> None:
    ramp = torch.linspace(0, 1, 32).expand(50, 1, 32, 32)
    cropped = augment(ramp.contiguous(), params(crop_scale=0.3), torch.Generator().manual_seed(0))
    assert cropped.min() >= 0
    assert cropped.max() <= 1
    spans = cropped.amax((1, 2, 3)) - cropped.amin((1, 2, 3))
    assert spans.min() > 0.4
    assert spans.std() > 0.05


def test_erasing_sets_one_rectangle_to_the_mean() -> None:
    erased = augment(IMAGES + 1, params(erase=1.0), torch.Generator().manual_seed(0))
    for picture in erased:
        rows, columns = (picture[0] == 0).nonzero(as_tuple=True)
        height = int(rows.max() - rows.min()) + 1
        width = int(columns.max() - columns.min()) + 1
        assert len(rows) == height * width
        assert len(rows) <= 0.3 * 144
