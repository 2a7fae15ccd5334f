"""Everything that the test split says about a model, in one value: for the report, metrics.json and MLflow. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from calotype.evaluation import abstention, calibration, metrics, robustness, slices
from calotype.evaluation.abstention import Abstention
from calotype.evaluation.calibration import Calibration
from calotype.evaluation.metrics import Estimate, Evaluation, Ints
from calotype.evaluation.robustness import Change, Images, Robustness
from calotype.evaluation.slices import Slicing
from calotype.evaluation.throughput import Cost
from calotype.params import EvaluateParams


@dataclass(frozen=True)
class Answers:
    """A model's answers to the test images, and what was seen of these on the way.

    Attributes
    ----------
    test
        Rows of the manifest, one for each test image, in the order of image_id.
    actual
        True class indices, shape (N,).
    probabilities
        Shape (N, K), after the temperature.
    brightness
        Mean grey of each image, shape (N,).
    sampled, sample
        Places of the images on which changes are tried, and those images, uint8 (M, C, S, S).
    cost
        Size and speed of the model.
    """

    test: pl.DataFrame
    actual: Ints
    probabilities: NDArray[np.float32]
    brightness: NDArray[np.float64]
    sampled: Ints
    sample: Images
    cost: Cost

    @property
    def confidence(self) -> NDArray[np.float32]:
        """Probability of each answer."""
        largest: NDArray[np.float32] = self.probabilities.max(axis=1)
        return largest

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each answer is right."""
        right: NDArray[np.bool_] = self.probabilities.argmax(axis=1) == self.actual
        return right


@dataclass(frozen=True)
class Findings:
    """All figures of an evaluation.

    Attributes
    ----------
    evaluation
        Accuracy and its kin, by class and over all.
    temperature
        What logits were divided by.
    calibration
        How far confidence can be trusted, at that temperature.
    ece_before, ece_change, log_loss_change
        The calibration error at temperature 1, and what the temperature changed, over the same resampled images.
    abstention
        What the threshold of the bundle leaves answered.
    slicing
        The test images cut by size, brightness and columns of the manifest.
    robustness
        Accuracy on changed images; None where none were asked for.
    cost
        Size and speed of the model.
    """

    evaluation: Evaluation
    temperature: float
    calibration: Calibration
    ece_before: Estimate
    ece_change: Estimate
    log_loss_change: Estimate
    abstention: Abstention
    slicing: Slicing
    robustness: Robustness | None
    cost: Cost


def measure(
    answers: Answers,
    classes: Sequence[str],
    params: EvaluateParams,
    *,
    temperature: float,
    abstain_below: float,
    answer: Callable[[Images], NDArray[Any]],
    watch: Callable[[Sequence[Change]], Iterable[Change]] = iter,
) -> Findings:
    """Work out every figure.

    Parameters
    ----------
    answers
        The model's, for the test images.
    classes
        Names, in the order of the probabilities' columns.
    params
        Section ``evaluate`` of params.yaml.
    temperature, abstain_below
        Of the bundle.
    answer
        Gives probabilities of images at the network's size: asked for each change of the sampled ones.
    watch
        Goes through the changes; may show how far the work is.

    Raises
    ------
    DataError
        If the answers are no probabilities, or there are none.
    ParamsError
        If ``evaluate.slices`` names an unknown column.
    """
    evaluation = metrics.measure(
        answers.actual, answers.probabilities, classes, top_k=params.top_k, resamples=params.bootstrap
    )
    confidence, correct = answers.confidence, answers.correct
    before = calibration.at_temperature(answers.probabilities, 1 / temperature)
    ece_before, ece_change, loss_change = calibration.compare(
        before, answers.probabilities, answers.actual, resamples=params.bootstrap
    )
    labels = answers.actual[answers.sampled]
    return Findings(
        evaluation=evaluation,
        temperature=temperature,
        calibration=calibration.calibrate(confidence, correct, resamples=params.bootstrap),
        ece_before=ece_before,
        ece_change=ece_change,
        log_loss_change=loss_change,
        abstention=abstention.judge(confidence, correct, threshold=abstain_below, target=params.target_precision),
        slicing=slices.measure(answers.test, answers.brightness, correct, params.slices),
        robustness=robustness.measure(answers.sample, labels, answer, watch) if len(labels) else None,
        cost=answers.cost,
    )


def as_metrics(findings: Findings) -> dict[str, Any]:
    """The numbers of metrics.json: those that equal models on equal images share, so no timing."""
    abstained = findings.abstention
    numbers = metrics.as_metrics(findings.evaluation) | {
        "temperature": findings.temperature,
        "abstain_below": abstained.threshold,
    }
    for name, figure in _further(findings).items():
        numbers |= {name: figure.value, f"{name}_interval": {"low": figure.low, "high": figure.high}}
    return numbers


def as_logged(findings: Findings) -> dict[str, float]:
    """Every number of the report under a name that MLflow accepts."""
    cost, calibrated = findings.cost, findings.calibration
    numbers = metrics.as_logged(findings.evaluation) | {
        "test/temperature": findings.temperature,
        "test/abstain_below": findings.abstention.threshold,
        "test/ece_by_chance": calibrated.chance,
        "model/parameters": float(cost.parameters),
        "model/bytes": float(cost.bytes),
        "model/multiply_adds": float(cost.multiply_adds),
        "model/images_per_second": cost.images_per_second,
    }
    changes = {"ece_change": findings.ece_change, "log_loss_change": findings.log_loss_change}
    for name, figure in ({"ece_uncalibrated": findings.ece_before} | changes | _further(findings)).items():
        numbers |= _with_interval(f"test/{name}", figure)
    return numbers | _logged_slices(findings.slicing) | _logged_changes(findings.robustness)


def summary(findings: Findings) -> list[str]:
    """The figures that a person wants first, one line each."""
    lines = metrics.summary(findings.evaluation)
    error = findings.calibration.ece
    lines.append(f"{'calibration':<16} error {error.percent}, at temperature {findings.temperature:g}")
    abstained = findings.abstention
    if abstained.precision is None:
        reason = "everything is withheld" if not abstained.is_reached else "no test image reaches the threshold"
        lines.append(f"{'abstention':<16} {reason} (evaluate.target_precision {abstained.target:g})")
    else:
        given = f"answers {abstained.coverage.percent}, of these {abstained.precision.percent} right"
        lines.append(f"{'abstention':<16} {given}")
    worst = _worst_change(findings.robustness)
    return lines + ([f"{'under change':<16} {worst}"] if worst else [])


def _worst_change(found: Robustness | None) -> str:
    if found is None:
        return ""
    worst = max(found.outcomes, key=lambda outcome: outcome.drop.value)
    return f"falls most by {worst.words}: {found.unchanged.value:.1%} → {worst.accuracy.value:.1%}"


def _further(findings: Findings) -> dict[str, Estimate]:
    figures = {"ece": findings.calibration.ece, "coverage": findings.abstention.coverage}
    precision = findings.abstention.precision
    # Without an answer there is no precision: a 0 would be a figure that nobody measured.
    return figures | ({"selective_precision": precision} if precision else {})


def _with_interval(name: str, figure: Estimate) -> dict[str, float]:
    return {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}


def _logged_slices(slicing: Slicing) -> dict[str, float]:
    numbers = {"slice/fewest_images": float(slicing.fewest)}
    dimensions = metrics.loggable_names([dimension.name for dimension in slicing.dimensions])
    for place, dimension in zip(dimensions, slicing.dimensions, strict=True):
        values = metrics.loggable_names([found.value for found in dimension.slices])
        for value, found in zip(values, dimension.slices, strict=True):
            at = f"slice/{place}/{value}"
            numbers |= _with_interval(f"{at}/accuracy", found.accuracy)
            numbers |= _with_interval(f"{at}/difference", found.difference) | {f"{at}/images": float(found.images)}
    return numbers


def _logged_changes(found: Robustness | None) -> dict[str, float]:
    if found is None:
        return {}
    numbers = {"robustness/images": float(found.images), "robustness/unchanged": found.unchanged.value}
    for outcome in found.outcomes:
        numbers[f"robustness/{outcome.kind}/{outcome.name}"] = outcome.accuracy.value
        numbers |= _with_interval(f"robustness_drop/{outcome.kind}/{outcome.name}", outcome.drop)
    return numbers
