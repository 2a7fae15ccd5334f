"""What holds for any two models: names, columns and order decide nothing, and equals do not replace each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calotype.evaluation.calibration import expected_calibration_error
from calotype.evaluation.metrics import wilson
from calotype.evaluation.resampling import METRICS, Metric
from calotype.releases.gate import Predictions, Rules, decide

NAMES = ("ankle", "bag", "coat", "dress")
RULES = Rules("accuracy", 0.0, 0.1, 0.05, 0.1, "refuse")
Case = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Truth and two models' probabilities: no two equal in a row, some of them right."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images = draw(st.integers(1, 120))
    truth = random.integers(0, len(NAMES), images)
    skills = draw(st.tuples(st.floats(0, 3), st.floats(0, 3)))
    return truth, *(random.dirichlet(np.exp(skill * np.eye(len(NAMES))[truth])[0], images) for skill in skills)


def predictions(truth: NDArray[np.int64], probabilities: NDArray[Any], model: str = "new") -> Predictions:
    seen = np.zeros(len(truth), dtype=np.bool_)
    return Predictions(model, "a" * 64, [NAMES[place] for place in truth], NAMES, probabilities, seen)


def plain(decision: Any) -> dict[str, Any]:
    record: dict[str, Any] = decision.as_json()
    return record


@settings(max_examples=25)
@given(case=cases(), metric=st.sampled_from(METRICS), margin=st.floats(0, 0.9))
def test_equal_answers_never_replace_the_champion(case: Case, metric: Metric, margin: float) -> None:
    truth, one, _ = case
    rules = replace(RULES, metric=metric, min_margin=margin)
    assert not decide(predictions(truth, one), predictions(truth, one, "old"), rules).promoted


@settings(max_examples=25)
@given(case=cases(), metric=st.sampled_from(METRICS))
def test_of_two_models_at_most_one_may_replace_the_other(case: Case, metric: Metric) -> None:
    truth, one, other = case
    rules = replace(RULES, metric=metric)
    there = decide(predictions(truth, one), predictions(truth, other), rules)
    back = decide(predictions(truth, other), predictions(truth, one), rules)
    assert not (there.promoted and back.promoted)


@settings(max_examples=20)
@given(case=cases(), metric=st.sampled_from(METRICS), seed=st.integers(0, 99))
def test_the_order_of_images_and_of_columns_changes_nothing(case: Case, metric: Metric, seed: int) -> None:
    truth, one, other = case
    rules = replace(RULES, metric=metric)
    random = np.random.default_rng(seed)
    images, columns = random.permutation(len(truth)), random.permutation(len(NAMES))
    before = decide(predictions(truth, one), predictions(truth, other, "old"), rules)
    shuffled = predictions(truth[images], one[images][:, columns])
    shuffled = replace(shuffled, classes=[NAMES[column] for column in columns])
    after = decide(shuffled, predictions(truth[images], other[images], "old"), rules)
    assert before.reasons == after.reasons
    _same(plain(before), plain(after))


@settings(max_examples=20)
@given(case=cases(), seed=st.integers(0, 99))
def test_other_names_for_the_classes_change_names_alone(case: Case, seed: int) -> None:
    truth, one, other = case
    renamed = tuple(NAMES[place] for place in np.random.default_rng(seed).permutation(len(NAMES)))

    def called(names: tuple[str, ...], probabilities: NDArray[Any], model: str) -> Predictions:
        return replace(
            predictions(truth, probabilities, model), classes=names, labels=[names[place] for place in truth]
        )

    before = decide(called(NAMES, one, "new"), called(NAMES, other, "old"), RULES)
    after = decide(called(renamed, one, "new"), called(renamed, other, "old"), RULES)
    assert before.verdict == after.verdict
    assert before.evidence is not None
    assert after.evidence is not None
    new_name = dict(zip(NAMES, renamed, strict=True))
    rows = {row.name: row for row in after.evidence.classes}
    for row in before.evidence.classes:
        assert replace(rows[new_name[row.name]], name=row.name) == row
    assert {new_name[name] for name in before.evidence.underpowered} == set(after.evidence.underpowered)


@settings(max_examples=20)
@given(case=cases(), low=st.floats(0, 0.9), high=st.floats(0, 0.9), metric=st.sampled_from(METRICS))
def test_stricter_rules_never_help_the_challenger(case: Case, low: float, high: float, metric: Metric) -> None:
    truth, one, other = case
    low, high = sorted((low, high))
    for key in ("min_margin", "floor"):
        verdicts = [
            decide(
                predictions(truth, one), predictions(truth, other), replace(RULES, metric=metric, **{key: value})
            ).promoted
            for value in (low, high)
        ]
        assert verdicts[0] or not verdicts[1]


@settings(max_examples=20)
@given(case=cases(), seed=st.integers(0, 99))
def test_left_out_images_might_as_well_not_exist(case: Case, seed: int) -> None:
    truth, one, other = case
    seen = np.random.default_rng(seed).random(len(truth)) < 0.3
    seen[0] = False
    marked = decide(
        replace(predictions(truth, one), seen=seen), predictions(truth, other, "old"), replace(RULES, floor=0)
    )
    kept = decide(
        predictions(truth[~seen], one[~seen]), predictions(truth[~seen], other[~seen], "old"), replace(RULES, floor=0)
    )
    assert marked.verdict == kept.verdict
    assert marked.evidence is not None
    assert kept.evidence is not None
    assert replace(marked.evidence, excluded=kept.evidence.excluded) == kept.evidence


@settings(max_examples=20)
@given(case=cases())
def test_figures_are_those_of_the_evaluation(case: Case) -> None:
    truth, one, other = case
    evidence = decide(predictions(truth, one), predictions(truth, other, "old"), RULES).evidence
    assert evidence is not None
    right = one.argmax(axis=1) == truth
    assert evidence.challenger.accuracy.value == right.mean()
    error = expected_calibration_error(one.max(axis=1), right)
    assert evidence.challenger.calibration_error is not None
    assert evidence.challenger.calibration_error.value == pytest.approx(error)
    for place, row in enumerate(evidence.classes):
        share = wilson(int(right[truth == place].sum()), int((truth == place).sum()))
        assert (row.recall.value, row.recall.low, row.recall.high) == (share.value, share.low, share.high)


def test_the_calibration_interval_is_that_of_a_bootstrap_over_images() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 4, 2000)
    one, other = (random.dirichlet(np.ones(4), 2000) * 0.5 + 0.5 * np.eye(4)[truth] * share for share in (1.0, 0.8))
    one, other = (side / side.sum(axis=1, keepdims=True) for side in (one, other))
    evidence = decide(predictions(truth, one), predictions(truth, other, "old"), RULES).evidence
    assert evidence is not None
    assert evidence.difference is not None
    found = evidence.difference.calibration_error
    assert found is not None
    drawn = []
    for _ in range(600):
        chosen = random.integers(0, 2000, 2000)
        errors = [
            expected_calibration_error(side[chosen].max(axis=1), side[chosen].argmax(axis=1) == truth[chosen])
            for side in (one, other)
        ]
        drawn.append(errors[0] - errors[1])
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.high - found.low == pytest.approx(high - low, rel=0.15)
    assert found.low == pytest.approx(2 * found.value - high, abs=0.2 * (high - low))


def _same(one: Any, other: Any) -> None:
    """Equal, but for roundings of sums over images in another order."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            _same(one[key], other[key])
    elif isinstance(one, list):
        for left, right in zip(one, other, strict=True):
            _same(left, right)
    else:
        assert one == (pytest.approx(other, abs=1e-9) if isinstance(one, float) else other)
