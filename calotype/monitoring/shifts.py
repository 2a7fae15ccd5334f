"""One window of predictions against the reference of its model: six tests, adjusted together; shares of classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calotype.data.appearance import MEASURES
from calotype.evaluation.metrics import Estimate, wilson
from calotype.evaluation.paired_tests import holm
from calotype.evaluation.resampling import Interval
from calotype.monitoring import two_sample
from calotype.monitoring.two_sample import Found

EMBEDDING, CLASSES, CONFIDENCE = "embedding", "classes", "confidence"
TESTS = (EMBEDDING, CLASSES, CONFIDENCE, *MEASURES)
"""The family, in the order in which it is shown."""

TITLES = {
    EMBEDDING: "Content",
    CLASSES: "Predicted classes",
    CONFIDENCE: "Confidence",
    "mean": "Brightness",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
}

RESOLUTION = 5
"""The smallest p that permutations can show is so many times smaller than what an alarm needs."""

SEED = 0
"""Equal predictions give equal figures."""


@dataclass(frozen=True)
class Sample:
    """Images as a model and a light meter see them.

    Parameters
    ----------
    embedding
        float32 (N, D).
    predicted
        Class indices, int64 (N,).
    confidence
        Of the predicted class, float32 (N,).
    appearance
        Mean, contrast and sharpness, float32 (N, 3).
    """

    embedding: NDArray[np.float32]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    appearance: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.predicted)


@dataclass(frozen=True)
class Shift:
    """One test of the family; ``p_holm`` allows for all of them."""

    test: str
    statistic: float
    p: float
    p_holm: float
    effect: Interval | None

    @property
    def title(self) -> str:
        """What a person calls it."""
        return TITLES[self.test]


@dataclass(frozen=True)
class Share:
    """A class's share of the answers, in the reference and in the window, with 95 % intervals."""

    name: str
    reference: Estimate
    window: Estimate


@dataclass(frozen=True)
class Comparison:
    """What the window showed; ``alpha`` is the chance of any alarm where nothing changed."""

    shifts: tuple[Shift, ...]
    shares: tuple[Share, ...]
    alpha: float

    @property
    def alarms(self) -> tuple[Shift, ...]:
        """The tests that found a difference."""
        return tuple(shift for shift in self.shifts if shift.p_holm <= self.alpha)

    @property
    def is_drift(self) -> bool:
        """Whether any test did."""
        return bool(self.alarms)


def compare(reference: Sample, window: Sample, classes: Sequence[str], alpha: float) -> Comparison:
    """Hold a window against a reference.

    Parameters
    ----------
    reference, window
        Answers of one model; neither may hold images that it was trained on.
    classes
        The K names, in the order of the class indices.
    alpha
        Chance of an alarm, over all tests together, if nothing changed (Holm 1979).
    """
    random = np.random.default_rng(SEED)
    permutations = math.ceil(RESOLUTION * len(TESTS) / alpha) - 1
    counts = [np.bincount(sample.predicted, minlength=len(classes)) for sample in (reference, window)]
    found: list[Found] = [
        two_sample.discrepancy(reference.embedding, window.embedding, permutations, random),
        two_sample.class_mix(counts[0], counts[1], permutations, random),
        two_sample.distribution(reference.confidence, window.confidence, random),
    ]
    measures = zip(reference.appearance.T, window.appearance.T, strict=True)
    found += [two_sample.distribution(before, now, random) for before, now in measures]
    adjusted = holm([one.p for one in found])
    shifts = (
        Shift(test, one.statistic, one.p, p_holm, one.effect)
        for test, one, p_holm in zip(TESTS, found, adjusted, strict=True)
    )
    shares = (
        Share(name, wilson(int(before), len(reference)), wilson(int(now), len(window)))
        for name, before, now in zip(classes, *counts, strict=True)
    )
    return Comparison(tuple(shifts), tuple(shares), alpha)
