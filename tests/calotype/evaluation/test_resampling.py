"""The bootstrap over counts is the bootstrap over images, and its intervals hold what they claim."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom, binomtest
from sklearn.metrics import accuracy_score, f1_score, recall_score

from calotype.evaluation.resampling import (
    METRICS,
    Interval,
    Metric,
    accuracy_difference,
    difference_of_counts,
    figure,
    paired_bootstrap,
    swap_test,
)

Ints = NDArray[np.int64]


@st.composite
def answers(draw: st.DrawFn, most: int = 30, classes: int = 3) -> tuple[Ints, Ints, Ints]:
    """Truth, and the answers of two classifiers, of which some lie outside the classes."""
    count = draw(st.integers(1, most))
    truth = draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    column = st.lists(st.integers(-1, classes - 1), min_size=count, max_size=count)
    return np.array(truth), np.array(draw(column)), np.array(draw(column))


def skewed(images: int = 300, seed: int = 3) -> tuple[Ints, Ints, Ints]:
    """Four classes of unequal size, and two classifiers whose mistakes overlap."""
    random = np.random.default_rng(seed)
    truth = random.choice(4, images, p=[0.4, 0.3, 0.2, 0.1])
    one = np.where(random.random(images) < 0.15, random.integers(0, 4, images), truth)
    other = np.where(random.random(images) < 0.15, random.integers(0, 4, images), one)
    return truth, one, other


def naive_figure(metric: Metric, truth: Ints, given: Ints) -> float:
    """The metric by scikit-learn."""
    present = np.unique(truth)
    if metric == "accuracy":
        return float(accuracy_score(truth, given))
    score = f1_score if metric == "macro_f1" else recall_score
    return float(score(truth, given, labels=present, average="macro", zero_division=0))


@settings(max_examples=25, deadline=None)
@given(case=answers())
def test_figures_are_those_of_scikit_learn(case: tuple[Ints, Ints, Ints]) -> None:
    truth, one, _ = case
    for metric in METRICS:
        assert figure(metric, truth, one, 3) == pytest.approx(naive_figure(metric, truth, one), abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_intervals_agree_with_a_bootstrap_that_draws_images(metric: Metric) -> None:
    truth, one, other = skewed()
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(2000):
        chosen = random.integers(0, len(truth), len(truth))
        values = [figure(metric, truth[chosen], side[chosen], 4) for side in (one, other)]
        drawn.append([*values, values[0] - values[1]])
    naive = np.quantile(drawn, [0.025, 0.975], axis=0).T
    found = paired_bootstrap(metric, truth, one, other, classes=4)
    for interval, (low, high), spread in zip(
        (found.one, found.other, found.difference), naive, np.std(drawn, axis=0), strict=True
    ):
        # A quantile of 2,000 draws wanders by about 0.06 standard deviations, and there are two of them.
        assert interval.low == pytest.approx(low, abs=0.25 * spread)
        assert interval.high == pytest.approx(high, abs=0.25 * spread)
    assert found.difference.value == pytest.approx(found.one.value - found.other.value)


@given(won=st.integers(0, 6), lost=st.integers(0, 6), more=st.integers(0, 6))
def test_the_difference_of_accuracies_has_the_quantiles_of_all_resamples(won: int, lost: int, more: int) -> None:
    images = won + lost + more
    if images == 0:
        return
    chances = {0: 1.0}
    for _ in range(images):
        after: dict[int, float] = {}
        for total, chance in chances.items():
            for step, count in ((1, won), (-1, lost), (0, more)):
                after[total + step] = after.get(total + step, 0.0) + chance * count / images
        chances = after
    low = min(total for total in chances if sum(c for t, c in chances.items() if t <= total) > 0.025)
    high = max(total for total in chances if sum(c for t, c in chances.items() if t >= total) > 0.025)
    found = difference_of_counts(won, lost, images)
    assert (found.value, found.low, found.high) == ((won - lost) / images, low / images, high / images)


@pytest.mark.parametrize(("right", "images"), [(0, 10), (10, 10), (7, 10), (9_871, 10_000), (999_000, 1_000_000)])
def test_a_lone_accuracy_has_binomial_quantiles(right: int, images: int) -> None:
    found = difference_of_counts(right, 0, images)
    share = right / images
    assert found.low * images == pytest.approx(binom.ppf(0.025, images, share), abs=1e-6)
    assert found.high * images == pytest.approx(images - binom.ppf(0.025, images, 1 - share), abs=1e-6)


def test_a_million_images_are_as_quick_and_as_exact_as_the_normal_limit_says() -> None:
    found = difference_of_counts(4_000, 3_000, 1_000_000)
    assert (found.low, found.high) == pytest.approx(
        (1e-3 - 1.96 * 7e3**0.5 / 1e6, 1e-3 + 1.96 * 7e3**0.5 / 1e6), rel=0.01
    )


@given(case=answers())
def test_changing_sides_changes_the_sign_of_an_accuracys_difference(case: tuple[Ints, Ints, Ints]) -> None:
    truth, one, other = case
    there, back = accuracy_difference(one == truth, other == truth), accuracy_difference(other == truth, one == truth)
    assert there == Interval(-back.value + 0.0, -back.high + 0.0, -back.low + 0.0)


@settings(max_examples=25, deadline=None)
@given(case=answers(), seed=st.integers(0, 99))
def test_the_order_of_the_images_does_not_matter(case: tuple[Ints, Ints, Ints], seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(case[0]))
    shuffled = [column[order] for column in case]
    for metric in METRICS:
        before = paired_bootstrap(metric, *case, classes=3, resamples=50)
        assert paired_bootstrap(metric, *shuffled, classes=3, resamples=50) == before
        assert swap_test(metric, *case, classes=3, resamples=50) == swap_test(
            metric, *shuffled, classes=3, resamples=50
        )


@settings(max_examples=25, deadline=None)
@given(case=answers())
def test_every_interval_holds_its_value_and_equal_answers_do_not_differ(case: tuple[Ints, Ints, Ints]) -> None:
    truth, one, other = case
    for metric in METRICS:
        found = paired_bootstrap(metric, truth, one, other, classes=3, resamples=50)
        for interval in (found.one, found.other, found.difference):
            assert interval.low <= interval.value <= interval.high
        same = paired_bootstrap(metric, truth, one, one, classes=3, resamples=50)
        assert same.difference == Interval(0.0, 0.0, 0.0)
        assert swap_test(metric, truth, one, one, classes=3, resamples=50) == 1.0


def test_a_resample_without_a_rare_class_averages_over_the_others() -> None:
    truth = np.array([0] * 50 + [1])
    wrong_on_the_rare = np.zeros(51, dtype=np.int64)
    found = paired_bootstrap("macro_recall", truth, wrong_on_the_rare, truth, classes=2)
    assert found.one == Interval(0.5, 0.5, 1.0)


@pytest.mark.parametrize("counts", [(6, 0), (9, 2), (40, 25)])
def test_the_swap_test_of_a_balanced_macro_recall_is_mcnemars(counts: tuple[int, int]) -> None:
    won, lost = counts
    truth = np.repeat([0, 1], 100)
    one, other = truth.copy(), truth.copy()
    other[:won] = 1
    one[100 : 100 + lost] = 0
    exact = binomtest(won, won + lost).pvalue
    assert swap_test("macro_recall", truth, one, other, classes=2, resamples=20_000) == pytest.approx(exact, abs=0.012)


def test_the_swap_test_of_macro_f1_agrees_with_swapping_image_by_image() -> None:
    truth, one, other = skewed()
    random = np.random.default_rng(1)
    observed = abs(figure("macro_f1", truth, one, 4) - figure("macro_f1", truth, other, 4))
    hits = 0
    for _ in range(2000):
        flips = random.random(len(truth)) < 0.5
        sides = np.where(flips, other, one), np.where(flips, one, other)
        hits += abs(figure("macro_f1", truth, sides[0], 4) - figure("macro_f1", truth, sides[1], 4)) >= observed - 1e-12
    assert swap_test("macro_f1", truth, one, other, classes=4) == pytest.approx(hits / 2000, abs=0.05)


@pytest.mark.parametrize("metric", METRICS)
def test_an_interval_holds_the_true_difference_in_about_95_of_100_samples(metric: Metric) -> None:
    truth, one, other = skewed(images=40_000, seed=5)
    real = figure(metric, truth, one, 4) - figure(metric, truth, other, 4)
    random = np.random.default_rng(2)
    held = 0
    for _ in range(200):
        chosen = random.choice(len(truth), 400, replace=False)
        found = paired_bootstrap(metric, truth[chosen], one[chosen], other[chosen], classes=4, resamples=300).difference
        held += found.low <= real <= found.high
    # 95 % less four standard errors.
    assert held / 200 >= 0.89


def test_many_classes_and_images_stay_within_memory() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 500, 20_000)
    one = np.where(random.random(20_000) < 0.3, random.integers(0, 500, 20_000), truth)
    found = paired_bootstrap("macro_f1", truth, one, truth, classes=500, resamples=20)
    assert found.difference.high < 0
    assert found.other == Interval(1.0, 1.0, 1.0)


def test_what_a_person_reads() -> None:
    assert Interval(0.012, -0.0033, 0.0207).signed == "+0.0120 (95 % interval -0.0033 to +0.0207)"
    assert Interval(0.912, 0.9033, 0.9207).plain == "0.9120 (0.9033–0.9207)"
