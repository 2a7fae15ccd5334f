"""Behaviour under change: how an accuracy falls when the same images are turned, shifted, blurred or spoilt. Pure.

Changes are applied to uint8 images (N, C, S, S) at the network's size, as a camera, a crop or an encoder would have
changed them before. Kinds and strengths follow Hendrycks & Dietterich (Benchmarking neural network robustness to common
corruptions and perturbations, 2019), fewer of each. Everything random is seeded: equal images change equally.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calotype.evaluation.metrics import Estimate, wilson
from calotype.evaluation.resampling import accuracy_difference

Images = NDArray[np.uint8]

SEED = 0
SHIFTS = (0.04, 0.08, 0.12)
"""Of the image's size."""

BLURS = (1.0, 1.5, 2.5)
"""Standard deviation, in eightieths of the image's size, or units of 0.4 pixels if that is more: less shows nothing."""

NOISES = (0.04, 0.08, 0.16)
"""Standard deviation, of the range from black to white."""

STOPS = (0.5, 1.0, 1.5)
"""Exposure: a stop doubles or halves the light."""

QUALITIES = (60, 30, 10)

TITLES = {
    "flip": "Flip",
    "shift": "Shift by pixels",
    "blur": "Blur, σ in pixels",
    "noise": "Noise, σ in % of white",
    "brightness": "Brightness, ± stops",
    "jpeg": "JPEG quality",
}
"""Every kind of change, in the order shown, and what its strengths measure."""


WORDS = {
    "flip": "{} flip",
    "shift": "shift by {} px",
    "blur": "blur of {} px",
    "noise": "noise of {} %",
    "brightness": "brightness ± {} stops",
    "jpeg": "JPEG quality {}",
}
"""How a sentence names a change."""


@dataclass(frozen=True)
class Change:
    """One kind of change at one strength; ``label`` says it on an axis, ``name`` in a metric."""

    kind: str
    name: str
    label: str
    apply: Callable[[Images], Images]


@dataclass(frozen=True)
class Outcome:
    """The accuracy on changed images, and by how much it lies below that of the same images unchanged."""

    kind: str
    name: str
    label: str
    accuracy: Estimate
    drop: Estimate

    @property
    def words(self) -> str:
        """For a sentence: ``blur 1 px``, ``left-right flip``."""
        return WORDS[self.kind].format(self.label)


@dataclass(frozen=True)
class Robustness:
    """Accuracy on the sampled images unchanged, and changed in every way."""

    images: int
    unchanged: Estimate
    outcomes: tuple[Outcome, ...]

    def by_kind(self) -> dict[str, tuple[Outcome, ...]]:
        """The strengths of each kind, kinds in the order of `TITLES`."""
        return {kind: tuple(outcome for outcome in self.outcomes if outcome.kind == kind) for kind in TITLES}


def changes(size: int) -> Iterator[Change]:
    """Every change, for images of ``size`` pixels: six kinds, three strengths each, the weakest first."""
    yield Change("flip", "horizontal", "left-right", partial(flip, axes=(3,)))
    yield Change("flip", "vertical", "up-down", partial(flip, axes=(2,)))
    yield Change("flip", "both", "both", partial(flip, axes=(2, 3)))
    for share in SHIFTS:
        yield Change("shift", f"{share * 100:.0f}pct", f"{share * size:.2g}", partial(shift, distance=share * size))
    for step in BLURS:
        sigma = step * max(size / 80, 0.4)
        yield Change("blur", f"sigma{step:g}", f"{sigma:.2g}", partial(blur, sigma=sigma))
    for level in NOISES:
        yield Change("noise", f"{level * 100:.0f}pct", f"{level * 100:.0f}", partial(noise, level=level))
    for stops in STOPS:
        yield Change("brightness", f"{stops:g}stops", f"{stops:g}", partial(expose, stops=stops))
    for quality in QUALITIES:
        yield Change("jpeg", f"q{quality}", str(quality), partial(jpeg, quality=quality))


def flip(images: Images, axes: tuple[int, ...]) -> Images:
    """Mirror each image: axis 3 left and right, axis 2 up and down, both together a half turn."""
    return np.ascontiguousarray(np.flip(images, axes))


def measure(
    images: Images,
    labels: NDArray[Any],
    answer: Callable[[Images], NDArray[Any]],
    watch: Callable[[Sequence[Change]], Iterable[Change]] = iter,
) -> Robustness:
    """Answer the images unchanged and changed in every way.

    The interval of a drop comes from the paired bootstrap over images: the changed image answers for the unchanged one.

    Parameters
    ----------
    images
        uint8 (N, C, S, S), N at least 1.
    labels
        True class indices, shape (N,).
    answer
        Gives probabilities (N, K) of images.
    watch
        Goes through the changes; may show how far the work is.
    """
    before = answer(images).argmax(axis=1) == labels
    outcomes = []
    for change in watch(list(changes(images.shape[-1]))):
        after = answer(change.apply(images)).argmax(axis=1) == labels
        drop = accuracy_difference(before, after)
        outcomes.append(
            Outcome(
                change.kind,
                change.name,
                change.label,
                wilson(int(after.sum()), len(after)),
                Estimate(drop.value, drop.low, drop.high),
            )
        )
    return Robustness(len(images), wilson(int(before.sum()), len(before)), tuple(outcomes))


def shift(images: Images, distance: float) -> Images:
    """Move each image by ``distance`` pixels in one of eight directions, the edge repeated; fractions interpolated."""
    directions = np.random.default_rng(SEED).integers(0, 8, len(images))
    moved = np.empty_like(images)
    for direction in range(8):
        chosen = directions == direction
        angle = direction * math.pi / 4
        part = _moved(images[chosen].astype(np.float32), distance * math.sin(angle), axis=2)
        moved[chosen] = _to_uint8(_moved(part, distance * math.cos(angle), axis=3))
    return moved


def blur(images: Images, sigma: float) -> Images:
    """Gaussian blur with a standard deviation of ``sigma`` pixels, the edge repeated."""
    reach = max(1, math.ceil(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    blurred = images.astype(np.float32)
    for axis in (2, 3):
        places = np.arange(images.shape[axis])
        steps = zip(range(-reach, reach + 1), weights.tolist(), strict=True)
        parts = (w * np.take(blurred, (places + step).clip(0, len(places) - 1), axis) for step, w in steps)
        blurred = sum(parts, start=np.zeros_like(blurred))
    return _to_uint8(blurred)


def noise(images: Images, level: float) -> Images:
    """Gaussian noise of standard deviation ``level`` × 255, on each channel of each pixel."""
    random = np.random.default_rng(SEED)
    return _to_uint8(images + random.standard_normal(images.shape, dtype=np.float32) * np.float32(level * 255))


def expose(images: Images, stops: float) -> Images:
    """Darken half of the images by so many stops and brighten the others; what becomes lighter than white is white."""
    signs = np.random.default_rng(SEED).choice([-1.0, 1.0], len(images))
    gains = (2.0 ** (signs * stops)).astype(np.float32)
    return _to_uint8(images * gains[:, None, None, None])


def jpeg(images: Images, quality: int) -> Images:
    """Encode each image as JPEG with 4:2:0 chroma, and decode it."""
    from PIL import Image

    def again(image_chw: Images) -> Images:
        grey = len(image_chw) == 1
        picture = Image.fromarray(image_chw[0] if grey else np.ascontiguousarray(image_chw.transpose(1, 2, 0)))
        buffer = io.BytesIO()
        picture.save(buffer, format="JPEG", quality=quality)
        with Image.open(buffer, formats=["JPEG"]) as opened:
            decoded = np.asarray(opened)
        return decoded[None] if grey else decoded.transpose(2, 0, 1)

    with ThreadPoolExecutor(4) as pool:
        return np.stack(list(pool.map(again, images))) if len(images) else images


def brightness(images: Images) -> NDArray[np.float64]:
    """Mean grey of each image (ITU-R 601), between 0 and 255, shape (N,)."""
    means = images.reshape(len(images), images.shape[1], -1).mean(axis=2)
    weights = np.array([0.299, 0.587, 0.114]) if images.shape[1] == 3 else np.ones(1)
    greys: NDArray[np.float64] = means @ weights
    return greys


def sample(images: int, wanted: int) -> NDArray[np.int64]:
    """Which of so many images are changed: all, or a seeded choice in rising order."""
    if images <= wanted:
        return np.arange(images)
    return np.sort(np.random.default_rng(SEED).choice(images, wanted, replace=False))


def _moved(pictures: NDArray[np.float32], distance: float, axis: int) -> NDArray[np.float32]:
    last = pictures.shape[axis] - 1
    whole = math.floor(distance)
    share = distance - whole
    places = np.arange(last + 1)
    near = np.take(pictures, (places - whole).clip(0, last), axis)
    if share < 1e-9:
        return near
    far = np.take(pictures, (places - whole - 1).clip(0, last), axis)
    mixed: NDArray[np.float32] = (near * np.float32(1 - share) + far * np.float32(share)).astype(np.float32)
    return mixed


def _to_uint8(values: NDArray[Any]) -> Images:
    rounded: Images = np.rint(values).clip(0, 255).astype(np.uint8)
    return rounded
