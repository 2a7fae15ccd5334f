"""Calibration: does a model that says 90 % err in one answer of ten? Pure numpy.

The expected calibration error (ECE) compares confidence and accuracy in bins of equal mass (Nguyen & O'Connor 2015;
Roelofs et al. 2022 show that they are less biased than bins of equal width). One number, the temperature, mends the
greater part of it (Guo, Pleiss, Sun & Weinberger, On calibration of modern neural networks, 2017).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calotype.evaluation.metrics import (
    CONFIDENCE,
    SEED,
    Estimate,
    Floats,
    Ints,
    log_losses,
    percentile_interval,
    percentiles,
    resampled,
    wilson,
)

BINS = 15
COLDEST, HOTTEST = 0.05, 20.0
"""Between these a temperature is looked for."""

DECIMALS = 4
"""Of a temperature: the last bits of a logit are not to decide a bundle's bytes."""


@dataclass(frozen=True)
class Bin:
    """Answers of similar confidence: how sure they were, and how many of them were right."""

    images: int
    confidence: float
    accuracy: Estimate


@dataclass(frozen=True)
class Calibration:
    """How far confidence can be taken at its word.

    Attributes
    ----------
    ece
        Expected calibration error with its interval.
    chance
        The 95th percentile of what a perfectly calibrated model would measure on as many images with these confidences.
    bins
        What the reliability diagram shows, the least confident first.
    """

    ece: Estimate
    chance: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Temperature:
    """What logits are divided by, and what that did to the log loss of the images it was fitted on."""

    value: float
    images: int
    log_loss_before: float
    log_loss_after: float


@dataclass(frozen=True)
class _Binned:
    """The bin of each answer, how many bins there are, and each answer's confidence less its correctness."""

    places: Ints
    count: int
    gaps: Floats

    def error(self, chosen: Any = slice(None)) -> float:
        """Calibration error of the answers chosen, each in its bin."""
        gaps = self.gaps[chosen]
        return float(np.abs(np.bincount(self.places[chosen], gaps, self.count)).sum() / len(gaps))


def calibrate(confidence: NDArray[Any], correct: NDArray[np.bool_], *, resamples: int) -> Calibration:
    """Measure how confidence and accuracy agree.

    Parameters
    ----------
    confidence
        Probability of each answer, shape (N,), N at least 1.
    correct
        Whether each answer was right, shape (N,).
    resamples
        Resamples behind the interval, and simulations behind `Calibration.chance`.

    Notes
    -----
    The error of few images is too large on average, and that of a resample larger still. The interval is therefore the
    basic bootstrap's (Davison & Hinkley 1997, section 5.2.1), widened on both sides by the bias that the resamples
    show, and it reaches down to 0 where chance explains the whole. In simulations it held the true error in 85 to 98
    of 100 cases, where a percentile interval never held a true error of 0.
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    binned = _binned(confidence, correct, BINS)
    drawn = resampled(lambda chosen: [binned.error(chosen)], len(confidence), resamples)
    chance = _chance(binned, confidence, resamples)
    weights = np.bincount(binned.places, minlength=binned.count)
    sums = np.bincount(binned.places, confidence, binned.count)
    rights = np.bincount(binned.places, correct, binned.count)
    bins = tuple(
        Bin(int(images), float(total / images), wilson(int(right), int(images)))
        for images, total, right in zip(weights, sums, rights, strict=True)
    )
    return Calibration(_interval(binned.error(), drawn[:, 0], chance), chance, bins)


def compare(
    before: NDArray[Any], after: NDArray[Any], actual: Ints, *, resamples: int
) -> tuple[Estimate, Estimate, Estimate]:
    """Calibration error of ``before``, and what ``after`` changes: difference of the error, difference of the log loss.

    Parameters
    ----------
    before, after
        Probabilities (N, K) of the same images that give the same answers.
    actual
        True class indices, shape (N,).
    resamples
        Paired bootstrap resamples: both sides see the same images.
    """
    correct = before.argmax(axis=1) == actual
    losses = log_losses(actual, after) - log_losses(actual, before)
    confidences = [shares.max(axis=1).astype(np.float64) for shares in (before, after)]
    one, other = (_binned(confidence, correct, BINS) for confidence in confidences)

    def figures(chosen: Any) -> tuple[float, float, float]:
        error = one.error(chosen)
        return error, other.error(chosen) - error, float(losses[chosen].mean())

    error, change, loss_change = figures(slice(None))
    errors, changes, loss_changes = resampled(figures, len(actual), resamples).T
    return (
        _interval(error, errors, _chance(one, confidences[0], resamples)),
        percentile_interval(change, changes),
        percentile_interval(loss_change, loss_changes),
    )


def expected_calibration_error(confidence: NDArray[Any], correct: NDArray[np.bool_], bins: int = BINS) -> float:
    """The mean distance between confidence and accuracy over bins of equal mass, weighted by their images."""
    return _binned(np.asarray(confidence, dtype=np.float64), correct, bins).error()


def bin_places(confidence: Floats, bins: int) -> tuple[Ints, int]:
    """The bin of each answer, shape (N,), and how many bins there are.

    Bins hold equally many answers as far as equal confidences allow: those stay together, so that the order of the
    images decides nothing. A model that is sure of everything has fewer bins than asked for.
    """
    inner = np.quantile(confidence, np.arange(1, bins) / bins, method="inverted_cdf")
    edges = np.unique(inner)
    used, packed = np.unique(np.searchsorted(edges, confidence, side="left"), return_inverse=True)
    return np.asarray(packed, dtype=np.int64), len(used)


def fit_temperature(logits: NDArray[Any], labels: Ints) -> Temperature:
    """Find the temperature at which the log loss is smallest; 1 where no other is better.

    In the inverse temperature the loss is convex, so its slope has one zero: found by Newton's method between bounds.
    Targets are Platt's (1999): the true class has (n + 1) / (n + 2) instead of 1, the rest is spread over the others.
    Without that, images that are all answered rightly would ask for a temperature of 0 and a model that never doubts.

    Parameters
    ----------
    logits
        Of images that were not trained on, shape (N, K), N at least 1.
    labels
        Their true classes, shape (N,).
    """
    logits = np.asarray(logits, dtype=np.float64)
    before = _log_loss(logits, labels)
    value = 1.0 / _root(lambda inverse: _slope(logits, labels, inverse), 1 / HOTTEST, 1 / COLDEST)
    value = round(value, DECIMALS)
    after = _log_loss(logits / value, labels)
    if not after < before:
        value, after = 1.0, before
    return Temperature(value, len(labels), before, after)


def at_temperature(probabilities: NDArray[Any], change: float) -> Floats:
    """The probabilities that the same logits give when their temperature is multiplied by ``change``."""
    tiny = float(np.finfo(np.float32).tiny)
    logits = np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), tiny)) / change
    return softmax(logits)


def softmax(logits: Floats) -> Floats:
    """Probabilities of logits, shape (N, K)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _log_loss(logits: Floats, labels: Ints) -> float:
    return float(log_losses(labels, softmax(logits)).mean())


def _slope(logits: Floats, labels: Ints, inverse: float) -> tuple[float, float]:
    """First and second derivative of the loss in the inverse temperature."""
    images, classes = logits.shape
    shares = softmax(logits * inverse)
    means = (shares * logits).sum(axis=1)
    own = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    rest = (logits.sum(axis=1) - own) / max(1, classes - 1)
    doubt = 1 / (images + 2)
    variance = (shares * logits**2).sum(axis=1) - means**2
    return float((means - (1 - doubt) * own - doubt * rest).mean()), float(variance.mean())


def _root(derivatives: Callable[[float], tuple[float, float]], low: float, high: float) -> float:
    """Where a rising function is zero: Newton's steps, halving the interval where one would leave it."""
    if derivatives(low)[0] >= 0:
        return low
    if derivatives(high)[0] <= 0:
        return high
    point = 1.0
    for _ in range(60):
        value, rise = derivatives(point)
        low, high = (point, high) if value < 0 else (low, point)
        step = point - value / rise if rise > 0 else low
        following = step if low < step < high else (low + high) / 2
        if abs(following - point) < 1e-9 * point:
            break
        point = following
    return point


def _binned(confidence: Floats, correct: NDArray[np.bool_], bins: int) -> _Binned:
    return _Binned(*bin_places(confidence, bins), confidence - correct)


def _interval(value: float, drawn: Floats, chance: float) -> Estimate:
    lowest, highest = percentiles(drawn)
    bias = abs(float(drawn.mean()) - value)
    low = 2 * value - highest - bias if value > chance else 0.0
    high = 2 * value - lowest + bias
    return Estimate(value, max(0.0, min(value, low)), min(1.0, max(value, high)))


def _chance(binned: _Binned, confidence: Floats, resamples: int) -> float:
    """The 95th percentile of errors measured where answers are right exactly as often as they claim."""
    random = np.random.default_rng(SEED)
    gaps = (confidence - (random.random(len(confidence)) < confidence) for _ in range(resamples))
    return float(np.quantile([replace(binned, gaps=drawn).error() for drawn in gaps], CONFIDENCE))
