"""Production accuracy: scikit-learn's definitions, calendar windows, and an alarm that is raised once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from calotype.params import Params
from calotype.production import accuracy, labels_table
from calotype.production.accuracy import exact, judge, measure, remember
from calotype.production.labels_file import Label, Row
from calotype.project import Project
from tests.calotype.production.conftest import crown
from tests.production_tables import NIGHT, answer, digest_of, write


def label(project: Project, said: dict[str, str], day: date = date(2026, 11, 20)) -> None:
    """Add labels without asking whether they fit."""
    rows = [Label(Row(2, "", path, text, ""), digest_of(path), text, day) for path, text in said.items()]
    labels_table.append(project, lambda _: rows, "labels.csv")


def test_figures_are_those_of_scikit_learn(project: Project, values_of: Params) -> None:
    random = np.random.default_rng(0)
    truth = random.choice(["cat", "dog", "emu"], 200, p=[0.6, 0.3, 0.1])
    given = np.where(random.random(200) < 0.8, truth, random.choice(["cat", "dog", "yak"], 200))
    paths = [f"{number}.png" for number in range(250)]
    write(project, answers=[answer(path, str(one)) for path, one in zip(paths, [*given, *["cat"] * 50], strict=True)])
    label(project, dict(zip(paths, map(str, truth), strict=False)))
    score = measure(project, values_of).versions[1]
    assert score is not None
    assert (score.images, score.answers, score.classes) == (200, 250, ("cat", "dog", "emu", "yak"))
    assert score.accuracy.value == accuracy_score(truth, given)
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, given, zero_division=0, labels=score.classes
    )
    assert [one.precision.value for one in score.per_class] == pytest.approx(precision)
    assert [one.recall.value for one in score.per_class] == pytest.approx(recall)
    assert [one.value for one in score.f1] == pytest.approx(f1)
    present = support > 0
    averages = [precision[present].mean(), recall[present].mean(), f1[present].mean()]
    assert [score.macro[name].value for name in accuracy.MACRO] == pytest.approx(averages)
    for figure in [score.accuracy, *score.macro.values(), *score.f1]:
        assert 0 <= figure.low <= figure.value <= figure.high <= 1
    assert 0.02 < score.macro["f1_macro"].high - score.macro["f1_macro"].low < 0.4


@pytest.mark.parametrize(("right", "images"), [(0, 1), (0, 20), (7, 20), (20, 20), (799, 1000)])
def test_the_exact_interval_is_that_of_scipy(right: int, images: int) -> None:
    expected = binomtest(right, images).proportion_ci(method="exact")
    found = exact(right, images)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_windows_are_calendar_weeks_in_utc_and_half_open(project: Project, values_of: Params) -> None:
    monday = datetime(2026, 11, 9, tzinfo=UTC)
    moments = {"before.png": monday - timedelta(microseconds=1), "first.png": monday, "late.png": monday}
    write(project, answers=[answer(path, predicted_at=when) for path, when in moments.items()])
    label(project, {"before.png": "cat", "first.png": "dog"})
    windows = measure(project, values_of).windows
    assert [(one.start, one.end, one.answers) for one in windows] == [
        (date(2026, 11, 2), date(2026, 11, 9), 1),
        (date(2026, 11, 9), date(2026, 11, 16), 2),
    ]
    assert [one.score and one.score.accuracy.value for one in windows] == [1.0, 0.0]
    (month,) = measure(project, values_of, "month").windows
    assert (month.start, month.end, month.answers) == (date(2026, 11, 1), date(2026, 12, 1), 3)


def test_an_answer_counts_for_the_version_that_gave_it(project: Project, values_of: Params) -> None:
    """Version 2 was asked again about an image of version 1; the challenger's answers beside it count for nobody."""
    again = {"model_version": 2, "predicted_at": NIGHT + timedelta(days=7)}
    answers = [answer("a.png", "cat"), answer("a.png", "dog", **again), answer("b.png", "cat", **again)]
    other = answer("a.png", "cat", model_name="another")
    write(project, answers=[*answers, answer("b.png", "dog", role="shadow", model_version=3), other])
    label(project, {"a.png": "dog"})
    found = measure(project, values_of)
    assert list(found.versions) == [1, 2]
    scores = [score for score in found.versions.values() if score]
    assert [(one.images, one.answers, one.accuracy.value) for one in scores] == [(1, 1, 0.0), (1, 2, 1.0)]


def test_the_label_that_holds_is_the_truth(project: Project, values_of: Params) -> None:
    write(project, answers=[answer("a.png", "cat")])
    label(project, {"a.png": "dog"})
    label(project, {"a.png": "cat"}, date(2026, 11, 21))
    score = measure(project, values_of).versions[1]
    assert score is not None
    assert (score.images, score.right) == (1, 1)


def test_confidence_tells_how_far_the_labelled_ones_differ(project: Project, values_of: Params) -> None:
    write(project, answers=[answer("a.png", confidence=0.5), answer("b.png", confidence=1.0)])
    label(project, {"a.png": "cat"})
    score = measure(project, values_of).versions[1]
    assert score is not None
    assert (score.confidence, score.confidence_of_all) == pytest.approx((0.5, 0.75))


@pytest.fixture
def answered(project: Project, values_of: Params) -> Project:
    """Version 1 is champion and called sixty images cats."""
    crown(project, values_of, 1)
    write(project, answers=[answer(f"{number}.png", "cat") for number in range(60)])
    return project


def some(start: int, count: int, wrong: int) -> dict[str, str]:
    return {f"{start + place}.png": "dog" if place < wrong else "cat" for place in range(count)}


def test_an_alarm_is_raised_once_for_the_same_labels(answered: Project, values_of: Params) -> None:
    label(answered, some(0, 20, wrong=12))
    first = judge(answered, values_of)
    assert (first.version, first.images, first.accuracy, first.is_below) == (1, 20, 0.4, True)
    assert first.high is not None
    assert first.high < values_of.monitor.min_accuracy
    assert first.reason == (
        "digits version 1: production accuracy 40.0 % (19.1–63.9) on 20 labelled images is shown to be below "
        "monitor.min_accuracy 0.8"
    )
    assert judge(answered, values_of) == first
    remember(answered, first)
    second = judge(answered, values_of)
    assert (second.is_below, second.images, second.accuracy) == (False, 0, None)
    assert "no answer of digits version 1 was labelled since the alarm" in second.reason
    label(answered, some(20, 20, wrong=1))
    assert judge(answered, values_of).images == 20
    label(answered, some(40, 20, wrong=20))
    third = judge(answered, values_of)
    assert (third.is_below, third.images) == (True, 40)
    remember(answered, third)
    remember(answered, first)
    assert not judge(answered, values_of).is_below


def test_a_low_share_of_few_images_shows_nothing(answered: Project, values_of: Params) -> None:
    label(answered, some(0, 2, wrong=2))
    found = judge(answered, values_of)
    assert (found.accuracy, found.is_below) == (0.0, False)
    assert "is not shown to be below" in found.reason


def test_only_the_champion_of_today_is_judged(answered: Project, values_of: Params) -> None:
    label(answered, some(0, 20, wrong=20))
    crown(answered, values_of, 2)
    assert judge(answered, values_of).reason == "no answer of digits version 2 was labelled"
    crown(answered, values_of, 1)
    assert judge(answered, values_of).is_below


def test_an_alarm_is_remembered_while_others_write(answered: Project, values_of: Params) -> None:
    label(answered, some(0, 20, wrong=20))
    found = judge(answered, values_of)
    with ThreadPoolExecutor(4) as pool:
        writes = [pool.submit(label, answered, some(20 + start, 5, wrong=0)) for start in (0, 5)]
        writes += [pool.submit(remember, answered, found) for _ in range(2)]
        assert [write.result() for write in writes] == [None] * 4
    assert judge(answered, values_of).images == 10


def test_without_champion_or_labels_nothing_is_judged(project: Project, values_of: Params) -> None:
    assert judge(project, values_of).reason == "digits has no champion"
    crown(project, values_of, 1)
    found = judge(project, values_of)
    assert (found.version, found.is_below, found.reason) == (1, False, "no answer of digits version 1 was labelled")
    nothing = measure(project, values_of)
    assert (nothing.labels, nothing.versions, nothing.windows) == (0, {}, ())
