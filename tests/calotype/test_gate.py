"""The gate refuses by default: only a challenger that is ahead by more than the margin passes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.gate import Answers, Rules, decide, nothing_to_promote

MARGINS = st.floats(min_value=0, max_value=0.99, allow_nan=False)


def answers(predicted: list[int], classes: int = 3, model: str = "digits version 2") -> Answers:
    """Certain answers: probability 1 for each predicted class."""
    return Answers(model, np.eye(classes, dtype=np.float32)[predicted])


@st.composite
def contests(draw: st.DrawFn) -> tuple[list[int], list[int], list[int]]:
    count = draw(st.integers(1, 40))
    column = st.lists(st.integers(0, 2), min_size=count, max_size=count)
    return draw(column), draw(column), draw(column)


@given(contest=contests(), margin=MARGINS)
def test_equal_answers_never_replace_the_champion(contest: tuple[list[int], ...], margin: float) -> None:
    same, _, labels = contest
    assert not decide(answers(same), answers(same), np.array(labels), Rules(margin)).promoted


@given(contest=contests(), margin=MARGINS)
def test_of_two_models_at_most_one_may_replace_the_other(contest: tuple[list[int], ...], margin: float) -> None:
    one, other, labels = contest
    there = decide(answers(one), answers(other), np.array(labels), Rules(margin))
    back = decide(answers(other), answers(one), np.array(labels), Rules(margin))
    assert not (there.promoted and back.promoted)
    assert (
        there.promoted
        or back.promoted
        or sum(map(int.__eq__, one, labels)) == sum(map(int.__eq__, other, labels))
        or margin > 0
    )


@given(contest=contests(), margin=MARGINS, seed=st.integers(0, 1000))
def test_order_of_the_images_does_not_matter(contest: tuple[list[int], ...], margin: float, seed: int) -> None:
    one, other, labels = contest
    order = np.random.default_rng(seed).permutation(len(labels)).tolist()
    shuffled = [[column[place] for place in order] for column in contest]
    before = decide(answers(one), answers(other), np.array(labels), Rules(margin))
    after = decide(answers(shuffled[0]), answers(shuffled[1]), np.array(shuffled[2]), Rules(margin))
    assert before == after


@given(contest=contests(), low=MARGINS, high=MARGINS)
def test_a_wider_margin_never_helps_the_challenger(contest: tuple[list[int], ...], low: float, high: float) -> None:
    one, other, labels = contest
    low, high = sorted((low, high))
    wide = decide(answers(one), answers(other), np.array(labels), Rules(high))
    narrow = decide(answers(one), answers(other), np.array(labels), Rules(low))
    assert narrow.promoted or not wide.promoted


def test_a_lead_of_exactly_the_margin_is_held_though_floats_round_it_up() -> None:
    labels = np.zeros(100, dtype=int)
    challenger, champion = [0] * 79 + [1] * 21, [0] * 50 + [1] * 50
    held = decide(answers(challenger), answers(champion), labels, Rules(0.29))
    assert held.verdict == "hold"
    assert decide(answers([0] * 80 + [1] * 20), answers(champion), labels, Rules(0.29)).promoted


def test_without_a_champion_the_commonest_class_is_the_rival() -> None:
    labels = np.array([0, 0, 0, 1, 2])
    assert not decide(answers([0, 0, 0, 0, 0]), None, labels, Rules(0)).promoted
    passed = decide(answers([0, 0, 0, 1, 0]), None, labels, Rules(0))
    assert passed.promoted
    assert passed.evidence is not None
    assert passed.evidence.majority_accuracy == 0.6


def test_a_challenger_that_answers_nan_is_held_however_right_its_other_answers_are() -> None:
    broken = answers([0, 1, 2, 2])
    broken.probabilities[3] = np.nan
    decision = decide(broken, answers([1, 1, 1, 1]), np.array([0, 1, 2, 2]), Rules(0))
    assert decision.summary() == (
        "hold: digits version 2 answers NaN for 1 of 4 test images. Train again with a lower `train.lr`."
    )


def test_a_champion_that_answers_nan_gets_no_credit_for_it() -> None:
    broken = answers([0, 0, 0, 0], model="digits version 1")
    broken.probabilities[:] = np.nan
    decision = decide(answers([0, 1, 1, 1]), broken, np.array([0, 0, 0, 0]), Rules(0))
    assert decision.promoted
    assert decision.evidence is not None
    assert decision.evidence.champion is not None
    assert decision.evidence.champion.not_finite == 4


def test_the_summary_says_who_won_by_how_much_and_which_margin_held() -> None:
    labels = np.array([0, 1, 2, 2])
    ours, theirs = answers([0, 1, 2, 0]), answers([0, 1, 0, 0], model="digits version 1")
    assert decide(ours, theirs, labels, Rules(0.1)).summary() == (
        "promote: digits version 2 is the champion now, in place of digits version 1\n"
        "  accuracy 0.7500 (3 of 4 test images) against the champion's 0.5000 (2): "
        "+0.2500, more than promote.min_margin 0.1"
    )
    assert decide(ours, theirs, labels, Rules(0.25)).summary() == (
        "hold: digits version 1 stays the champion\n"
        "  accuracy 0.7500 (3 of 4 test images) against the champion's 0.5000 (2): "
        "+0.2500, not more than promote.min_margin 0.25"
    )


def test_the_record_is_plain_json() -> None:
    decision = decide(answers([0, 1]), answers([1, 1]), np.array([0, 1]), Rules(0))
    kept = json.loads(json.dumps(decision.as_json(), allow_nan=False))
    assert kept["verdict"] == "promote"
    assert kept["evidence"]["challenger"] == {
        "model": "digits version 2",
        "correct": 2,
        "accuracy": 1.0,
        "not_finite": 0,
    }
    assert nothing_to_promote("no challenger").as_json()["evidence"] is None


@pytest.mark.parametrize(
    ("challenger", "champion", "labels"),
    [([0, 1], None, []), ([0, 1], None, [0]), ([0, 1], [0], [0, 1])],
)
def test_answers_for_other_images_are_no_contest(
    challenger: list[int], champion: list[int] | None, labels: list[int]
) -> None:
    with pytest.raises(ValueError, match=r"shape"):
        decide(answers(challenger), answers(champion) if champion else None, np.array(labels, dtype=int), Rules(0))
