"""Abstention: below which confidence should a model rather say nothing, so that its answers keep a promised precision?

The threshold is chosen on validation images and judged on test images: chosen on those it is judged by, it would
always seem to keep its promise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calotype.evaluation.metrics import Estimate, Floats, wilson

NEVER = 2.0
"""A threshold that no confidence reaches: every answer is withheld."""

CURVE_POINTS = 60


@dataclass(frozen=True)
class Threshold:
    """The confidence below which a model abstains, and what validation images said for it.

    Attributes
    ----------
    value
        0: always answers; `NEVER`: never does, the target was not reached.
    target
        The precision asked for.
    images, answered, right
        Validation images, how many of them have at least this confidence, and how many of those were right.
    fewest
        As many answers are the fewest that can show the target: with one mistake among them they still reach it.
    best
        The highest precision that at least ``fewest`` answers reached, and so the target that could be asked for.
    """

    value: float
    target: float
    images: int
    answered: int
    right: int
    fewest: int
    best: float

    @property
    def is_reached(self) -> bool:
        """Whether some threshold keeps the target on validation."""
        return self.value < 1


@dataclass(frozen=True)
class Abstention:
    """What a threshold does on test images.

    Attributes
    ----------
    threshold
        Confidence below which the model abstains.
    target
        The precision for which it was chosen.
    images, answered, right
        Test images, those answered, those answered rightly.
    coverage
        Share of images answered.
    precision
        Share of the answers that were right; None where none was given.
    curve
        (coverage, precision) as the threshold falls, the most confident answers first.
    """

    threshold: float
    target: float
    images: int
    answered: int
    right: int
    coverage: Estimate
    precision: Estimate | None
    curve: tuple[tuple[float, float], ...]

    @property
    def is_reached(self) -> bool:
        """Whether the model answers anything at all."""
        return self.threshold < 1


def choose_threshold(confidence: NDArray[Any], correct: NDArray[np.bool_], target: float) -> Threshold:
    """Find the lowest confidence at which the answers at or above it reach a precision.

    Images of equal confidence are answered together. At least 1 / (1 - target) answers are asked for: fewer reach the
    target only without a mistake, and one more image could overturn that. The threshold lies midway between the lowest
    confidence that is answered and the highest that is not, so that no rounding tips an image over it.

    Parameters
    ----------
    confidence
        Of each validation image, shape (N,), after the temperature.
    correct
        Whether each answer was right, shape (N,).
    target
        Precision asked for, between 0 and 1.
    """
    fewest = math.ceil(1 / (1 - target) - 1e-9)
    levels, answered, right = _cumulated(confidence, correct)
    precision = right / answered
    enough = answered >= fewest
    best = float(precision[enough].max()) if enough.any() else 0.0
    reached = np.flatnonzero(enough & (right >= target * answered - 1e-9))
    if not len(reached):
        return Threshold(NEVER, target, len(confidence), 0, 0, fewest, best)
    last = int(reached[-1])
    value = 0.0 if last == len(levels) - 1 else _between(levels[last + 1], levels[last])
    return Threshold(value, target, len(confidence), int(answered[last]), int(right[last]), fewest, best)


def judge(confidence: NDArray[Any], correct: NDArray[np.bool_], *, threshold: float, target: float) -> Abstention:
    """Say how many test images a threshold leaves answered, and how well."""
    chosen = is_answered(confidence, threshold)
    answered, right = int(chosen.sum()), int((chosen & correct).sum())
    return Abstention(
        threshold=threshold,
        target=target,
        images=len(confidence),
        answered=answered,
        right=right,
        coverage=wilson(answered, len(confidence)),
        precision=wilson(right, answered) if answered else None,
        curve=_curve(confidence, correct),
    )


def is_answered(confidence: NDArray[Any], threshold: float) -> NDArray[np.bool_]:
    """Whether each answer is given: the one rule, for evaluation and batch prediction."""
    given: NDArray[np.bool_] = np.asarray(confidence, dtype=np.float64) >= threshold
    return given


def _cumulated(confidence: NDArray[Any], correct: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Distinct confidences from the highest down, with answers and right answers at or above each."""
    levels, places = np.unique(-np.asarray(confidence, dtype=np.float64), return_inverse=True)
    answered = np.bincount(places, minlength=len(levels)).cumsum().astype(np.float64)
    right = np.bincount(places, correct, len(levels)).cumsum()
    return -levels, answered, right


def _between(refused: float, answered: float) -> float:
    middle = (refused + answered) / 2
    short = round(middle, 6)
    return float(short if refused < short <= answered else middle)


def _curve(confidence: NDArray[Any], correct: NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    _, answered, right = _cumulated(confidence, correct)
    chosen = np.unique(np.linspace(0, len(answered) - 1, CURVE_POINTS).round().astype(int))
    return tuple((float(answered[at] / len(confidence)), float(right[at] / answered[at])) for at in chosen)
