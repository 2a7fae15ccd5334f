"""Augmentation of whole batches: exact where it can be, seeded always."""

from __future__ import annotations

import pytest
import torch

from calotype.learning import augment as augmenting
from calotype.learning.augment import augment, flips_of, phases
from calotype.params import AugmentParams

IMAGES = torch.randint(1, 256, (64, 3, 12, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
FILL = torch.zeros(3, dtype=torch.uint8)


def params(**changes: float) -> AugmentParams:
    return AugmentParams(**({"flip": 0.0, "translate": 0.0, "crop_scale": 1.0, "erase": 0.0} | changes))


def changed(seed: int = 0, **changes: float) -> torch.Tensor:
    return apply(IMAGES, params(**changes), seed)


def apply(images: torch.Tensor, augmentation: AugmentParams, seed: int = 0, size: int = 0) -> torch.Tensor:
    flips = flips_of(phases(len(images), seed), 0, augmentation.flip)
    size, stored_size = size or images.shape[-1], images.shape[-1]
    generator = torch.Generator().manual_seed(seed)
    changes = augmenting.draw(flips, augmentation, generator, size=size, stored_size=stored_size)
    return augment(images, torch.arange(len(images)), changes, size=size, fill=FILL[: images.shape[1]])


def test_nothing_asked_changes_nothing() -> None:
    assert torch.equal(changed(), IMAGES)


def test_a_sure_flip_is_a_mirror_image() -> None:
    assert torch.equal(changed(flip=1.0), IMAGES.flip(3))


def test_a_shift_moves_whole_pixels() -> None:
    shifted = changed(translate=0.1)
    for before, after in zip(IMAGES, shifted, strict=True):
        shifts = [torch.roll(before, (dy, dx), (1, 2)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        inside = slice(2, -2)
        assert any(torch.equal(after[:, inside, inside], s[:, inside, inside]) for s in shifts)


@pytest.mark.parametrize("changes", [{"flip": 0.5}, {"translate": 0.2}, {"crop_scale": 0.5}, {"erase": 0.5}])
def test_the_seed_decides(changes: dict[str, float]) -> None:
    assert torch.equal(changed(1, **changes), changed(1, **changes))
    assert not torch.equal(changed(1, **changes), changed(2, **changes))


def test_about_half_the_images_flip() -> None:
    flipped = changed(flip=0.5)
    count = sum(not torch.equal(a, b) for a, b in zip(flipped, IMAGES, strict=True))
    assert 20 <= count <= 44


def test_a_crop_stays_inside_the_image() -> None:
    ramp = torch.linspace(20, 220, 32).to(torch.uint8).expand(50, 1, 32, 32)
    cropped = apply(ramp.contiguous(), params(crop_scale=0.3)).float()
    assert cropped.min() >= 20
    assert cropped.max() <= 220
    spans = cropped.amax((1, 2, 3)) - cropped.amin((1, 2, 3))
    assert spans.min() > 80
    assert spans.std() > 10


def test_a_set_stored_larger_is_brought_to_the_size() -> None:
    ramp = torch.linspace(0, 250, 37).to(torch.uint8).expand(8, 1, 37, 37).contiguous()
    whole = apply(ramp, params(), size=32)
    assert whole.shape == (8, 1, 32, 32)
    expected = torch.nn.functional.interpolate(ramp.float(), size=32, mode="bilinear", align_corners=False)
    assert (whole.float() - expected).abs().max() <= 1


def test_a_batch_is_taken_in_the_order_asked_for() -> None:
    chosen = torch.tensor([5, 3, 60])
    changes = augmenting.draw(torch.zeros(3).bool(), params(), torch.Generator(), size=12, stored_size=12)
    taken = augment(IMAGES, chosen, changes, size=12, fill=FILL)
    assert torch.equal(taken, IMAGES[chosen])


def test_a_part_of_a_batch_is_changed_as_in_the_whole() -> None:
    """So several processes, each with its part, see what one process sees."""
    augmentation = params(flip=0.5, translate=0.2, crop_scale=0.5, erase=0.5)
    flips = flips_of(phases(64, 0), 0, 0.5)
    changes = augmenting.draw(flips, augmentation, torch.Generator().manual_seed(0), size=12, stored_size=12)
    whole = augment(IMAGES, torch.arange(64), changes, size=12, fill=FILL)
    part = augment(IMAGES, torch.arange(20, 40), changes.part(lambda values: values[20:40]), size=12, fill=FILL)
    assert torch.equal(part, whole[20:40])


@pytest.mark.parametrize("probability", [0.25, 0.5, 1.0])
def test_every_image_flips_in_its_share_of_the_epochs(probability: float) -> None:
    cycle = phases(200, 0)
    counts = torch.stack([flips_of(cycle, epoch, probability) for epoch in range(8)]).sum(0)
    assert torch.equal(counts, torch.full((200,), round(8 * probability)))


def test_erasing_sets_one_rectangle_to_the_mean() -> None:
    erased = changed(erase=1.0)
    for picture in erased:
        rows, columns = (picture[0] == 0).nonzero(as_tuple=True)
        height = int(rows.max() - rows.min()) + 1
        width = int(columns.max() - columns.min()) + 1
        assert len(rows) == height * width
        assert len(rows) <= 0.3 * 144
