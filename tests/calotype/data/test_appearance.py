"""The three numbers of an image's appearance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from calotype.data.appearance import appearance

SHAPES = st.tuples(st.integers(1, 9), st.sampled_from([1, 3]), st.integers(4, 40), st.integers(4, 40))
IMAGES = SHAPES.flatmap(lambda shape: arrays.arrays(np.uint8, shape))


def photograph(size: int = 48) -> NDArray[np.uint8]:
    """Blocks with edges and some noise, (1, 3, S, S)."""
    random = np.random.default_rng(3)
    blocks = random.integers(20, 230, (size // 8, size // 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
    return np.clip(blocks + random.normal(0, 6, blocks.shape), 0, 255).astype(np.uint8).transpose(2, 0, 1)[None]


def by_definition(image: NDArray[np.uint8]) -> tuple[float, float, float]:
    planes = image.astype(np.float64) / 255
    light = planes[0] if len(planes) == 1 else 0.299 * planes[0] + 0.587 * planes[1] + 0.114 * planes[2]
    edges = light[:-2, 1:-1] + light[2:, 1:-1] + light[1:-1, :-2] + light[1:-1, 2:] - 4 * light[1:-1, 1:-1]
    return light.mean(), light.std(), edges.std()


@given(IMAGES)
def test_the_numbers_are_those_of_the_definition(images: NDArray[np.uint8]) -> None:
    expected = np.array([by_definition(image) for image in images])
    np.testing.assert_allclose(appearance(images), expected, atol=2e-6)


@given(IMAGES)
def test_a_batch_gives_what_its_images_give_one_by_one_to_the_last_bit(images: NDArray[np.uint8]) -> None:
    channels_last = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    together = appearance(images)
    alone = np.concatenate([appearance(channels_last[place : place + 1]) for place in range(len(images))])
    assert together.dtype == np.float32
    assert together.tobytes() == alone.tobytes()


def test_many_large_images_give_what_they_give_one_by_one() -> None:
    images = np.random.default_rng(0).integers(0, 256, (70, 3, 225, 224), dtype=np.uint8)
    alone = np.concatenate([appearance(image[None]) for image in images])
    assert appearance(images).tobytes() == alone.tobytes()


@given(st.integers(0, 255), st.sampled_from([1, 3]))
def test_a_constant_image_has_its_brightness_and_neither_contrast_nor_sharpness(level: int, channels: int) -> None:
    image = np.full((1, channels, 16, 16), level, dtype=np.uint8)
    np.testing.assert_allclose(appearance(image), [[level / 255, 0, 0]], atol=1e-6)


@settings(max_examples=20)
@given(st.sampled_from([0.3, 0.5, 0.6, 0.8]))
def test_darkening_scales_all_three_alike(factor: float) -> None:
    image = photograph()
    darker = np.rint(image * factor).astype(np.uint8)
    np.testing.assert_allclose(appearance(darker) / appearance(image), [[factor] * 3], rtol=0.02)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.5])
def test_blur_lowers_the_sharpness_most(sigma: float) -> None:
    image = photograph()
    picture = Image.fromarray(image[0].transpose(1, 2, 0)).filter(ImageFilter.GaussianBlur(sigma))
    blurred = np.asarray(picture).transpose(2, 0, 1)[None]
    mean, contrast, sharpness = (appearance(blurred) / appearance(image))[0]
    assert mean == pytest.approx(1, abs=0.01)
    assert sharpness < contrast < 1


def test_no_images_give_no_rows() -> None:
    assert appearance(np.empty((0, 3, 8, 8), dtype=np.uint8)).shape == (0, 3)
