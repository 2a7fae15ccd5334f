"""How well a classifier answers: figures with intervals, pure numpy, by scikit-learn's definitions.

The confusion matrix is enough for accuracy, precision, recall and F1; importing scikit-learn for it would cost every
evaluation two seconds of processor time. Tests compare each figure with ``sklearn.metrics``.

What is defined where a plain formula divides by zero:

- precision of a class that was never predicted is 0, and so is its F1 (``zero_division=0``);
- macro averages go over the classes that have at least one image, in a resample as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calotype.errors import DataError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

CONFIDENCE = 0.95
Z = 1.959963984540054
"""Standard normal quantile of (1 + CONFIDENCE) / 2."""

SEED = 0
"""Seed of the resampling: equal predictions give equal intervals."""

TITLES = {
    "accuracy": "Accuracy",
    "top_k_accuracy": "Top-{k} accuracy",
    "precision_macro": "Macro precision",
    "recall_macro": "Macro recall",
    "f1_macro": "Macro F1",
    "precision_weighted": "Weighted precision",
    "recall_weighted": "Weighted recall",
    "f1_weighted": "Weighted F1",
    "log_loss": "Log loss",
}
"""Headline figures in the order in which they are shown."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def percent(self) -> str:
        """For a person: ``98.9 % (97.8–99.7)``."""
        return f"{self.value:.1%} ({self.low * 100:.1f}–{self.high * 100:.1f})".replace("% ", " % ", 1)

    @property
    def plain(self) -> str:
        """For a person: ``0.041 (0.022–0.066)``."""
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"


@dataclass(frozen=True)
class ClassScore:
    """One class: how many images it has, how often it was answered, how well."""

    name: str
    support: int
    predicted: int
    precision: Estimate
    recall: Estimate
    f1: float


@dataclass(frozen=True)
class Evaluation:
    """Everything that the test split says about a classifier.

    Attributes
    ----------
    images
        Number of test images.
    classes
        Names, in the order of the probabilities' columns.
    top_k
        How many answers the top-k accuracy allows; never more than there are classes.
    headline
        The figures of `TITLES` with bootstrap intervals.
    per_class
        One score for each class, in class order, with Wilson intervals.
    confusion
        Counts, shape (K, K): actual class down, predicted class across.
    majority_class_accuracy
        Accuracy of always answering the most frequent class of the test split: no constant answer does better.
    """

    images: int
    classes: tuple[str, ...]
    top_k: int
    headline: dict[str, Estimate]
    per_class: tuple[ClassScore, ...]
    confusion: Ints
    majority_class_accuracy: float

    def title(self, name: str) -> str:
        """What a person calls a headline figure."""
        return TITLES[name].format(k=self.top_k)


def measure(
    actual: Ints, probabilities: NDArray[Any], classes: Sequence[str], *, top_k: int, resamples: int
) -> Evaluation:
    """Score class probabilities against the truth.

    Intervals of headline figures are percentile bootstrap intervals over images (Efron & Tibshirani, An Introduction
    to the Bootstrap, 1993, chapter 13), widened to hold the estimate itself where a biased figure would leave it.

    Parameters
    ----------
    actual
        Class indices, shape (N,).
    probabilities
        Shape (N, K), in class order; rows sum to 1.
    classes
        The K names.
    top_k
        How many answers the top-k accuracy allows.
    resamples
        Bootstrap resamples behind each interval.

    Raises
    ------
    DataError
        If there are no images, or if the probabilities are not probabilities of these classes.
    """
    _check(actual, probabilities, len(classes))
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_matrix(actual, predicted, len(classes))
    allowed = min(top_k, len(classes))
    hits = ranks(actual, probabilities) < allowed
    headline = _headline(actual, predicted, hits, log_losses(actual, probabilities), len(classes), resamples)
    return Evaluation(
        images=len(actual),
        classes=tuple(classes),
        top_k=allowed,
        headline=headline,
        per_class=per_class(confusion, classes),
        confusion=confusion,
        majority_class_accuracy=float(confusion.sum(axis=1).max() / len(actual)),
    )


def confusion_matrix(actual: Ints, predicted: Ints, classes: int) -> Ints:
    """Counts, shape (K, K): actual class down, predicted class across."""
    return np.bincount(actual * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def ranks(actual: Ints, probabilities: NDArray[Any]) -> Ints:
    """How many classes come before the true one, shape (N,); of equal probabilities the lower index comes first.

    ``ranks < 1`` is therefore exactly ``argmax == actual``.
    """
    own = np.take_along_axis(probabilities, actual[:, None], axis=1)
    earlier = np.arange(probabilities.shape[1])[None, :] < actual[:, None]
    before: Ints = ((probabilities > own) | ((probabilities == own) & earlier)).sum(axis=1)
    return before


def log_losses(actual: Ints, probabilities: NDArray[Any]) -> Floats:
    """Negative logarithm of each true class's probability, in nats, shape (N,).

    Probabilities are clipped to the smallest step of their type, as ``sklearn.metrics.log_loss`` does.
    """
    own = np.take_along_axis(probabilities, actual[:, None], axis=1)[:, 0]
    step = float(np.finfo(probabilities.dtype).eps)
    losses: Floats = -np.log(np.clip(own.astype(np.float64), step, 1 - step))
    return losses


def wilson(successes: int, trials: int) -> Estimate:
    """A proportion with its Wilson score interval (Wilson 1927; Brown, Cai & DasGupta 2001, equation 4).

    It stays honest for the few images of one class, where a bootstrap of 5 right out of 5 would claim 100–100 %.
    Without trials the proportion is defined as 0, and the interval says that nothing is known.
    """
    if trials == 0:
        return Estimate(0.0, 0.0, 1.0)
    share = successes / trials
    middle = (successes + Z**2 / 2) / (trials + Z**2)
    half = Z * np.sqrt(trials) / (trials + Z**2) * np.sqrt(share * (1 - share) + Z**2 / (4 * trials))
    return Estimate(share, max(0.0, min(share, float(middle - half))), min(1.0, max(share, float(middle + half))))


def resampled(figures: Callable[[Any], Sequence[float]], images: int, resamples: int) -> Floats:
    """Figures of images drawn with replacement, shape (resamples, F).

    Parameters
    ----------
    figures
        Gives F figures of the images at the places that it gets.
    images
        How many there are to draw from, and to draw.
    resamples
        How often.
    """
    random = np.random.default_rng(SEED)
    return np.array([figures(random.integers(0, images, images)) for _ in range(resamples)], dtype=np.float64)


def percentiles(drawn: Floats) -> tuple[float, float]:
    """Bounds of the middle 95 % of what was drawn."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def percentile_interval(value: float, drawn: Floats) -> Estimate:
    """A figure between the percentiles of its resamples, which are widened to hold it where it is biased."""
    low, high = percentiles(drawn)
    return Estimate(value, min(value, low), max(value, high))


def as_metrics(evaluation: Evaluation) -> dict[str, Any]:
    """The numbers of metrics.json, which DVC compares between commits and experiments."""
    numbers: dict[str, Any] = {
        "images": evaluation.images,
        "classes": len(evaluation.classes),
        "top_k": evaluation.top_k,
        "majority_class_accuracy": evaluation.majority_class_accuracy,
    }
    for name, figure in evaluation.headline.items():
        numbers[name] = figure.value
        numbers[f"{name}_interval"] = {"low": figure.low, "high": figure.high}
    return numbers


def as_logged(evaluation: Evaluation) -> dict[str, float]:
    """The numbers under names that MLflow accepts and that sort side by side: ``test/accuracy``, ``test/accuracy_low``.

    Those of a class are ``test_class/<class>/recall`` and so on.
    """
    numbers = {"test/images": float(evaluation.images)}
    numbers["test/majority_class_accuracy"] = evaluation.majority_class_accuracy
    for name, figure in evaluation.headline.items():
        numbers |= {f"test/{name}": figure.value, f"test/{name}_low": figure.low, f"test/{name}_high": figure.high}
    for name, score in zip(loggable_names(evaluation.classes), evaluation.per_class, strict=True):
        of_class = f"test_class/{name}"
        numbers |= {f"{of_class}/precision": score.precision.value, f"{of_class}/recall": score.recall.value}
        numbers |= {f"{of_class}/f1": score.f1, f"{of_class}/support": float(score.support)}
    return numbers


def loggable_names(classes: Sequence[str]) -> list[str]:
    """Class names as parts of MLflow metric names: other characters become ``_``, and no two names become equal."""
    names: list[str] = []
    for index, original in enumerate(classes):
        name = re.sub(r"[^\w.\- :]", "_", original)[:150]
        # MLflow refuses names that a file system would read as another path.
        if not name.strip("."):
            name = f"_{len(name)}"
        names.append(f"{name}-{index}" if name in names else name)
    return names


def summary(evaluation: Evaluation) -> list[str]:
    """The figures that a person wants first, one line each."""
    shown = ["accuracy", "top_k_accuracy", "f1_macro", "log_loss"]
    lines = [f"{'test images':<16} {evaluation.images:,} of {len(evaluation.classes)} classes"]
    for name in shown:
        figure = evaluation.headline[name]
        text = figure.plain if name == "log_loss" else figure.percent
        lines.append(f"{evaluation.title(name).lower():<16} {text}")
    return [*lines, f"{'majority class':<16} {evaluation.majority_class_accuracy * 100:.1f} %"]


def _check(actual: Ints, probabilities: NDArray[Any], classes: int) -> None:
    if len(actual) == 0:
        raise DataError("the test split holds no images; expected some. Raise split.test in params.yaml.")
    if probabilities.shape != (len(actual), classes):
        expected = (len(actual), classes)
        raise DataError(f"probabilities have shape {probabilities.shape}; expected {expected}, images by classes.")
    # Written so that a comparison with a value that is no number fails.
    sums = probabilities.sum(axis=1, dtype=np.float64)
    broken = ~((probabilities >= 0).all(axis=1) & (np.abs(sums - 1) < 0.01))
    if broken.any():
        raise DataError(
            f"{int(broken.sum()):,} of {len(actual):,} answers are no probabilities (not finite, negative, or not of "
            "sum 1). The network's weights are not usable: train again, perhaps with a lower train.lr."
        )


def _headline(
    actual: Ints, predicted: Ints, hits: NDArray[np.bool_], losses: Floats, classes: int, resamples: int
) -> dict[str, Estimate]:
    correct = actual == predicted

    def figures(chosen: Any) -> list[float]:
        mine, given, right = actual[chosen], predicted[chosen], correct[chosen]
        support, answered = np.bincount(mine, minlength=classes), np.bincount(given, minlength=classes)
        true_positives = np.bincount(mine[right], minlength=classes)
        found = averages(true_positives, support, answered)
        found |= {"top_k_accuracy": float(hits[chosen].mean()), "log_loss": float(losses[chosen].mean())}
        return [found[name] for name in TITLES]

    drawn = resampled(figures, len(actual), resamples)
    columns = zip(TITLES, figures(slice(None)), drawn.T, strict=True)
    return {name: percentile_interval(value, column) for name, value, column in columns}


def averages(true_positives: Ints, support: Ints, predicted: Ints) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 as means over classes and weighted by the classes' images.

    Definitions: Sokolova & Lapalme, A systematic analysis of performance measures for classification tasks, 2009;
    F1 = 2 TP / (TP + FP + TP + FN), and TP + FN is the support, TP + FP the number of answers.
    """
    present = support > 0
    positives, support, predicted = true_positives[present], support[present], predicted[present]
    scores = {
        "precision": positives / np.maximum(predicted, 1),
        "recall": positives / support,
        "f1": 2 * positives / (support + predicted),
    }
    averages = {"accuracy": float(positives.sum() / support.sum())}
    for name, score in scores.items():
        averages[f"{name}_macro"] = float(score.mean())
        averages[f"{name}_weighted"] = float(score @ support / support.sum())
    return averages


def per_class(confusion: Ints, classes: Sequence[str]) -> tuple[ClassScore, ...]:
    support, predicted = confusion.sum(axis=1).tolist(), confusion.sum(axis=0).tolist()
    scores = []
    for name, right, own, given in zip(classes, confusion.diagonal().tolist(), support, predicted, strict=True):
        f1 = 2 * right / (own + given) if own + given else 0.0
        scores.append(ClassScore(name, own, given, wilson(right, given), wilson(right, own), f1))
    return tuple(scores)
