"""Changes of images: each does what its name says, leaves what it must, and does it again in the same way."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from calotype.evaluation.robustness import (
    TITLES,
    WORDS,
    blur,
    brightness,
    changes,
    expose,
    flip,
    jpeg,
    measure,
    noise,
    sample,
    shift,
)


def pictures(count: int = 12, channels: int = 3, size: int = 16) -> np.ndarray:
    """Smooth images, as photographs are, with room to darken and to brighten."""
    random = np.random.default_rng(0)
    coarse = random.integers(60, 180, (count, channels, 4, 4))
    return blur(np.kron(coarse, np.ones((1, 1, size // 4, size // 4))).astype(np.uint8), 1.0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 32])
def test_every_change_keeps_shape_and_kind_and_is_the_same_again(channels: int, size: int) -> None:
    images = pictures(channels=channels, size=size)
    before = images.copy()
    tried = list(changes(size))
    assert [change.kind for change in tried] == [kind for kind in TITLES for _ in range(3)]
    assert len({(change.kind, change.name) for change in tried}) == 18
    for change in tried:
        changed = change.apply(images)
        assert (changed.shape, changed.dtype) == (images.shape, np.uint8)
        assert (changed != images).any(), change
        assert np.array_equal(changed, change.apply(images)), change
        assert np.array_equal(images, before), change
    assert WORDS.keys() == TITLES.keys()


def test_a_stronger_change_is_further_from_the_image() -> None:
    images = pictures(40, size=32)
    distances: dict[str, list[float]] = {}
    for change in changes(32):
        away = np.abs(change.apply(images).astype(int) - images).mean()
        distances.setdefault(change.kind, []).append(float(away))
    del distances["flip"]
    for kind, found in distances.items():
        assert all(weaker < stronger for weaker, stronger in pairwise(found)), kind


def test_flips_are_their_own_inverse_and_both_is_one_after_the_other() -> None:
    images = pictures()
    assert np.array_equal(flip(images, (3,))[0, 0, :, 0], images[0, 0, :, -1])
    assert np.array_equal(flip(flip(images, (2,)), (2,)), images)
    assert np.array_equal(flip(images, (2, 3)), flip(flip(images, (2,)), (3,)))


def test_a_shift_by_whole_pixels_moves_each_image_in_one_direction() -> None:
    images = np.zeros((64, 1, 9, 9), dtype=np.uint8)
    images[:, 0, 4, 4] = 255
    rows, columns = np.where(shift(images, 2.0)[:, 0] == 255)[1:]
    # Straight directions keep the point whole; slanted ones spread it over its neighbours.
    assert 10 < len(rows) < 54
    assert {(int(row) - 4, int(column) - 4) for row, column in zip(rows, columns, strict=True)} == {
        (2, 0),
        (-2, 0),
        (0, 2),
        (0, -2),
    }


def test_a_shift_keeps_the_light_of_an_image_whose_edge_is_even() -> None:
    images = np.full((16, 1, 12, 12), 40, dtype=np.uint8)
    images[:, :, 4:8, 4:8] = 200
    moved = shift(images, 1.3)
    assert np.abs(moved.mean(axis=(1, 2, 3)) - images.mean(axis=(1, 2, 3))).max() < 0.5


def test_blur_is_scipy_s_gaussian_filter() -> None:
    from scipy.ndimage import gaussian_filter

    images = np.random.default_rng(1).integers(0, 256, (3, 1, 32, 32), dtype=np.uint8)
    expected = np.stack([gaussian_filter(one[0].astype(float), 1.28, mode="nearest", truncate=3.2) for one in images])
    assert np.abs(blur(images, 1.28)[:, 0].astype(float) - expected).max() <= 1


def test_noise_has_the_strength_that_it_names() -> None:
    grey = np.full((20, 1, 32, 32), 128, dtype=np.uint8)
    spread = (noise(grey, 0.08).astype(float) - 128).std() / 255
    assert spread == pytest.approx(0.08, rel=0.03)


def test_a_stop_halves_or_doubles_the_light_of_half_of_the_images_each() -> None:
    grey = np.full((400, 1, 2, 2), 60, dtype=np.uint8)
    values, counts = np.unique(expose(grey, 1.0)[:, 0, 0, 0], return_counts=True)
    assert values.tolist() == [30, 120]
    assert counts.min() > 150


def test_jpeg_of_any_quality_keeps_grey_grey_and_channels_in_order() -> None:
    images = np.zeros((2, 3, 16, 16), dtype=np.uint8)
    images[0, 0], images[1, 2] = 200, 200
    again = jpeg(images, 60).mean(axis=(2, 3))
    assert again[0].argmax() == 0
    assert again[1].argmax() == 2
    assert jpeg(images[:0], 60).shape == (0, 3, 16, 16)


def test_brightness_is_the_mean_grey_that_pillow_sees() -> None:
    from PIL import Image

    images = np.random.default_rng(2).integers(0, 256, (3, 3, 20, 20), dtype=np.uint8)
    expected = [np.asarray(Image.fromarray(one.transpose(1, 2, 0)).convert("L")).mean() for one in images]
    np.testing.assert_allclose(brightness(images), expected, atol=0.6)
    assert brightness(images[:, :1]).tolist() == [one[0].mean() for one in images]


def test_the_sample_is_all_or_a_fixed_choice() -> None:
    assert sample(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert sample(5, 0).tolist() == []
    chosen = sample(1000, 100)
    assert len(set(chosen.tolist())) == 100
    assert chosen.tolist() == sorted(chosen.tolist()) == sample(1000, 100).tolist()


def test_a_model_that_sees_only_the_mean_is_steady_under_flips_and_falls_when_light_changes() -> None:
    images = pictures(60, channels=1, size=32)
    labels = (brightness(images) > np.median(brightness(images))).astype(int)
    middle = np.median(brightness(images))

    def answer(pixels: np.ndarray) -> np.ndarray:
        bright = brightness(pixels) > middle
        return np.stack([~bright, bright], axis=1).astype(np.float32)

    found = measure(images, labels, answer)
    assert found.unchanged.value == 1
    assert found.images == 60
    by_kind = found.by_kind()
    for one in by_kind["flip"]:
        assert (one.drop.value, one.drop.low, one.drop.high) == (0, 0, 0)
    lost = by_kind["brightness"][-1].drop
    assert 0.2 < lost.low < lost.value < lost.high
    for one in found.outcomes:
        assert one.drop.value == pytest.approx(1 - one.accuracy.value)
