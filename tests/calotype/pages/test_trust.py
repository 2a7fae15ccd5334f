"""The sentences at the top of the report say what the figures say, and no more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calotype.evaluation import abstention, metrics
from calotype.evaluation.abstention import NEVER
from calotype.evaluation.calibration import Calibration
from calotype.evaluation.findings import Findings, as_logged, as_metrics, measure, summary
from calotype.evaluation.metrics import Estimate
from calotype.evaluation.slices import Dimension, Slice, Slicing
from calotype.pages.trust import Statement, statements
from calotype.params import EvaluateParams
from tests.examples import make_answers, make_findings

CLASSES = ["cat", "dog", "eel"]


@pytest.fixture(scope="module")
def found() -> Findings:
    return make_findings(CLASSES, images=300)


def of(found: Findings, subject: str) -> Statement:
    (one,) = [statement for statement in statements(found) if statement.subject == subject]
    return one


def test_there_is_one_statement_for_each_part_of_the_page(found: Findings) -> None:
    subjects = [statement.subject for statement in statements(found)]
    assert subjects == ["Accuracy", "Classes", "Confidence", "Abstention", "Slices", "Changes"]
    assert "Changes" not in [one.subject for one in statements(replace(found, robustness=None))]


def test_an_accuracy_is_good_only_where_it_is_shown_to_beat_a_constant_answer(found: Findings) -> None:
    assert of(found, "Accuracy").tone == "good"
    guessing = make_findings(CLASSES, images=300, skill=0.0)
    assert of(guessing, "Accuracy").tone == "bad"
    assert "not shown to beat" in of(guessing, "Accuracy").text


def test_the_weakest_class_is_named(found: Findings) -> None:
    weakest = min(found.evaluation.per_class, key=lambda score: score.recall.value)
    assert f"Weakest class: {weakest.name}, {weakest.recall.percent}" in of(found, "Classes").text


@pytest.mark.parametrize(("error", "tone"), [(0.01, "good"), (0.2, "bad")])
def test_confidence_is_trusted_up_to_what_chance_explains(found: Findings, error: float, tone: str) -> None:
    calibration = Calibration(Estimate(error, 0.0, 0.3), 0.05, found.calibration.bins)
    assert of(replace(found, calibration=calibration), "Confidence").tone == tone


@pytest.mark.parametrize(
    ("answered", "right", "threshold", "tone", "words"),
    [
        (1000, 1000, 0.5, "good", "of these are right, 99 % promised"),
        (100, 99, 0.5, "open", "of these are right, 99 % promised"),
        (1000, 900, 0.5, "bad", "below the promised 99 %"),
        (0, 0, 0.999, "bad", "No test image reaches the threshold"),
        (0, 0, NEVER, "bad", "No confidence kept 99 % on validation"),
    ],
)
def test_abstention_is_judged_by_the_interval(
    found: Findings, answered: int, right: int, threshold: float, tone: str, words: str
) -> None:
    confidence = np.array([0.999] * answered + [0.1] * (1200 - answered)) - (0.01 if threshold == 0.999 else 0)
    correct = np.arange(1200) < right
    judged = abstention.judge(confidence, correct, threshold=threshold, target=0.99)
    statement = of(replace(found, abstention=judged), "Abstention")
    assert statement.tone == tone
    assert words in statement.text


def test_a_slice_is_called_worse_only_with_enough_images_and_an_interval_below_zero(found: Findings) -> None:
    def sliced(*parts: Slice) -> Findings:
        return replace(found, slicing=Slicing((Dimension("camera", parts),), (), 100))

    def part(value: str, difference: Estimate, is_enough: bool) -> Slice:
        return Slice(value, "", 150 if is_enough else 50, metrics.wilson(90, 100), difference, is_enough)

    low, unsure = Estimate(-0.08, -0.12, -0.04), Estimate(-0.08, -0.12, 0.01)
    good = of(sliced(part("a", unsure, True), part("b", low, False)), "Slices")
    assert (good.tone, good.text) == ("good", "None of 1 slices is shown to be worse than the rest.")
    bad = of(sliced(part("a", low, True), part("b", unsure, True)), "Slices")
    assert bad.tone == "bad"
    assert "Worse on camera a: -8.0 points (-12.0 to -4.0)" in bad.text
    assert of(sliced(part("a", low, False)), "Slices").tone == "open"


def test_a_weak_change_that_costs_much_is_bad_news_and_a_flip_alone_is_not(found: Findings) -> None:
    assert found.robustness
    steady = Estimate(0.0, -0.01, 0.01)
    calm = tuple(replace(one, drop=steady) for one in found.robustness.outcomes)

    def changed(place: int, drop: Estimate) -> Statement:
        outcomes = [*calm]
        outcomes[place] = replace(outcomes[place], drop=drop)
        assert found.robustness
        return of(replace(found, robustness=replace(found.robustness, outcomes=tuple(outcomes))), "Changes")

    large = Estimate(0.3, 0.2, 0.4)
    assert changed(0, steady).tone == "good"
    assert changed(0, large).tone == "open"
    assert "left-right flip: 30.0 points (20.0–40.0)" in changed(0, large).text
    assert changed(3, large).tone == "bad"
    assert "shift by 0.32 px" in changed(3, large).text


def test_every_figure_has_a_loggable_name_and_a_finite_value(found: Findings) -> None:
    logged = as_logged(found)
    assert all(np.isfinite(value) for value in logged.values())
    assert not [name for name in logged if not all(part.strip(".") for part in name.split("/"))]
    for name in (
        "test/ece",
        "test/coverage_low",
        "test/selective_precision_high",
        "slice/drop/2/difference",
        "robustness_drop/jpeg/q10_high",
        "model/bytes",
    ):
        assert name in logged, name


def test_metrics_json_holds_no_timing_and_keeps_every_older_figure(found: Findings) -> None:
    numbers = as_metrics(found)
    assert metrics.as_metrics(found.evaluation).items() <= numbers.items()
    assert numbers["ece_interval"].keys() == {"low", "high"}
    assert not [name for name in numbers if "second" in name or "image_s" in name]


def test_the_summary_names_calibration_abstention_and_the_worst_change(found: Findings) -> None:
    lines = {line[:16].strip(): line[17:] for line in summary(found)}
    assert lines["calibration"].startswith(f"error {found.calibration.ece.percent}, at temperature 1.3")
    assert lines["abstention"].startswith(f"answers {found.abstention.coverage.percent}, of these ")
    assert lines["under change"].startswith("falls most by ")


def test_the_temperature_s_effect_is_measured_against_one(found: Findings) -> None:
    # At temperature 1 the same logits give other probabilities; only the difference at 1.3 is reported.
    from sklearn.metrics import log_loss

    answers = make_answers(CLASSES, images=300)
    cold = answers.probabilities.astype(float) ** 1.3
    cold /= cold.sum(axis=1, keepdims=True)
    expected = log_loss(answers.actual, answers.probabilities) - log_loss(answers.actual, cold)
    assert found.log_loss_change.value == pytest.approx(expected, abs=1e-4)
    assert found.ece_before.value + found.ece_change.value == pytest.approx(found.calibration.ece.value)


def test_a_temperature_of_one_changes_nothing() -> None:
    answers = make_answers(CLASSES, images=90)
    params = EvaluateParams(top_k=2, bootstrap=100, target_precision=0.9, slices=[], robustness_images=0)
    empty = replace(answers, sampled=answers.sampled[:0], sample=answers.sample[:0])
    same = measure(empty, CLASSES, params, temperature=1.0, abstain_below=0.0, answer=lambda images: images)
    assert same.ece_change.value == pytest.approx(0, abs=1e-7)
    assert same.log_loss_change.value == pytest.approx(0, abs=1e-6)
    assert same.robustness is None
    assert same.abstention.coverage.value == 1
