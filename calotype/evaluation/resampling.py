"""Two classifiers' answers to the same images: by how much do they differ, and how sure is that? Pure numpy.

A resample of the images with replacement is a multinomial draw of the counts of joint outcomes (truth, one's answer,
the other's answer), and a metric depends on nothing else: the bootstrap needs no image, only those counts. Accuracy
needs three of them (one alone right, the other alone right, neither alone), and there the distribution over all
resamples is computed, not drawn.

Answers are class indices; -1 is an answer outside the classes, which is wrong for every image. Macro averages go over
the classes that have at least one image, in a resample as well, as in ``calotype.evaluation.metrics``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Metric = Literal["accuracy", "macro_f1", "macro_recall"]
METRICS: tuple[Metric, ...] = get_args(Metric)

CONFIDENCE = 0.95
RESAMPLES = 2000
SEED = 0
"""Equal answers give equal intervals."""

CHUNK = 200_000
"""Counts held at once: what a processor keeps near."""


@dataclass(frozen=True)
class Interval:
    """A figure, or a difference of two, and the 95 % interval around it."""

    value: float
    low: float
    high: float

    @property
    def signed(self) -> str:
        """A difference for a person: ``+0.0120 (95 % interval +0.0033 to +0.0207)``."""
        return f"{self.value:+.4f} (95 % interval {self.low:+.4f} to {self.high:+.4f})"

    @property
    def plain(self) -> str:
        """A figure for a person: ``0.9120 (0.9033–0.9207)``."""
        return f"{self.value:.4f} ({self.low:.4f}–{self.high:.4f})"


@dataclass(frozen=True)
class Comparison:
    """One metric of two classifiers on the same images, and ``one`` minus ``other``, from the same resamples."""

    one: Interval
    other: Interval
    difference: Interval


def figure(metric: Metric, actual: Ints, answers: Ints, classes: int) -> float:
    """The metric's value for one classifier.

    Parameters
    ----------
    actual
        True class indices, shape (N,), N ≥ 1.
    answers
        Class indices, shape (N,); -1 outside the classes.
    """
    cells, counts = _joint(metric, actual, answers, answers)
    return float(_figures(metric, cells[:, 0], cells[:, 1], counts[None, :], classes)[0])


def paired_bootstrap(
    metric: Metric, actual: Ints, one: Ints, other: Ints, *, classes: int, resamples: int = RESAMPLES
) -> Comparison:
    """Percentile bootstrap over images of a metric's difference (Efron & Tibshirani 1993, chapter 13).

    Both classifiers answer the same resampled images, so what is hard for both cancels. Intervals are widened to hold
    the estimate itself where a biased figure would leave it.

    Parameters
    ----------
    actual
        True class indices, shape (N,), N ≥ 1.
    one, other
        Answered class indices, shape (N,); -1 outside the classes.
    classes
        How many classes there are.
    resamples
        How many resamples to draw; accuracy needs none.
    """
    if metric == "accuracy":
        return _accuracies(one == actual, other == actual)
    cells, counts = _joint(metric, actual, one, other)

    def figures(drawn: NDArray[Any]) -> Floats:
        columns = (_figures(metric, cells[:, 0], cells[:, side], drawn, classes) for side in (1, 2))
        return np.stack([*columns])

    ones, others = _draw(figures, counts, resamples)
    values = figures(counts[None, :])[:, 0]
    difference = _interval(values[0] - values[1], ones - others)
    return Comparison(_interval(values[0], ones), _interval(values[1], others), difference)


def accuracy_difference(one_right: NDArray[np.bool_], other_right: NDArray[np.bool_]) -> Interval:
    """The difference of two accuracies on the same images, with the interval over *all* resamples: nothing is drawn.

    Parameters
    ----------
    one_right, other_right
        Whether each classifier answers each image right, shape (N,), N ≥ 1.
    """
    won, lost = int((one_right & ~other_right).sum()), int((other_right & ~one_right).sum())
    return difference_of_counts(won, lost, len(one_right))


def difference_of_counts(won: int, lost: int, images: int) -> Interval:
    """As `accuracy_difference`, from counts: images that one alone, and that the other alone, answers right.

    A resample's difference is a sum of N independent steps of +1, -1 or 0, whose distribution is the inverse Fourier
    transform of the N-th power of one step's. Differences further than ten standard deviations away are left out.
    """
    middle, half = won - lost, min(2 * images, 40 + math.isqrt(100 * (won + lost)))
    angles = 2 * np.pi * np.arange(2 * half + 1) / (2 * half + 1)
    step = (images - won - lost + won * np.exp(1j * angles) + lost * np.exp(-1j * angles)) / images
    chances = np.fft.fft(step**images * np.exp(1j * angles * (half - middle))).real / len(angles)
    tail = (1 - CONFIDENCE) / 2
    low = middle - half + int(np.argmax(np.cumsum(chances) >= tail))
    high = middle + half - int(np.argmax(np.cumsum(chances[::-1]) >= tail))
    # One division each: a bound of exactly 29 in 100 is then exactly the 0.29 that a person writes.
    return Interval(middle / images, low / images, high / images)


def swap_test(
    metric: Metric, actual: Ints, one: Ints, other: Ints, *, classes: int, resamples: int = RESAMPLES
) -> float:
    """How often a difference at least this large appears if the two names are swapped at random on each image.

    The two-sided p of the paired randomisation test (Noreen, Computer-Intensive Methods for Testing Hypotheses, 1989,
    chapter 2), with the observed one counted among the arrangements, which keeps it valid. It holds for any number of
    images, where a bootstrap of four images won and none lost, or of a class of three, is too sure. For accuracy it is
    McNemar's exact test, which is `paired_tests.mcnemar`; use that.
    """
    observed = abs(figure(metric, actual, one, classes) - figure(metric, actual, other, classes))
    cells, counts = _joint(metric, actual, np.minimum(one, other), np.maximum(one, other))
    agreed = cells[:, 1] == cells[:, 2]
    (truth, low, high), pairs = cells[~agreed].T, counts[~agreed]
    truths = np.concatenate([cells[agreed, 0], truth, truth])
    ones = np.concatenate([cells[agreed, 1], low, high])
    others = np.concatenate([cells[agreed, 1], high, low])
    random = np.random.default_rng(SEED)
    hits = 0
    for rows in _chunks(resamples, len(truths)):
        kept = random.binomial(pairs, 0.5, size=(rows, len(pairs)))
        fixed = np.broadcast_to(counts[agreed], (rows, int(agreed.sum())))
        drawn = np.concatenate([fixed, kept, pairs - kept], axis=1)
        differences = _figures(metric, truths, ones, drawn, classes) - _figures(metric, truths, others, drawn, classes)
        # The same arrangement may come out a rounding apart.
        hits += int((np.abs(differences) >= observed - 1e-12).sum())
    return (1 + hits) / (1 + resamples)


def _accuracies(one_right: NDArray[np.bool_], other_right: NDArray[np.bool_]) -> Comparison:
    own, others = (difference_of_counts(int(right.sum()), 0, len(right)) for right in (one_right, other_right))
    return Comparison(own, others, accuracy_difference(one_right, other_right))


def _joint(metric: Metric, actual: Ints, one: Ints, other: Ints) -> tuple[Ints, Ints]:
    """The joint outcomes that the metric can tell apart, (C, 3), and how many images have each, (C,)."""
    if metric != "macro_f1":
        one, other = (np.where(side == actual, actual, -1) for side in (one, other))
    if metric == "accuracy":
        one, other, actual = (np.where(column >= 0, 0, column) for column in (one, other, actual))
    base = int(max(actual.max(), one.max(), other.max())) + 2
    keys, counts = np.unique((actual * base + one + 1) * base + other + 1, return_counts=True)
    return np.stack([keys // base**2, keys // base % base - 1, keys % base - 1], axis=1), counts


def _draw(figures: Callable[[NDArray[Any]], Floats], counts: Ints, resamples: int) -> Floats:
    random = np.random.default_rng(SEED)
    images = int(counts.sum())
    drawn = [figures(random.multinomial(images, counts / images, rows)) for rows in _chunks(resamples, len(counts))]
    return np.concatenate(drawn, axis=1)


def _chunks(resamples: int, width: int) -> list[int]:
    most = max(1, CHUNK // width)
    return [min(most, resamples - start) for start in range(0, resamples, most)]


def _figures(metric: Metric, truth: Ints, answers: Ints, counts: NDArray[Any], classes: int) -> Floats:
    """The metric of each row of ``counts`` (R, C), for cells of the given truth and answers (C,)."""
    right = truth == answers
    if metric == "accuracy":
        return np.asarray(counts[:, right].sum(axis=1) / counts.sum(axis=1))
    support = _by_class(counts, truth, classes)
    positives = _by_class(counts[:, right], truth[right], classes)
    if metric == "macro_recall":
        scores = positives / np.maximum(support, 1)
    else:
        answered = _by_class(counts[:, answers >= 0], answers[answers >= 0], classes)
        scores = 2 * positives / np.maximum(support + answered, 1)
    present = support > 0
    return np.asarray((scores * present).sum(axis=1) / present.sum(axis=1))


def _by_class(counts: NDArray[Any], keys: Ints, classes: int) -> NDArray[Any]:
    """Sums of the columns of ``counts`` (R, C) that share a key, (R, classes)."""
    sums = np.zeros((len(counts), classes), dtype=counts.dtype)
    if len(keys):
        order = np.argsort(keys, kind="stable")
        found, starts = np.unique(keys[order], return_index=True)
        sums[:, found] = np.add.reduceat(counts[:, order], starts, axis=1)
    return sums


def _interval(value: float, drawn: Floats) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(value), min(float(value), float(low)), max(float(value), float(high)))
