"""Exact tests are exact, Holm's family error holds, and power is what a simulation finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from calotype.evaluation import paired_tests
from calotype.evaluation.paired_tests import best_power, fall, holm, mcnemar, power

COUNTS = st.integers(0, 3000)


@given(won=COUNTS, lost=COUNTS)
def test_both_tests_are_binomial_tests_on_the_discordant_images(won: int, lost: int) -> None:
    if won + lost == 0:
        assert mcnemar(0, 0) == fall(0, 0) == 1.0
        return
    assert mcnemar(won, lost) == pytest.approx(binomtest(won, won + lost).pvalue, rel=1e-9)
    assert fall(won, lost) == pytest.approx(binomtest(lost, won + lost, alternative="greater").pvalue, rel=1e-9)


def test_a_hundred_thousand_discordant_images_are_still_exact() -> None:
    assert fall(49_000, 51_000) == pytest.approx(binom.sf(50_999, 100_000, 0.5), rel=1e-6)


def test_holm_on_an_example_worked_by_hand() -> None:
    # 4 × 0.005, 3 × 0.01, 2 × 0.03, then never less than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(chances=st.lists(st.floats(0, 1), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_holm_follows_its_p_values_and_never_lowers_one(chances: list[float], seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(chances))
    adjusted = holm(chances)
    assert all(after >= before for before, after in zip(chances, adjusted, strict=True))
    assert holm([chances[place] for place in order]) == [adjusted[place] for place in order]


def test_of_twenty_classes_that_did_not_fall_holm_names_any_in_at_most_5_of_100_cases() -> None:
    random = np.random.default_rng(0)
    named = 0
    for _ in range(1000):
        lost = random.binomial(60, 0.5, 20)
        named += min(holm([fall(60 - int(count), int(count)) for count in lost])) <= 0.05
    assert named / 1000 <= 0.05 + 2 * 0.007


@pytest.mark.parametrize(
    ("images", "tolerance", "level"), [(30, 0.05, 0.005), (150, 0.05, 0.005), (250, 0.05, 0.005), (60, 0.2, 0.05)]
)
def test_the_best_power_is_what_a_simulation_finds(images: int, tolerance: float, level: float) -> None:
    lost = np.random.default_rng(0).binomial(images, tolerance, 4000)
    shown = np.mean([fall(0, int(count)) <= level for count in lost])
    assert best_power(images, tolerance, level) == pytest.approx(shown, abs=0.03)


@pytest.mark.parametrize(("images", "churn"), [(300, 0.02), (1000, 0.1), (1000, 0.2), (3000, 0.3), (5000, 0.8)])
def test_connors_power_is_what_a_simulation_finds(images: int, churn: float) -> None:
    tolerance, level = 0.05, 0.005
    drawn = np.random.default_rng(0).multinomial(
        images, [churn / 2, churn / 2 + tolerance, 1 - churn - tolerance], size=2000
    )
    shown = np.mean([fall(int(won), int(lost)) <= level for won, lost, _ in drawn])
    # Connor's formula is of the test without the continuity that exactness costs.
    assert power(images, tolerance, level, churn) == pytest.approx(shown, abs=0.08)


@given(images=st.integers(1, 2000), tolerance=st.floats(0.01, 0.5), level=st.floats(1e-4, 0.05))
def test_more_images_never_lower_the_best_power_and_churn_spoils_a_good_one(
    images: int, tolerance: float, level: float
) -> None:
    assert best_power(images + 1, tolerance, level) >= best_power(images, tolerance, level) - 1e-9
    # Below one half, churn adds luck to a test that has no power of its own.
    with_little = power(images, tolerance, level, 0.1)
    assert with_little < 0.5 or power(images, tolerance, level, 0.3) <= with_little + 1e-9


def test_two_hundred_and_four_images_are_needed_to_watch_one_class_of_ten_for_five_points() -> None:
    enough = [images for images in range(1, 400) if best_power(images, 0.05, 0.05 / 10) >= 0.8]
    assert enough[0] == 204


def test_degenerate_counts_have_plain_answers() -> None:
    assert paired_tests.at_least(0, 0) == 1.0
    assert paired_tests.at_least(1, 0) == 0.0
    assert best_power(0, 0.05, 0.005) == 0.0
    assert power(0, 0.05, 0.005, 0.0) < 0.01
