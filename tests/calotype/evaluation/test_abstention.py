"""Abstention: the threshold keeps its promise, answers as much as it can, and says when it cannot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.evaluation.abstention import NEVER, choose_threshold, is_answered, judge


def ladder(rights: list[bool], step: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """Answers of falling confidence 0.99, 0.98 …"""
    return 0.99 - step * np.arange(len(rights)), np.array(rights)


def test_the_lowest_threshold_that_keeps_the_target_is_chosen() -> None:
    # Right up to the 20th, then wrong, right, wrong: at 0.9 the answer that brings 20 of 22 is the last that keeps it.
    confidence, correct = ladder([True] * 20 + [False, True, False, False, False])
    found = choose_threshold(confidence, correct, 0.9)
    assert (found.answered, found.right) == (23, 21)
    assert found.right / found.answered >= 0.9
    assert confidence[23] < found.value < confidence[22]


def test_images_of_equal_confidence_are_answered_together() -> None:
    confidence = np.array([0.9] * 10 + [0.8] * 10)
    correct = np.array([True] * 10 + [True] * 5 + [False] * 5)
    found = choose_threshold(confidence, correct, 0.8)
    assert found.answered == 10
    assert found.value == pytest.approx(0.85)


def test_everything_is_answered_where_all_together_keep_the_target() -> None:
    found = choose_threshold(*ladder([True] * 30 + [False]), 0.9)
    assert (found.value, found.answered) == (0.0, 31)


def test_a_target_out_of_reach_withholds_everything_and_names_the_best() -> None:
    confidence, correct = ladder([False, True] * 20)
    found = choose_threshold(confidence, correct, 0.9)
    assert not found.is_reached
    assert found.value == NEVER
    assert found.best == pytest.approx(0.5)
    assert not is_answered(np.ones(3, dtype=np.float32), found.value).any()


def test_too_few_answers_show_no_target_however_right_they_are() -> None:
    confidence, correct = ladder([True] * 99, step=0.001)
    found = choose_threshold(confidence, correct, 0.99)
    assert (found.is_reached, found.fewest, found.best) == (False, 100, 0.0)
    confidence, correct = ladder([True] * 100, step=0.001)
    assert choose_threshold(confidence, correct, 0.99).is_reached


@given(
    st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=80), st.sampled_from([0.5, 0.8, 0.9])
)
def test_no_lower_threshold_would_do(rows: list[tuple[int, bool]], target: float) -> None:
    confidence = np.array([row[0] / 20 for row in rows])
    correct = np.array([row[1] for row in rows])
    found = choose_threshold(confidence, correct, target)
    kept = {
        level: (int((confidence >= level).sum()), int(correct[confidence >= level].sum())) for level in set(confidence)
    }
    able = [
        level for level, (answered, right) in kept.items() if answered >= found.fewest and right >= target * answered
    ]
    assert found.is_reached == bool(able)
    if able:
        assert (found.answered, found.right) == kept[min(able)]
        assert int(is_answered(confidence, found.value).sum()) == found.answered


@given(st.integers(0, 1000))
def test_the_order_of_images_decides_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    confidence, correct = random.integers(0, 10, 60) / 10, random.random(60) < 0.7
    order = random.permutation(60)
    assert choose_threshold(confidence, correct, 0.8) == choose_threshold(confidence[order], correct[order], 0.8)


def test_a_higher_target_answers_no_more() -> None:
    random = np.random.default_rng(2)
    confidence = random.random(4000)
    correct = random.random(4000) < confidence
    answered = [choose_threshold(confidence, correct, target).answered for target in (0.6, 0.7, 0.8, 0.9)]
    assert answered == sorted(answered, reverse=True)
    assert answered[-1] > 0


def test_the_judgement_counts_test_images_with_intervals() -> None:
    confidence, correct = ladder([True] * 8 + [False] * 2, step=0.05)
    found = judge(confidence, correct, threshold=0.7, target=0.9)
    assert (found.images, found.answered, found.right) == (10, 6, 6)
    assert found.coverage.value == 0.6
    assert found.precision
    assert found.precision.value == 1
    assert found.precision.low < 0.7
    assert found.curve[0] == (0.1, 1.0)
    assert found.curve[-1] == (1.0, 0.8)


def test_nothing_answered_is_no_precision() -> None:
    found = judge(np.array([0.9]), np.array([True]), threshold=NEVER, target=0.9)
    assert found.coverage.value == 0
    assert found.precision is None


def test_a_promise_made_on_validation_is_kept_on_test_images() -> None:
    random = np.random.default_rng(3)
    confidence = random.random(40_000)
    correct = random.random(40_000) < confidence**0.3
    found = choose_threshold(confidence[:20_000], correct[:20_000], 0.95)
    test = judge(confidence[20_000:], correct[20_000:], threshold=found.value, target=0.95)
    assert test.precision
    assert test.precision.low - 0.01 <= 0.95 <= test.precision.high + 0.01
    assert 0.3 < test.coverage.value < 0.9
