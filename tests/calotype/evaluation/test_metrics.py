"""The figures: equal to scikit-learn's, with intervals that hold what they promise."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from calotype.errors import DataError
from calotype.evaluation.metrics import (
    TITLES,
    Evaluation,
    as_logged,
    as_metrics,
    log_losses,
    loggable_names,
    measure,
    ranks,
    summary,
    wilson,
)

GOLDEN_ACTUAL = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
GOLDEN_PROBABILITIES = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.7, 0.2, 0.1],
        [0.3, 0.6, 0.1],
        [0.6, 0.2, 0.2],
        [0.1, 0.8, 0.1],
        [0.2, 0.5, 0.3],
        [0.5, 0.1, 0.4],
        [0.2, 0.2, 0.6],
        [0.1, 0.2, 0.7],
        [0.6, 0.3, 0.1],
    ]
)
GOLDEN_CLASSES = ("cat", "dog", "eel")

GOLDEN_METRICS = """
{"images": 10, "classes": 3, "top_k": 2, "majority_class_accuracy": 0.4,
 "accuracy": 0.7, "accuracy_interval": {"low": 0.4, "high": 1.0},
 "top_k_accuracy": 0.8, "top_k_accuracy_interval": {"low": 0.5, "high": 1.0},
 "precision_macro": 0.755556, "recall_macro": 0.694444, "f1_macro": 0.711111,
 "precision_weighted": 0.74, "recall_weighted": 0.7, "f1_weighted": 0.706667, "log_loss": 0.868358}
"""


def random_case(seed: int, images: int, classes: int, skill: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    actual = random.integers(0, classes, images)
    scores = random.normal(size=(images, classes))
    scores[np.arange(images), actual] += skill
    probabilities = np.exp(scores)
    return actual, (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)


def evaluate(actual: np.ndarray, probabilities: np.ndarray, top_k: int = 2, resamples: int = 100) -> Evaluation:
    classes = [f"class {number}" for number in range(probabilities.shape[1])]
    return measure(actual, probabilities, classes, top_k=top_k, resamples=resamples)


def test_metrics_json_of_ten_images_is_as_written_here() -> None:
    found = as_metrics(measure(GOLDEN_ACTUAL, GOLDEN_PROBABILITIES, GOLDEN_CLASSES, top_k=2, resamples=1000))
    for key, value in json.loads(GOLDEN_METRICS).items():
        assert found[key] == pytest.approx(value, abs=1e-6), key
    assert set(found) == {"images", "classes", "top_k", "majority_class_accuracy"} | {
        name + ending for name in TITLES for ending in ("", "_interval")
    }


@pytest.mark.parametrize("seed", range(5))
def test_every_figure_equals_that_of_scikit_learn(seed: int) -> None:
    actual, probabilities = random_case(seed, 200, 6)
    found = evaluate(actual, probabilities, top_k=3)
    predicted = probabilities.argmax(axis=1)
    for average in ("macro", "weighted"):
        expected = sklearn_metrics.precision_recall_fscore_support(actual, predicted, average=average, zero_division=0)
        for name, value in zip(("precision", "recall", "f1"), expected[:3], strict=True):
            assert found.headline[f"{name}_{average}"].value == pytest.approx(value), f"{name}_{average}"
    assert found.headline["accuracy"].value == sklearn_metrics.accuracy_score(actual, predicted)
    top = sklearn_metrics.top_k_accuracy_score(actual, probabilities, k=3)
    assert found.headline["top_k_accuracy"].value == pytest.approx(top)
    exact = probabilities.astype(np.float64)
    loss = sklearn_metrics.log_loss(actual, exact / exact.sum(axis=1, keepdims=True))
    assert found.headline["log_loss"].value == pytest.approx(loss, rel=1e-5)
    assert np.array_equal(found.confusion, sklearn_metrics.confusion_matrix(actual, predicted))


def test_scores_of_each_class_equal_those_of_scikit_learn() -> None:
    actual, probabilities = random_case(7, 300, 5)
    found = evaluate(actual, probabilities).per_class
    expected = sklearn_metrics.precision_recall_fscore_support(actual, probabilities.argmax(axis=1), zero_division=0)
    assert [score.precision.value for score in found] == pytest.approx(expected[0].tolist())
    assert [score.recall.value for score in found] == pytest.approx(expected[1].tolist())
    assert [score.f1 for score in found] == pytest.approx(expected[2].tolist())
    assert [score.support for score in found] == expected[3].tolist()


def test_permuting_the_classes_permutes_the_scores_and_nothing_else() -> None:
    actual, probabilities = random_case(3, 150, 4)
    before = evaluate(actual, probabilities)
    order = np.array([2, 0, 3, 1])
    names = [before.classes[old] for old in order]
    after = measure(np.argsort(order)[actual], probabilities[:, order], names, top_k=2, resamples=100)
    for name in TITLES:
        assert after.headline[name].value == pytest.approx(before.headline[name].value, abs=1e-12), name
        assert after.headline[name].low == pytest.approx(before.headline[name].low, abs=1e-12), name
    assert after.per_class == tuple(before.per_class[old] for old in order)
    assert np.array_equal(after.confusion, before.confusion[np.ix_(order, order)])
    assert after.majority_class_accuracy == before.majority_class_accuracy


def test_the_order_of_the_images_changes_no_figure() -> None:
    actual, probabilities = random_case(4, 120, 3)
    order = np.random.default_rng(0).permutation(120)
    before, after = evaluate(actual, probabilities), evaluate(actual[order], probabilities[order])
    assert {name: after.headline[name].value for name in TITLES} == pytest.approx(
        {name: before.headline[name].value for name in TITLES}
    )
    assert after.per_class == before.per_class


def test_equal_predictions_give_equal_intervals() -> None:
    case = random_case(5, 80, 3)
    assert evaluate(*case).headline == evaluate(*case).headline


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), images=st.integers(1, 60), classes=st.integers(2, 8), skill=st.floats(-2, 6))
def test_every_interval_holds_its_figure(seed: int, images: int, classes: int, skill: float) -> None:
    found = evaluate(*random_case(seed, images, classes, skill), resamples=100)
    estimates = [*found.headline.values(), *(score.precision for score in found.per_class)]
    estimates += [score.recall for score in found.per_class]
    for figure in estimates:
        assert 0 <= figure.low <= figure.value <= figure.high
    for name in TITLES.keys() - {"log_loss"}:
        assert found.headline[name].high <= 1


def test_the_interval_of_accuracy_holds_the_truth_about_95_times_in_100() -> None:
    truth, trials = 0.85, 400
    random = np.random.default_rng(11)
    covered = 0
    for _ in range(trials):
        right = random.random(200) < truth
        probabilities = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
        figure = evaluate(np.zeros(200, dtype=int), probabilities, resamples=200).headline["accuracy"]
        covered += figure.low <= truth <= figure.high
    assert 0.91 <= covered / trials <= 0.98


def test_the_interval_of_a_class_holds_the_truth_about_95_times_in_100() -> None:
    random = np.random.default_rng(12)
    drawn = [wilson(int(right), 20) for right in random.binomial(20, 0.9, 4000)]
    covered = np.mean([figure.low <= 0.9 <= figure.high for figure in drawn])
    assert 0.93 <= covered <= 0.98


def test_five_right_of_five_is_not_called_certain() -> None:
    figure = wilson(5, 5)
    assert figure.value == figure.high == 1
    assert figure.low == pytest.approx(0.5655, abs=1e-4)


def test_a_class_that_was_never_answered_has_precision_and_f1_zero() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    found = evaluate(np.array([0, 0, 1]), probabilities, top_k=1)
    assert found.per_class[1].precision.value == found.per_class[1].f1 == 0
    assert found.headline["precision_macro"].value == pytest.approx(1 / 3)


def test_a_class_without_images_stays_out_of_the_macro_averages() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    found = evaluate(np.array([0, 1]), probabilities)
    assert found.headline["recall_macro"].value == 1
    assert found.per_class[2].support == 0


def test_more_answers_than_classes_are_as_many_as_there_are_classes() -> None:
    found = evaluate(*random_case(1, 30, 2), top_k=5)
    assert found.top_k == 2
    assert found.headline["top_k_accuracy"].value == 1


def test_one_answer_allowed_is_accuracy_even_where_probabilities_are_equal() -> None:
    actual = np.array([0, 1, 2, 1])
    probabilities = np.full((4, 3), 1 / 3)
    assert (ranks(actual, probabilities) < 1).tolist() == (probabilities.argmax(axis=1) == actual).tolist()
    found = evaluate(actual, probabilities, top_k=1)
    assert found.headline["top_k_accuracy"] == found.headline["accuracy"]


def test_a_certain_wrong_answer_costs_a_finite_loss() -> None:
    losses = log_losses(np.array([1]), np.array([[1.0, 0.0]], dtype=np.float32))
    assert losses[0] == pytest.approx(-np.log(np.finfo(np.float32).eps))


def test_no_constant_answer_beats_the_majority_class() -> None:
    actual, probabilities = random_case(2, 90, 4)
    share = max(np.mean(actual == label) for label in range(4))
    assert evaluate(actual, probabilities).majority_class_accuracy == pytest.approx(share)


@pytest.mark.parametrize(
    ("actual", "probabilities", "message"),
    [
        ([], np.empty((0, 3)), "no images"),
        ([0, 1], np.full((2, 2), 0.5), r"shape \(2, 2\); expected \(2, 3\)"),
        ([0, 1], np.array([[np.nan] * 3, [1, 0, 0]]), "1 of 2 answers are no probabilities"),
        ([0, 1], np.array([[0.5, 0.5, 0.5], [1, 0, 0]]), "1 of 2 answers are no probabilities"),
        ([0, 1], np.array([[1.5, -0.5, 0], [1, 0, 0]]), "1 of 2 answers are no probabilities"),
    ],
)
def test_what_are_no_probabilities_is_an_error(actual: list[int], probabilities: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        measure(np.array(actual, dtype=int), probabilities, ("a", "b", "c"), top_k=2, resamples=100)


def test_ten_thousand_images_are_resampled_a_thousand_times_in_two_seconds() -> None:
    import time

    case = random_case(6, 10_000, 10)
    start = time.process_time()
    evaluate(*case, resamples=1000)
    assert time.process_time() - start < 2


@settings(deadline=None)
@given(st.lists(st.text(min_size=1, max_size=300), min_size=1, max_size=20, unique=True))
def test_logged_names_are_distinct_and_allowed(classes: list[str]) -> None:
    from mlflow.utils.validation import _validate_metric_name

    names = loggable_names(classes)
    assert len(set(names)) == len(names)
    for name in names:
        _validate_metric_name(f"test_class/{name}/recall")
        assert "/" not in name


def test_logged_names_sort_side_by_side() -> None:
    logged = as_logged(measure(GOLDEN_ACTUAL, GOLDEN_PROBABILITIES, ("a/b", "a_b", ".."), top_k=2, resamples=100))
    assert {"test/accuracy", "test/accuracy_low", "test/accuracy_high", "test/f1_macro"} <= logged.keys()
    assert logged["test_class/a_b/recall"] == pytest.approx(0.75)
    assert {"test_class/a_b-1/recall", "test_class/_2/recall"} <= logged.keys()
    assert all(isinstance(value, float) for value in logged.values())


def test_the_summary_says_the_figure_and_its_interval() -> None:
    text = "\n".join(summary(measure(GOLDEN_ACTUAL, GOLDEN_PROBABILITIES, GOLDEN_CLASSES, top_k=2, resamples=1000)))
    assert re.search(r"^accuracy +70\.0 % \(40\.0–100\.0\)$", text, re.MULTILINE)
    assert re.search(r"^top-2 accuracy +80\.0 %", text, re.MULTILINE)
