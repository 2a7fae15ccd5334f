"""The gate refuses by default: nothing broken, and a lead that is shown, or the champion stays."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from calotype.errors import DataError
from calotype.params import PromoteParams
from calotype.releases import gate
from calotype.releases.gate import Decision, LoadCheck, Predictions, Rules, decide

RULES = Rules(
    "accuracy", min_margin=0.0, floor=0.5, recall_tolerance=0.05, calibration_tolerance=0.3, class_changes="refuse"
)
CLASSES = ("ankle", "bag", "coat")
SOUND = LoadCheck(images=32, largest_difference=1e-7, tolerance=1e-4)


def labels(each: int = 400, classes: tuple[str, ...] = CLASSES) -> list[str]:
    return [name for name in classes for _ in range(each)]


def predictions(
    truth: list[str],
    wrong: dict[str, int] | None = None,
    *,
    model: str = "digits version 2",
    classes: tuple[str, ...] = CLASSES,
    confidence: float = 0.9,
    start: int = 0,
    **changes: Any,
) -> Predictions:
    """Answers that are right but for the given number of images of each class, from the ``start``-th on."""
    answers = [classes.index(name) if name in classes else 0 for name in truth]
    for name, count in (wrong or {}).items():
        places = [place for place, label in enumerate(truth) if label == name][start : start + count]
        for place in places:
            answers[place] = (answers[place] + 1) % len(classes)
    rest = (1 - confidence) / (len(classes) - 1)
    probabilities = np.full((len(truth), len(classes)), rest, dtype=np.float32)
    probabilities[np.arange(len(truth)), answers] = confidence
    made = Predictions(model, "a" * 64, truth, classes, probabilities, np.zeros(len(truth), dtype=np.bool_))
    return replace(made, **changes)


def champion(truth: list[str], wrong: dict[str, int] | None = None, **changes: Any) -> Predictions:
    return predictions(truth, wrong, **({"model": "digits version 1"} | changes))


def seen(truth: list[str], *places: int) -> NDArray[np.bool_]:
    marks = np.zeros(len(truth), dtype=np.bool_)
    marks[list(places)] = True
    return marks


def evidence_of(decision: Decision) -> gate.Evidence:
    assert decision.evidence is not None
    return decision.evidence


def test_a_shown_lead_is_promoted_and_the_summary_says_by_how_much() -> None:
    truth = labels()
    decision = decide(predictions(truth, {"bag": 30}), champion(truth, {"bag": 90}), RULES, SOUND)
    assert decision.promoted
    assert decision.summary().splitlines() == [
        "promote: digits version 2 takes the place of digits version 1: accuracy +0.0500 "
        "(95 % interval +0.0383 to +0.0625), above promote.min_margin 0",
        "  accuracy 0.9750 (0.9658–0.9833) against 0.9250 (0.9100–0.9392) on 1,200 test images: 60 won, 0 lost, "
        "McNemar's exact p 1.7e-18",
        "  expected calibration error 0.0750 (0.0661–0.0833) against 0.0250 (0.0098–0.0400)",
    ]


def test_a_lead_within_chance_holds_the_champion() -> None:
    truth = labels()
    decision = decide(predictions(truth, {"bag": 30, "coat": 8}), champion(truth, {"bag": 40}), RULES)
    assert decision.verdict == "hold"
    assert decision.reasons[0] == (
        "digits version 1 stays the champion: accuracy +0.0017 (95 % interval -0.0050 to +0.0083), "
        "not above promote.min_margin 0"
    )


def test_a_lead_of_four_images_holds_though_its_bootstrap_interval_lies_above_zero() -> None:
    truth = labels()
    decision = decide(predictions(truth), champion(truth, {"bag": 4}), RULES)
    difference = evidence_of(decision).difference
    assert difference is not None
    assert difference.metric.low > 0
    assert decision.reasons[0] == (
        "digits version 1 stays the champion: accuracy +0.0033 (95 % interval +0.0008 to +0.0067), but the two "
        "differ on too few images: 12.5% of random swaps of their answers give as much"
    )
    assert decide(predictions(truth), champion(truth, {"bag": 6}), RULES).promoted


def test_an_interval_that_ends_exactly_at_the_margin_is_held() -> None:
    truth = labels()
    ours, theirs = predictions(truth, {"bag": 30}), champion(truth, {"bag": 90})
    difference = evidence_of(decide(ours, theirs, RULES)).difference
    assert difference is not None
    assert decide(ours, theirs, replace(RULES, min_margin=difference.metric.low)).verdict == "hold"
    assert decide(ours, theirs, replace(RULES, min_margin=difference.metric.low - 1e-9)).promoted


def test_a_challenger_that_is_shown_to_be_worse_is_rejected() -> None:
    truth = labels()
    decision = decide(predictions(truth, {"bag": 15, "coat": 15}), champion(truth), RULES)
    assert decision.verdict == "reject"
    assert decision.reasons[0] == (
        "digits version 2 is worse than digits version 1: accuracy -0.0250 (95 % interval -0.0342 to -0.0167), "
        "wholly below 0"
    )


def test_a_first_model_needs_the_floors_alone() -> None:
    truth = labels()
    decision = decide(predictions(truth, {"bag": 90}), None, RULES, SOUND)
    assert decision.summary() == (
        "promote: digits version 2 is the first champion: accuracy 0.9250 (0.9100–0.9392), at least promote.floor 0.5 "
        "and more than the 0.3333 of always answering 'ankle'"
    )
    evidence = evidence_of(decision)
    assert (evidence.champion, evidence.difference, evidence.underpowered) == (None, None, ())
    assert [row.recall.value for row in evidence.classes] == [1.0, 0.775, 1.0]


@pytest.mark.parametrize("rival", [None, "champion"])
def test_below_the_floor_every_model_is_rejected_the_first_and_later_ones(rival: str | None) -> None:
    truth = labels()
    theirs = champion(truth, {"bag": 400, "coat": 400}) if rival else None
    decision = decide(predictions(truth, {"bag": 130, "coat": 130}), theirs, replace(RULES, floor=0.8))
    assert decision.verdict == "reject"
    assert decision.reasons[0].startswith("digits version 2 is below the floor: accuracy 0.7833 (0.7600–0.8067), less")
    exactly = replace(RULES, floor=940 / 1200)
    assert decide(predictions(truth, {"bag": 130, "coat": 130}), theirs, exactly).promoted


def test_who_only_equals_the_commonest_class_is_rejected() -> None:
    truth = ["ankle"] * 60 + ["bag"] * 30 + ["coat"] * 10
    constant = predictions(["ankle"] * 100, labels=truth)
    decision = decide(constant, None, RULES)
    assert decision.summary() == (
        "reject: digits version 2 does not beat the commonest class: accuracy 0.6000 (0.5000–0.6900), not more than "
        "the 0.6000 of always answering 'ankle'"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_answer_that_is_no_number_rejects_a_challenger_though_it_leads(value: float) -> None:
    truth = labels()
    broken = predictions(truth)
    broken.probabilities[7, 1] = value
    decision = decide(broken, champion(truth, {"bag": 90}), RULES)
    assert decision.verdict == "reject"
    assert decision.reasons[0] == (
        "digits version 2 answers NaN or infinity for 1 of 1,200 test images. Train again with a lower `train.lr`"
    )
    assert evidence_of(decision).challenger.correct == 1199


def test_a_challengers_broken_answer_counts_on_an_image_that_is_left_out_as_well() -> None:
    truth = labels()
    broken = predictions(truth, seen=seen(truth, 7))
    broken.probabilities[7] = np.nan
    assert decide(broken, None, RULES).verdict == "reject"


def test_a_champions_answers_that_are_no_numbers_count_as_wrong_and_are_reported() -> None:
    truth = labels()
    broken = champion(truth)
    broken.probabilities[:100] = np.nan
    decision = decide(predictions(truth), broken, RULES)
    assert decision.promoted
    assert decision.reasons[3] == (
        "digits version 1 answers NaN or infinity for 100 of 1,200 test images, which count as wrong"
    )
    broken.probabilities[:] = np.nan
    evidence = evidence_of(decide(predictions(truth), broken, RULES))
    assert evidence.champion is not None
    assert (evidence.champion.correct, evidence.champion.calibration_error) == (0, None)


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (
            LoadCheck(32, 0.25, 1e-4),
            "answers otherwise in a fresh process: 0.25 from the logged probabilities of 32 golden images, 0.0001",
        ),
        (LoadCheck(32, float("nan"), 1e-4), "answers otherwise in a fresh process: nan from the logged probabilities"),
        (LoadCheck(0, 0.0, 1e-4, "the bundle is damaged"), "fails in a fresh process: the bundle is damaged"),
        (LoadCheck(0, 0.0, 1e-4), "was asked for no golden image in a fresh process; expected some. Run `dvc repro"),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_model_that_does_not_load_and_answer_again_is_rejected(check: LoadCheck, words: str, is_first: bool) -> None:
    truth = labels()
    decision = decide(predictions(truth), None if is_first else champion(truth, {"bag": 90}), RULES, check)
    assert decision.verdict == "reject"
    assert decision.reasons[0].startswith(f"digits version 2 {words}")
    json.dumps(decision.as_json(), allow_nan=False)


def test_a_difference_of_exactly_the_tolerance_loads() -> None:
    assert LoadCheck(32, 1e-4, 1e-4).passed


def test_a_class_whose_recall_fell_rejects_a_challenger_that_is_better_altogether() -> None:
    truth = labels()
    decision = decide(predictions(truth, {"coat": 30}), champion(truth, {"bag": 200}), RULES)
    assert decision.verdict == "reject"
    assert decision.reasons[0] == (
        "recall of 'coat' fell from 1.0000 to 0.9250, more than promote.recall_tolerance 0.05 "
        "(400 images, 30 lost and 0 won, p 2.8e-09 by Holm)"
    )
    assert evidence_of(decision).fell == ("coat",)


def test_a_fall_of_exactly_the_tolerance_blocks_nothing() -> None:
    truth = labels()
    decision = decide(predictions(truth, {"coat": 20}), champion(truth, {"bag": 200}), RULES)
    assert decision.promoted
    assert decide(predictions(truth, {"coat": 21}), champion(truth, {"bag": 200}), RULES).verdict == "reject"


def test_a_fall_that_churn_explains_blocks_nothing_and_the_class_is_called_blunt() -> None:
    truth = labels()
    # 120 of 400 lost and 98 won: 5.5 points, p 0.08.
    ours, theirs = predictions(truth, {"coat": 120}), champion(truth, {"coat": 98, "bag": 250}, start=200)
    decision = decide(ours, theirs, RULES)
    assert decision.promoted
    assert decision.reasons[-1] == (
        "so many answers changed that a fall in recall of 0.05 may go unseen in: 'coat' (400)"
    )


def test_a_class_with_too_few_images_is_named_and_never_blocks() -> None:
    truth = labels(400, ("ankle", "bag")) + ["coat"] * 30
    decision = decide(predictions(truth, {"coat": 30}), champion(truth, {"bag": 200}), RULES)
    assert decision.promoted
    evidence = evidence_of(decision)
    assert evidence.underpowered == ("coat",)
    test = evidence.classes[2].against
    assert test is not None
    assert (test.lost, test.won, test.power < 0.01, test.p_holm < 1e-8) == (30, 0, True, True)
    assert decision.reasons[-1] == (
        "too few images to show a fall in recall of 0.05, so these classes block nothing: 'coat' (30)"
    )


def test_a_class_without_a_test_image_is_named_with_the_small_ones() -> None:
    truth = labels(400, ("ankle", "bag"))
    evidence = evidence_of(decide(predictions(truth), champion(truth, {"bag": 90}), RULES))
    assert evidence.underpowered == ("coat",)
    assert evidence.classes[2].images == 0


def test_holm_allows_for_the_number_of_classes() -> None:
    names = tuple(f"class {place:02}" for place in range(12))
    truth = labels(400, names)
    # 42 lost, 21 won: 5.25 points; p 0.0057 alone, 0.069 among twelve classes.
    ours = predictions(truth, {names[0]: 42}, classes=names)
    theirs = champion(truth, {names[0]: 21, names[1]: 390, names[2]: 390}, classes=names, start=100)
    decision = decide(ours, theirs, RULES)
    test = evidence_of(decision).classes[0].against
    assert test is not None
    assert (test.lost, test.won) == (42, 21)
    assert test.p < 0.05 / 8 < 0.05 < test.p_holm
    assert decision.promoted


def test_a_challenger_that_is_surer_than_it_should_be_is_rejected() -> None:
    truth = labels()
    sure, modest = predictions(truth, {"bag": 120}, confidence=0.999), champion(truth, {"bag": 180}, confidence=0.85)
    decision = decide(sure, modest, replace(RULES, calibration_tolerance=0.05))
    assert decision.verdict == "reject"
    assert decision.reasons[0] == (
        "digits version 2 is worse calibrated: expected calibration error +0.0990 (95 % interval +0.0919 to +0.1331), "
        "more than promote.calibration_tolerance 0.05"
    )
    assert decide(sure, modest, replace(RULES, calibration_tolerance=0.12)).promoted


def test_several_faults_are_all_named_the_gravest_first() -> None:
    truth = labels()
    broken = predictions(truth, {"bag": 400, "coat": 300})
    broken.probabilities[0] = np.nan
    starts = [reason.split(" (")[0] for reason in decide(broken, champion(truth), RULES, LoadCheck(32, 1, 0)).reasons]
    assert starts[0].startswith("digits version 2 answers NaN")
    assert starts[1].startswith("digits version 2 answers otherwise in a fresh process")
    assert starts[2].startswith("digits version 2 is below the floor")
    assert starts[3].startswith("digits version 2 is worse than digits version 1")
    assert [start.split(" fell")[0] for start in starts[4:6]] == ["recall of 'bag'", "recall of 'coat'"]


def test_images_that_either_model_learned_from_are_left_out_for_both_and_counted() -> None:
    truth = labels()
    places = [place for place, name in enumerate(truth) if name == "bag"][:60]
    # Without the 60 images on which it was trained the challenger is not ahead.
    ours = predictions(truth, seen=seen(truth, *places))
    theirs = champion(truth, {"bag": 60}, seen=seen(truth, *places[:10], 0, 1))
    decision = decide(ours, theirs, RULES)
    assert decision.verdict == "hold"
    assert evidence_of(decision).excluded.seen == 62
    assert (
        "62 of 1,200 test images are left out: digits version 2 trained or validated on 60, digits version 1 on 12"
        in decision.reasons
    )
    assert decide(replace(ours, seen=seen(truth)), replace(theirs, seen=seen(truth)), RULES).promoted


@pytest.mark.parametrize("metric", ["macro_f1", "macro_recall"])
def test_macro_metrics_decide_where_params_say_so(metric: Any) -> None:
    truth = labels(400, ("ankle", "bag")) + ["coat"] * 210
    # 40 images more of the large classes against 30 fewer of the small one.
    ours, theirs = predictions(truth, {"ankle": 40}), champion(truth, {"coat": 30})
    by_accuracy = decide(theirs, ours, replace(RULES, recall_tolerance=0.2))
    assert by_accuracy.verdict == "hold"
    decision = decide(ours, theirs, replace(RULES, metric=metric, recall_tolerance=0.2))
    difference = evidence_of(decision).difference
    assert difference is not None
    assert difference.metric.value > 0 > difference.accuracy.value
    better = decide(predictions(truth, {"coat": 5}), theirs, replace(RULES, metric=metric))
    assert better.promoted
    word = {"macro_f1": "macro F1", "macro_recall": "macro recall"}[metric]
    assert better.reasons[0].startswith(f"digits version 2 takes the place of digits version 1: {word} +0.0")


def test_a_class_of_four_images_does_not_decide_a_macro_average() -> None:
    truth = labels(400, ("ankle", "bag")) + ["coat"] * 4
    ours, theirs = predictions(truth), champion(truth, {"coat": 4})
    decision = decide(ours, theirs, replace(RULES, metric="macro_recall"))
    difference = evidence_of(decision).difference
    assert difference is not None
    assert difference.metric.low > 0.3
    assert decision.verdict == "hold"
    assert "differ on too few images" in decision.reasons[0]


def test_the_first_word_is_not_had_from_answers_to_another_split() -> None:
    truth = labels()
    with pytest.raises(DataError) as found:
        decide(predictions(truth), champion(truth, split_digest="b" * 64), RULES)
    assert str(found.value) == (
        "digits version 2 and digits version 1 answered different test splits (aaaaaaaaaaaa… and bbbbbbbbbbbb…); "
        "expected the same images and labels, in the same order. Score both on today's split."
    )
    with pytest.raises(DataError, match=r"answered different test splits"):
        decide(predictions(truth), champion(truth[::-1]), RULES)


def test_a_challenger_evaluated_on_another_split_is_sent_to_evaluate() -> None:
    truth = labels()
    with pytest.raises(DataError) as found:
        decide(predictions(truth, evaluated_on="c" * 64), None, RULES)
    assert str(found.value) == (
        "digits version 2: was evaluated on another test split (cccccccccccc…) than today's (aaaaaaaaaaaa…). "
        "Run `dvc repro evaluate`, then `calotype register`."
    )
    assert decide(predictions(truth, evaluated_on="a" * 64), None, RULES).promoted


def test_rules_are_those_of_params() -> None:
    section = PromoteParams(
        metric="macro_f1", min_margin=0.01, floor=0.6, recall_tolerance=0.1, calibration_tolerance=0.02,
        class_changes="accept", moved_alias="adopt",
    )  # fmt: skip
    assert Rules.of(section) == Rules("macro_f1", 0.01, 0.6, 0.1, 0.02, "accept")


def test_the_record_is_canonical_json_with_every_figure_and_a_digest() -> None:
    truth = labels()
    decision = decide(predictions(truth, {"bag": 30}), champion(truth, {"bag": 90}), RULES, SOUND)
    record = decision.as_json()
    text = json.dumps(record, sort_keys=True, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    assert json.loads(text) == record
    assert list(record) == sorted(record)
    evidence = record["evidence"]
    assert evidence["rules"]["recall_tolerance"] == 0.05
    assert evidence["load_check"]["images"] == 32
    assert evidence["difference"]["mcnemar_p"] == pytest.approx(2**-59)
    assert set(evidence["classes"][1]["against"]) >= {"p", "p_holm", "power", "power_with_churn", "won", "lost"}
    assert set(evidence["challenger"]["accuracy"]) == {"value", "low", "high"}
    again = decide(predictions(truth, {"bag": 30}), champion(truth, {"bag": 90}), RULES, SOUND)
    other = decide(predictions(truth, {"bag": 31}), champion(truth, {"bag": 90}), RULES, SOUND)
    assert decision.digest == again.digest != other.digest
    assert len(decision.digest) == 64


def test_more_than_twenty_classes_are_counted_in_the_line_and_all_named_in_the_evidence() -> None:
    names = tuple(f"class {place:02}" for place in range(25))
    truth = labels(30, names)
    decision = decide(predictions(truth, classes=names), champion(truth, {names[0]: 20}, classes=names), RULES)
    assert decision.reasons[-1].endswith("'class 19' (30) and 5 more")
    assert evidence_of(decision).underpowered == names
