"""The gate's evidence: what two sets of test predictions say about two models. Pure numpy, no verdict.

Read `weigh` first. Which images count is decided in `releases.pairing`, what follows from the figures in
`calotype.releases.gate`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from calotype.evaluation import paired_tests
from calotype.evaluation.calibration import BINS, bin_places
from calotype.evaluation.metrics import wilson
from calotype.evaluation.resampling import (
    CONFIDENCE,
    RESAMPLES,
    SEED,
    Comparison,
    Floats,
    Interval,
    Ints,
    difference_of_counts,
    figure,
    paired_bootstrap,
    swap_test,
)
from calotype.releases.pairing import ClassChanges, Excluded, LoadCheck, Pair, Rules, Side

ALPHA = 0.05
"""How often chance alone may look like a fall of any class's recall, or like a difference."""

ENOUGH_POWER = 0.8
"""A class that shows a fall less often than this blocks nothing (Cohen 1988, section 2.4)."""


@dataclass(frozen=True)
class Standing:
    """How one model does on the images that count."""

    model: str
    correct: int
    not_finite: int
    accuracy: Interval
    metric: Interval
    calibration_error: Interval | None


@dataclass(frozen=True)
class Majority:
    """The answer that is always the commonest class, and what `promote.metric` gives it."""

    label: str
    value: float


@dataclass(frozen=True)
class Difference:
    """Challenger less champion on the same images.

    Attributes
    ----------
    won, lost
        Images that the challenger alone, and the champion alone, answers right.
    mcnemar_p
        Of these two, exact and two-sided.
    swap_p
        Of the difference in `promote.metric`: how often one as large appears if the models' names are swapped at
        random on each image. For accuracy it is ``mcnemar_p``.
    """

    accuracy: Interval
    metric: Interval
    won: int
    lost: int
    mcnemar_p: float
    swap_p: float
    calibration_error: Interval | None


@dataclass(frozen=True)
class RecallTest:
    """Did the class's recall fall?

    Attributes
    ----------
    change
        Recall of the challenger less that of the champion.
    p, p_holm
        One-sided exact p that it fell, and the same allowing for the number of classes.
    power
        Chance of showing a fall of the tolerance if the challenger changes nothing else in the class.
    power_with_churn
        The same if as many answers change in both directions as did.
    """

    champion: Interval
    change: Interval
    won: int
    lost: int
    p: float
    p_holm: float
    power: float
    power_with_churn: float


@dataclass(frozen=True)
class ClassFigures:
    """One class: its images, the challenger's recall, and the comparison with the champion's."""

    name: str
    images: int
    recall: Interval
    against: RecallTest | None


@dataclass(frozen=True)
class Evidence:
    """The figures behind a decision.

    Attributes
    ----------
    images
        Test images on which the models are compared.
    absolute
        The challenger's `promote.metric` on all its classes, which the floor and the majority are held against.
    fell
        Classes whose recall fell by more than the tolerance, and were shown to have fallen.
    underpowered
        Classes with too few images to show a fall of the tolerance, whatever the models answer: they block nothing.
    blunt
        Classes with images enough, in which so many answers changed that such a fall may well go unseen.
    """

    split_digest: str
    images: int
    excluded: Excluded
    class_changes: ClassChanges
    challenger: Standing
    champion: Standing | None
    absolute: Interval
    majority: Majority
    difference: Difference | None
    classes: tuple[ClassFigures, ...]
    fell: tuple[str, ...]
    underpowered: tuple[str, ...]
    blunt: tuple[str, ...]
    load_check: LoadCheck | None
    rules: Rules
    alpha: float = ALPHA
    enough_power: float = ENOUGH_POWER
    confidence: float = CONFIDENCE
    resamples: int = RESAMPLES


def weigh(pair: Pair, rules: Rules, load_check: LoadCheck | None) -> Evidence:
    """Compute every figure that a decision may rest on, the same for equal predictions."""
    ours, theirs, actual = pair.challenger, pair.champion, pair.actual
    count = len(pair.classes)
    rival = theirs or ours
    metric = paired_bootstrap(rules.metric, actual, ours.answers, rival.answers, classes=count)
    accuracy = paired_bootstrap("accuracy", actual, ours.answers, rival.answers, classes=count)
    calibration = _calibration(actual, ours, rival)
    classes = _classes(pair, rules)
    return Evidence(
        split_digest=pair.split_digest,
        images=len(actual),
        excluded=pair.excluded,
        class_changes=pair.class_changes,
        challenger=_standing(ours, actual, accuracy.one, metric.one, calibration.one if calibration else None),
        champion=_standing(theirs, actual, accuracy.other, metric.other, calibration.other if calibration else None)
        if theirs
        else None,
        absolute=_absolute(pair, rules, metric.one),
        majority=_majority(pair, rules),
        difference=_difference(pair, rules, accuracy, metric, calibration) if theirs else None,
        classes=classes,
        fell=_named(classes, lambda test: -test.change.value > rules.recall_tolerance and _is_shown(test)),
        underpowered=_named(classes, lambda test: test.power < ENOUGH_POWER),
        blunt=_named(classes, lambda test: test.power_with_churn < ENOUGH_POWER <= test.power),
        load_check=load_check,
        rules=rules,
    )


def _standing(
    side: Side, actual: Ints, accuracy: Interval, metric: Interval, calibration_error: Interval | None
) -> Standing:
    correct = int((side.answers == actual).sum())
    return Standing(side.model, correct, side.not_finite, accuracy, metric, calibration_error)


def _difference(
    pair: Pair, rules: Rules, accuracy: Comparison, metric: Comparison, calibration: Comparison | None
) -> Difference:
    assert pair.champion is not None
    ours, theirs = pair.challenger.answers, pair.champion.answers
    won, lost = _discordant(pair.actual, ours, theirs)
    mcnemar_p = paired_tests.mcnemar(won, lost)
    swap_p = mcnemar_p
    if rules.metric != "accuracy":
        swap_p = swap_test(rules.metric, pair.actual, ours, theirs, classes=len(pair.classes))
    return Difference(
        accuracy=accuracy.difference,
        metric=metric.difference,
        won=won,
        lost=lost,
        mcnemar_p=mcnemar_p,
        swap_p=swap_p,
        calibration_error=calibration.difference if calibration else None,
    )


def _discordant(actual: Ints, one: Ints, other: Ints) -> tuple[int, int]:
    one_right, other_right = one == actual, other == actual
    return int((one_right & ~other_right).sum()), int((other_right & ~one_right).sum())


def _absolute(pair: Pair, rules: Rules, compared: Interval) -> Interval:
    if not pair.class_changes.added:
        return compared
    own = pair.own_answers
    return paired_bootstrap(rules.metric, pair.own_actual, own, own, classes=len(pair.own_classes)).one


def _majority(pair: Pair, rules: Rules) -> Majority:
    count = len(pair.own_classes)
    commonest = int(np.bincount(pair.own_actual, minlength=count).argmax())
    constant = np.full_like(pair.own_actual, commonest)
    return Majority(pair.own_classes[commonest], figure(rules.metric, pair.own_actual, constant, count))


def _classes(pair: Pair, rules: Rules) -> tuple[ClassFigures, ...]:
    """Figures by class; those without an image are there as well."""
    actual, ours = pair.actual, pair.challenger.answers
    groups = [np.flatnonzero(actual == place) for place in range(len(pair.classes))]
    recalls = [_wilson(int((ours[group] == actual[group]).sum()), len(group)) for group in groups]
    tests = _recall_tests(pair.challenger, pair.champion, actual, groups, rules) if pair.champion else ()
    return tuple(
        ClassFigures(name, len(group), recall, test)
        for name, group, recall, test in zip(pair.classes, groups, recalls, tests or [None] * len(groups), strict=True)
    )


def _recall_tests(
    ours: Side, theirs: Side, actual: Ints, groups: Sequence[Ints], rules: Rules
) -> tuple[RecallTest, ...]:
    pairs = [_discordant(actual[group], ours.answers[group], theirs.answers[group]) for group in groups]
    chances = [paired_tests.fall(won, lost) for won, lost in pairs]
    # A class without an image is no test, and takes nothing from the others.
    held = [place for place, group in enumerate(groups) if len(group)]
    adjusted = dict(zip(held, paired_tests.holm([chances[place] for place in held]), strict=True))
    level = ALPHA / len(held)
    tests = []
    for place, (group, (won, lost), p) in enumerate(zip(groups, pairs, chances, strict=True)):
        images = len(group)
        churn = 2 * min(won, lost) / images if images else 0.0
        tests.append(
            RecallTest(
                champion=_wilson(int((theirs.answers[group] == actual[group]).sum()), images),
                change=difference_of_counts(won, lost, images) if images else Interval(0.0, -1.0, 1.0),
                won=won,
                lost=lost,
                p=p,
                p_holm=adjusted.get(place, 1.0),
                power=paired_tests.best_power(images, rules.recall_tolerance, level),
                power_with_churn=paired_tests.power(images, rules.recall_tolerance, level, churn),
            )
        )
    return tuple(tests)


def _is_shown(test: RecallTest) -> bool:
    return test.power >= ENOUGH_POWER and test.p_holm <= ALPHA


def _named(classes: Sequence[ClassFigures], is_so: Callable[[RecallTest], bool]) -> tuple[str, ...]:
    return tuple(row.name for row in classes if row.against is not None and is_so(row.against))


def _wilson(successes: int, trials: int) -> Interval:
    share = wilson(successes, trials)
    return Interval(share.value, share.low, share.high)


def _calibration(actual: Ints, one: Side, other: Side) -> Comparison | None:
    """Expected calibration errors and their difference, on the images that both answer with numbers.

    The basic bootstrap's interval (Davison & Hinkley 1997, section 5.2.1) with the bins held; the sums that a resample
    of the images changes are drawn from the normal distribution that they follow in the limit.
    """
    sound = one.finite & other.finite
    if not sound.any():
        return None
    actual, images = actual[sound], int(sound.sum())
    gaps = [side.confidence[sound] - (side.answers[sound] == actual) for side in (one, other)]
    places = [bin_places(side.confidence[sound], BINS)[0] for side in (one, other)]
    means = np.concatenate([np.bincount(place, gap) for place, gap in zip(places, gaps, strict=True)]) / images
    covariance = (_products(places, gaps) / images - np.outer(means, means)) / images
    drawn = np.random.default_rng(SEED).multivariate_normal(means, covariance, RESAMPLES, check_valid="ignore")
    edge = int(places[0].max()) + 1
    values = [float(np.abs(half).sum()) for half in np.split(means, [edge])]
    errors = [np.abs(half).sum(axis=1) for half in np.split(drawn, [edge], axis=1)]
    return Comparison(
        _basic(values[0], errors[0], 0.0),
        _basic(values[1], errors[1], 0.0),
        _basic(values[0] - values[1], errors[0] - errors[1], -1.0),
    )


def _products(places: Sequence[Ints], gaps: Sequence[Floats]) -> Floats:
    """Sums over images of the products of their gaps, by pairs of bins of one model or of both."""
    edges = [int(place.max()) + 1 for place in places]
    within = [np.diag(np.bincount(place, gap**2)) for place, gap in zip(places, gaps, strict=True)]
    across = np.bincount(places[0] * edges[1] + places[1], gaps[0] * gaps[1], edges[0] * edges[1]).reshape(edges)
    return np.block([[within[0], across], [across.T, within[1]]])


def _basic(value: float, drawn: Floats, least: float) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = (float(2 * value - quantile) for quantile in np.quantile(drawn, [1 - tail, tail]))
    return Interval(value, max(least, min(value, low)), min(1.0, max(value, high)))
