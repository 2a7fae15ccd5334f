"""A window against its reference: one alarm for six tests, at the level that was asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from calotype.monitoring import shifts
from calotype.monitoring.shifts import Sample

CLASSES = ["a", "b", "c", "d"]


def drawn(count: int, random: np.random.Generator) -> Sample:
    """Answers of a model that exists nowhere, whose embedding tells the class."""
    predicted = random.integers(4, size=count)
    return Sample(
        embedding=(random.normal(size=(count, 8)) + np.eye(4, 8)[predicted] * 4).astype(np.float32),
        predicted=predicted,
        confidence=random.beta(9, 1, count).astype(np.float32),
        appearance=random.uniform(0.2, 0.8, (count, 3)).astype(np.float32),
    )


@pytest.fixture(scope="module")
def reference() -> Sample:
    return drawn(600, np.random.default_rng(0))


def test_windows_of_the_same_images_alarm_as_seldom_as_asked() -> None:
    random = np.random.default_rng(1)
    alarms = sum(shifts.compare(drawn(150, random), drawn(80, random), CLASSES, alpha=0.2).is_drift for _ in range(100))
    assert stats.binomtest(alarms, 100, 0.2, alternative="greater").pvalue > 0.001
    assert alarms > 0


@pytest.mark.parametrize("test", shifts.TESTS)
def test_each_test_sees_what_it_is_for(reference: Sample, test: str) -> None:
    random = np.random.default_rng(2)
    window = drawn(300, random)
    moved = window.appearance + np.eye(3, dtype=np.float32)[max(shifts.TESTS.index(test) - 3, 0)] * 0.2
    changed = {
        "embedding": replace(window, embedding=window.embedding + np.float32(0.7)),
        "classes": replace(window, predicted=np.where(random.random(300) < 0.4, 2, window.predicted)),
        "confidence": replace(window, confidence=window.confidence * np.float32(0.8)),
    }.get(test, replace(window, appearance=moved))
    found = shifts.compare(reference, changed, CLASSES, alpha=0.01)
    assert [shift.test for shift in found.alarms] == [test]
    assert found.is_drift


def test_the_smallest_p_that_shuffles_can_show_is_small_enough(reference: Sample) -> None:
    far = drawn(100, np.random.default_rng(3))
    far = replace(far, embedding=far.embedding + 9, predicted=np.zeros(100, np.int64))
    for alpha in (0.2, 0.01):
        found = shifts.compare(reference, far, CLASSES, alpha=alpha)
        assert {"embedding", "classes"} <= {shift.test for shift in found.alarms}


def test_each_class_has_its_shares_with_intervals(reference: Sample) -> None:
    window = replace(drawn(100, np.random.default_rng(4)), predicted=np.array([0] * 40 + [1] * 60))
    shares = {share.name: share for share in shifts.compare(reference, window, CLASSES, 0.05).shares}
    assert list(shares) == CLASSES
    assert shares["a"].window.value == 0.4
    assert shares["a"].window.low < 0.4 < shares["a"].window.high
    assert shares["d"].window.value == 0
    assert shares["d"].window.high > 0
    assert shares["a"].reference.value == pytest.approx((reference.predicted == 0).mean())


def test_naming_the_classes_otherwise_changes_nothing_but_their_names(reference: Sample) -> None:
    window = drawn(100, np.random.default_rng(5))
    one, other = (shifts.compare(reference, window, names, 0.05) for names in (CLASSES, CLASSES[::-1]))
    assert one.shifts == other.shifts
