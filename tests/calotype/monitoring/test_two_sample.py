"""Where nothing differs p is uniform; where something does it is small; and nothing breaks on odd samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from calotype.monitoring import two_sample
from calotype.monitoring.two_sample import Found

Trial = Callable[[np.random.Generator], Found]


def same_vectors(random: np.random.Generator) -> Found:
    # Skewed, correlated, of different scales: what embeddings are.
    both = np.exp(random.normal(size=(90, 6))) @ np.diag([100, 10, 1, 1, 0.1, 0]) @ random.normal(size=(6, 6))
    return two_sample.discrepancy(both[:60], both[60:], 99, random)


def same_classes(random: np.random.Generator) -> Found:
    shares = [0.6, 0.2, 0.1, 0.05, 0.05]
    return two_sample.class_mix(random.multinomial(300, shares), random.multinomial(120, shares), 99, random)


def same_numbers(random: np.random.Generator) -> Found:
    return two_sample.distribution(random.beta(8, 1, 300), random.beta(8, 1, 150), random)


@pytest.mark.parametrize("trial", [same_vectors, same_classes, same_numbers])
def test_where_nothing_differs_p_is_uniform(trial: Trial) -> None:
    random = np.random.default_rng(5)
    found = np.array([trial(random).p for _ in range(300)])
    # p has steps of 0.01, and Kolmogorov's test on a few hundred numbers is a little careful.
    assert stats.kstest(found - random.uniform(0, 0.01, len(found)), "uniform").pvalue > 0.001
    assert stats.binomtest(int((found <= 0.05).sum()), len(found), 0.05, alternative="greater").pvalue > 0.001


def test_a_small_move_along_a_narrow_axis_is_seen() -> None:
    random = np.random.default_rng(6)
    spreads = np.array([100.0, 50, 30, 15])
    reference, window = (random.normal(size=(count, 4)) * spreads for count in (1000, 300))
    window[:, 3] += 6
    assert two_sample.discrepancy(reference, window, 999, random).p <= 0.01


def test_another_shape_with_equal_means_and_spreads_is_seen() -> None:
    random = np.random.default_rng(7)
    reference = random.normal(size=(1500, 2))
    window = np.sign(random.normal(size=(600, 2))) + random.normal(0, 0.01, size=(600, 2))
    assert two_sample.discrepancy(reference, window, 199, random).p <= 0.01


def test_a_class_at_three_times_its_share_is_seen() -> None:
    random = np.random.default_rng(8)
    window = np.full(10, 35)
    window[4] = 185
    found = two_sample.class_mix(np.full(10, 600), window, 999, random)
    assert found.p == 0.001


def test_the_chi_square_is_that_of_the_table_of_both() -> None:
    random = np.random.default_rng(9)
    before, now = np.array([50, 30, 20, 0]), np.array([10, 12, 8, 0])
    expected = stats.chi2_contingency(np.stack([before, now])[:, :3], correction=False)
    found = two_sample.class_mix(before, now, 4999, random)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue, abs=0.03)


def test_the_difference_of_means_has_an_interval_that_holds_it() -> None:
    random = np.random.default_rng(10)
    inside = 0
    for _ in range(100):
        found = two_sample.distribution(random.normal(0, 1, 200), random.normal(0.3, 1, 100), random)
        assert found.effect
        assert found.effect.low <= found.effect.value <= found.effect.high
        inside += found.effect.low <= 0.3 <= found.effect.high
    assert stats.binomtest(inside, 100, 0.95).pvalue > 0.001


def test_embeddings_that_never_vary_show_no_difference() -> None:
    random = np.random.default_rng(11)
    assert two_sample.discrepancy(np.ones((50, 4)), np.ones((30, 4)), 99, random).p == 1


def test_whitened_axes_are_sorted_uncorrelated_and_alike() -> None:
    random = np.random.default_rng(12)
    vectors = random.normal(size=(5000, 4)) @ random.normal(size=(4, 4))
    spreads = np.cov(two_sample.whitened(vectors), rowvar=False)
    assert np.allclose(spreads, np.diag(np.diag(spreads)), atol=1e-8)
    # What is added to small variances leaves narrow axes a little narrower.
    assert (np.diff(np.diag(spreads)) <= 1e-9).all()
    assert np.diag(spreads)[0] == pytest.approx(1 / 1.01, rel=1e-6)


def test_equal_seeds_give_equal_p() -> None:
    samples = np.random.default_rng(13).normal(size=(2, 100, 5))
    found = [two_sample.discrepancy(*samples, 199, np.random.default_rng(1)) for _ in range(2)]
    assert found[0] == found[1]
