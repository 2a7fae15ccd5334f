"""Slices: is a model as good on small, dark or foreign images as on the rest? Pure numpy and polars.

A slice and the rest are different images, so nothing can be paired: the interval of their difference is Newcombe's
(1998, method 10), built from both Wilson intervals, honest for the few images of a small slice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from calotype.evaluation import columns as manifest_columns
from calotype.evaluation.metrics import Estimate, Z, wilson

MOST_VALUES = 12
OTHER = "(other)"
HALF_WIDTH = 0.05
"""A slice says something once its accuracy is known to ± this."""

TERTILES = {"size": ("small", "middle", "large"), "brightness": ("dark", "middle", "bright")}


@dataclass(frozen=True)
class Slice:
    """The images that share a value.

    Attributes
    ----------
    value
        What they share.
    detail
        Which images these are, where the value does not say it.
    images
        How many.
    accuracy
        Share answered rightly, with a Wilson interval.
    difference
        Accuracy less that of all other images, with Newcombe's interval.
    is_enough
        Whether there are as many images as an honest statement needs.
    """

    value: str
    detail: str
    images: int
    accuracy: Estimate
    difference: Estimate
    is_enough: bool

    @property
    def stands_out(self) -> bool:
        """Whether the interval of the difference leaves out 0, and the images are enough."""
        return self.is_enough and not self.difference.low <= 0 <= self.difference.high


@dataclass(frozen=True)
class Dimension:
    """A way of cutting the test images, and its slices in order."""

    name: str
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class Slicing:
    """The test images cut in every way asked for.

    Attributes
    ----------
    dimensions
        Each with at least two slices.
    single
        Dimensions of which all images share the one value, so that there is nothing to compare.
    fewest
        Images that a slice needs for an interval of ±5 points at this accuracy.
    """

    dimensions: tuple[Dimension, ...]
    single: tuple[str, ...]
    fewest: int


def measure(
    images: pl.DataFrame, brightness: NDArray[Any], correct: NDArray[np.bool_], columns: Sequence[str]
) -> Slicing:
    """Cut the test images by size, brightness and columns of the manifest.

    Parameters
    ----------
    images
        Rows of the manifest, one for each test image, with ``width`` and ``height``.
    brightness
        Mean grey of each image, between 0 and 255.
    correct
        Whether each was answered rightly.
    columns
        Columns of the manifest, or keys of the JSON objects in its column ``attributes``.

    Raises
    ------
    ParamsError
        If a column is unknown, naming the known ones.
    """
    manifest_columns.check(images, columns)
    fewest = smallest_sample(float(correct.mean()))
    pixels = (images["width"].cast(pl.Int64) * images["height"].cast(pl.Int64)).to_numpy()
    cuts = [_tertiles("size", pixels, "pixels"), _tertiles("brightness", brightness, "mean grey")]
    cuts += [(name, *_values(images, name)) for name in dict.fromkeys(columns)]
    dimensions, single = [], []
    for name, places, labels in cuts:
        if len(labels) < 2:
            single.append(name)
            continue
        found = [_slice(label, places == place, correct, fewest) for place, label in enumerate(labels)]
        dimensions.append(Dimension(name, tuple(found)))
    return Slicing(tuple(dimensions), tuple(single), fewest)


def smallest_sample(accuracy: float, half_width: float = HALF_WIDTH) -> int:
    """How many images a Wilson interval of ± ``half_width`` needs at an accuracy."""

    def is_narrow(images: int) -> bool:
        spread = accuracy * (1 - accuracy) / images + Z**2 / (4 * images**2)
        return Z * math.sqrt(spread) / (1 + Z**2 / images) <= half_width

    low, high = 0, 1
    while not is_narrow(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_narrow(middle) else (middle, high)
    return high


def difference(right: int, images: int, other_right: int, other_images: int) -> Estimate:
    """Difference of two independent proportions with Newcombe's hybrid score interval (1998, method 10)."""
    one, other = wilson(right, images), wilson(other_right, other_images)
    value = one.value - other.value
    low = value - math.hypot(one.value - one.low, other.high - other.value)
    high = value + math.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, max(-1.0, low), min(1.0, high))


def _slice(label: tuple[str, str], members: NDArray[np.bool_], correct: NDArray[np.bool_], fewest: int) -> Slice:
    images, right = int(members.sum()), int((members & correct).sum())
    rest_images, rest_right = len(correct) - images, int(correct.sum()) - right
    compared = difference(right, images, rest_right, rest_images)
    return Slice(label[0], label[1], images, wilson(right, images), compared, images >= fewest)


def _tertiles(name: str, values: NDArray[Any], unit: str) -> tuple[str, NDArray[np.int64], list[tuple[str, str]]]:
    """Three parts of equal size, as far as equal values allow: those stay together."""
    edges = np.unique(np.quantile(values, [1 / 3, 2 / 3], method="inverted_cdf"))
    edges = edges[edges < values.max()]
    places = np.searchsorted(edges, values, side="left").astype(np.int64)
    words = TERTILES[name] if len(edges) == 2 else (TERTILES[name][0], TERTILES[name][2])
    labels = []
    for place, word in zip(range(len(edges) + 1), words, strict=False):
        mine = values[places == place]
        labels.append((word, f"{unit} {mine.min():,.0f}–{mine.max():,.0f}"))
    return name, places, labels


def _values(images: pl.DataFrame, name: str) -> tuple[NDArray[np.int64], list[tuple[str, str]]]:
    """The commonest values of a column, most images first; what is beyond the limit becomes one."""
    texts = manifest_columns.values(images, name)
    counts: dict[str, int] = {}
    for text in texts:
        counts[text] = counts.get(text, 0) + 1
    ranked = sorted(counts, key=lambda text: (-counts[text], text))
    if len(ranked) <= MOST_VALUES:
        labels = [(text, "") for text in ranked]
    else:
        kept = MOST_VALUES - 1
        labels = [*((text, "") for text in ranked[:kept]), (OTHER, f"{len(ranked) - kept:,} more values")]
    if all(label.lstrip("-").isdigit() for label, _ in labels):
        # Numbers are looked for in their order.
        labels.sort(key=lambda label: int(label[0]))
        ranked = [label for label, _ in labels]
    place_of = {text: min(place, len(labels) - 1) for place, text in enumerate(ranked)}
    return np.array([place_of[text] for text in texts], dtype=np.int64), labels
