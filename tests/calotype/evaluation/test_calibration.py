"""Calibration: confidence and accuracy compared, and the one number that brings them together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.evaluation.calibration import (
    BINS,
    at_temperature,
    bin_places,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    softmax,
)


def answers(images: int, seed: int = 0, classes: int = 5, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the truth at temperature 1, and labels drawn from it."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(images, classes)) * spread
    shares = softmax(logits)
    labels = (shares.cumsum(axis=1) > random.random((images, 1))).argmax(axis=1)
    return logits, labels


def confident(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shares = softmax(logits)
    return shares.max(axis=1), shares.argmax(axis=1) == labels


def test_the_error_is_worked_out_by_hand() -> None:
    confidence = np.array([0.5, 0.5, 0.7, 0.7, 0.9, 0.9])
    correct = np.array([True, False, True, True, False, False])
    # Three bins of two: |0.5 - 0.5|, |0.7 - 1|, |0.9 - 0|.
    assert expected_calibration_error(confidence, correct, bins=3) == pytest.approx((0 + 0.3 + 0.9) / 3)


def test_the_reliability_bins_are_those_of_scikit_learn() -> None:
    from sklearn.calibration import calibration_curve

    confidence, correct = confident(*answers(3000))
    bins = calibrate(confidence, correct, resamples=100).bins
    shares, means = calibration_curve(correct, confidence, n_bins=BINS, strategy="quantile")
    assert len(bins) == BINS
    # Its edges lie between two images, ours on one: a bin may hold one image more or less.
    np.testing.assert_allclose([found.accuracy.value for found in bins], shares, atol=0.012)
    np.testing.assert_allclose([found.confidence for found in bins], means, atol=0.004)


def test_bins_hold_equally_many_images_and_all_of_them() -> None:
    places, count = bin_places(np.random.default_rng(0).random(3001), BINS)
    sizes = np.bincount(places)
    assert count == BINS
    assert sizes.sum() == 3001
    assert sizes.max() - sizes.min() <= 2


def test_equal_confidences_share_a_bin_whatever_their_order() -> None:
    confidence = np.array([1.0] * 90 + [0.6] * 10)
    correct = np.array([True] * 80 + [False] * 20)
    order = np.random.default_rng(0).permutation(100)
    made = calibrate(confidence, correct, resamples=100)
    assert [found.images for found in made.bins] == [10, 90]
    shuffled = calibrate(confidence[order], correct[order], resamples=100)
    assert shuffled.bins == made.bins
    assert shuffled.ece.value == pytest.approx(made.ece.value)


@given(st.integers(1, 200), st.integers(0, 1000))
def test_the_error_is_a_share_and_the_interval_holds_it(images: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    confidence = random.choice([0.2, 0.5, 0.99, 1.0], images)
    made = calibrate(confidence, random.random(images) < 0.5, resamples=20)
    assert 0 <= made.ece.low <= made.ece.value <= made.ece.high <= 1
    assert sum(found.images for found in made.bins) == images


def test_a_calibrated_model_is_within_what_chance_explains_and_an_overconfident_one_is_not() -> None:
    within = beyond = 0
    for seed in range(40):
        logits, labels = answers(600, seed)
        fair = calibrate(*confident(logits, labels), resamples=100)
        within += fair.ece.value <= fair.chance
        bold = calibrate(*confident(3 * logits, labels), resamples=100)
        beyond += bold.ece.value > bold.chance
    assert within >= 33
    assert beyond == 40


@pytest.mark.parametrize("gap", [0.0, 0.03, 0.1])
def test_the_interval_holds_the_true_error_about_nine_times_of_ten(gap: float) -> None:
    # Each answer claims so much more than it keeps: the true error. A plain estimate from 400 images exceeds it.
    random = np.random.default_rng(1)
    held = 0
    for _ in range(60):
        confidence = random.uniform(0.6, 1.0, 400)
        made = calibrate(confidence, random.random(400) < confidence - gap, resamples=100)
        held += made.ece.low <= gap <= made.ece.high
    assert held >= 51


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_the_temperature_is_found_again(factor: float) -> None:
    logits, labels = answers(20_000)
    found = fit_temperature(logits * factor, labels)
    assert found.value == pytest.approx(factor, rel=0.03)
    assert found.log_loss_after <= found.log_loss_before
    assert found.images == 20_000


def test_the_temperature_is_that_of_a_general_minimiser() -> None:
    from scipy.optimize import minimize_scalar
    from sklearn.metrics import log_loss

    logits, labels = answers(4000, seed=3)
    logits *= 2.5
    best = minimize_scalar(
        lambda log: log_loss(labels, softmax(logits / np.exp(log))), bounds=(-3, 3), method="bounded"
    )
    # The weight that Platt's targets take from the true class moves it a little.
    assert fit_temperature(logits, labels).value == pytest.approx(np.exp(best.x), rel=2e-3)


def test_images_that_are_all_right_do_not_make_a_model_that_never_doubts() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, 180)
    logits = random.normal(size=(180, 10))
    logits[np.arange(180), labels] += 8
    found = fit_temperature(logits, labels)
    confidence = softmax(logits / found.value).max(axis=1)
    assert 0.98 < confidence.mean() < 0.9999


def test_a_temperature_that_does_not_help_is_left_alone() -> None:
    logits, labels = np.zeros((30, 3)), np.arange(30) % 3
    found = fit_temperature(logits, labels)
    assert (found.value, found.log_loss_after) == (1.0, found.log_loss_before)


@given(st.floats(0.2, 5.0), st.integers(0, 100))
def test_a_temperature_changes_no_answer_and_can_be_undone(temperature: float, seed: int) -> None:
    logits, _ = answers(20, seed)
    cold = softmax(logits)
    warm = at_temperature(cold, temperature)
    np.testing.assert_allclose(warm, softmax(logits / temperature), atol=1e-9)
    assert (warm.argmax(axis=1) == cold.argmax(axis=1)).all()
    np.testing.assert_allclose(at_temperature(warm, 1 / temperature), cold, atol=1e-6)


def test_shifting_logits_and_permuting_classes_leave_the_temperature() -> None:
    logits, labels = answers(500, seed=5)
    order = np.array([3, 0, 4, 1, 2])
    moved = fit_temperature((2 * logits + np.arange(500)[:, None])[:, order], np.argsort(order)[labels])
    assert moved.value == fit_temperature(2 * logits, labels).value


def test_one_class_alone_has_a_temperature_too() -> None:
    assert fit_temperature(np.ones((5, 1)), np.zeros(5, dtype=np.int64)).value == 1.0
