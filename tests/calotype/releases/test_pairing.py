"""Only what can be compared is compared: equal images, equal classes, and names for what stands in the way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.data.split_digest import split_digest
from calotype.errors import DataError
from calotype.releases.gate import Predictions, Rules, decide
from calotype.releases.pairing import ClassChanges, describe_changes, pair

REFUSE = Rules("accuracy", 0.0, 0.0, 0.9, 0.9, "refuse")
ACCEPT = replace(REFUSE, class_changes="accept")


def predictions(
    truth: list[str], answers: list[str], classes: tuple[str, ...], model: str = "digits version 2", **changes: Any
) -> Predictions:
    """Certain answers, in the model's own class order."""
    probabilities = np.eye(len(classes))[[classes.index(name) for name in answers]]
    seen = np.zeros(len(truth), dtype=np.bool_)
    return replace(Predictions(model, "a" * 64, truth, classes, probabilities, seen), **changes)


def old(truth: list[str], answers: list[str], classes: tuple[str, ...], **changes: Any) -> Predictions:
    return predictions(truth, answers, classes, "digits version 1", **changes)


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (("cat", "crane"), ("cat", "dog"), "it adds 'crane' and lacks 'dog'"),
        (("cat", "dog", "elk"), ("cat", "dog"), "it adds 'elk'"),
        (("cat",), ("cat", "dog"), "it lacks 'dog'"),
        (("cat", "T-Shirt"), ("cat", "t_shirt"), "it seems to rename 't_shirt' to 'T-Shirt'"),
        (
            ("Dog", "cat", "elk"),
            ("cat", "dog", "owl"),
            "it seems to rename 'dog' to 'Dog' and adds 'elk' and lacks 'owl'",
        ),
    ],
)
def test_other_classes_than_the_champions_are_refused_by_name(
    ours: tuple[str, ...], theirs: tuple[str, ...], words: str
) -> None:
    truth = ["cat"] * 4
    with pytest.raises(DataError) as found:
        pair(predictions(truth, truth, ours), old(truth, truth, theirs), REFUSE)
    assert str(found.value) == (
        f"digits version 2 knows other classes than the champion, digits version 1: {words}. Expected the same ones. "
        "To compare on the classes that both know, set `promote.class_changes: accept` in params.yaml."
    )


def test_accepted_changes_compare_shared_classes_and_an_answer_outside_them_is_wrong() -> None:
    truth = ["cat", "cat", "dog", "dog", "elk", "owl"]
    ours = predictions(truth, ["cat", "elk", "dog", "dog", "elk", "cat"], ("elk", "dog", "cat"))
    theirs = old(truth, ["cat", "cat", "owl", "dog", "owl", "owl"], ("cat", "dog", "owl"))
    found = pair(ours, theirs, ACCEPT)
    assert found.class_changes == ClassChanges(added=("elk",), removed=("owl",))
    assert found.classes == ("cat", "dog")
    assert found.actual.tolist() == [0, 0, 1, 1]
    assert found.challenger.answers.tolist() == [0, -1, 1, 1]
    assert found.champion is not None
    assert found.champion.answers.tolist() == [0, 0, -1, 1]
    assert found.excluded.other_classes == 2
    # Floor and majority are held against all that the challenger must know.
    assert found.own_classes == ("cat", "dog", "elk")
    assert found.own_actual.tolist() == [0, 0, 1, 1, 2]
    assert found.own_answers.tolist() == [0, 2, 1, 1, 2]


def test_an_accepted_change_is_told_in_the_decision() -> None:
    truth = ["cat", "dog", "elk"] * 200
    ours = predictions(truth, truth, ("cat", "dog", "elk"))
    theirs = old(truth, ["cat", "cat", "cat"] * 200, ("cat", "dog"))
    decision = decide(ours, theirs, ACCEPT)
    assert decision.promoted
    assert "classes changed: digits version 2 adds 'elk'; 200 images of other classes are left out" in decision.reasons
    fails_on_the_new = predictions(truth, ["cat", "dog", "dog"] * 200, ("cat", "dog", "elk"))
    assert decide(fails_on_the_new, theirs, replace(ACCEPT, floor=0.8)).verdict == "reject"


def test_models_without_a_common_class_are_refused_though_changes_are_accepted() -> None:
    truth = ["cat"]
    with pytest.raises(
        DataError, match=r"shares no class with the champion, digits version 1: it adds 'cat' and lacks"
    ):
        pair(predictions(truth, truth, ("cat",)), old(truth, ["owl"], ("owl",)), ACCEPT)


@pytest.mark.parametrize("with_champion", [True, False])
def test_a_label_that_no_model_knows_is_named(with_champion: bool) -> None:
    truth = ["cat", "gnu"]
    theirs = old(truth, ["cat", "cat"], ("cat", "dog")) if with_champion else None
    with pytest.raises(DataError) as found:
        pair(predictions(truth, ["cat", "cat"], ("cat", "dog")), theirs, REFUSE)
    assert str(found.value) == (
        "digits version 2: does not know 'gnu', which the test split holds. Run `dvc repro` to train on these data."
    )


def test_the_order_of_a_models_classes_is_its_own_affair() -> None:
    truth = ["cat", "dog", "dog"]
    found = pair(predictions(truth, truth, ("dog", "cat")), old(truth, truth, ("cat", "dog")), REFUSE)
    assert found.champion is not None
    assert found.challenger.answers.tolist() == found.champion.answers.tolist() == found.actual.tolist() == [0, 1, 1]


def test_no_image_left_is_an_error_that_says_who_saw_them() -> None:
    truth = ["cat", "dog", "dog"]
    ours = predictions(truth, truth, ("cat", "dog"), seen=np.array([True, True, False]))
    theirs = old(truth, truth, ("cat", "dog"), seen=np.array([False, True, True]))
    with pytest.raises(DataError) as found:
        pair(ours, theirs, REFUSE)
    assert str(found.value) == (
        "no test image is left to compare on: digits version 2 or digits version 1 trained or validated on 3 of 3. "
        "Add images, then run `dvc repro`."
    )
    assert pair(ours, None, REFUSE).excluded.seen == 2
    with pytest.raises(DataError, match=r"digits version 2 trained or validated on 3 of 3\."):
        pair(replace(ours, seen=np.ones(3, dtype=np.bool_)), None, REFUSE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"probabilities": np.ones((3, 3))}, r"probabilities of shape \(3, 3\) .*; expected 3 images and 2 classes"),
        ({"seen": np.zeros(2, dtype=np.bool_)}, r"marks of shape \(2,\); expected 3 images"),
        ({"classes": ("cat", "cat")}, r"names a class twice; expected 2 different names"),
        (
            {"labels": [], "probabilities": np.ones((0, 2)), "seen": np.zeros(0, dtype=np.bool_)},
            r"^the test split holds no images; expected some\. Raise `split\.test`",
        ),
    ],
)
def test_predictions_that_do_not_belong_together_are_refused(change: dict[str, Any], words: str) -> None:
    truth = ["cat", "dog", "dog"]
    with pytest.raises(DataError, match=words):
        pair(replace(predictions(truth, truth, ("cat", "dog")), **change), None, REFUSE)


def test_renames_are_guessed_once_each() -> None:
    found = describe_changes(ClassChanges(added=("ankle boots", "sneakers"), removed=("ankle boot", "sneaker")))
    assert found == "seems to rename 'ankle boot' to 'ankle boots', 'sneaker' to 'sneakers'"


@given(rows=st.dictionaries(st.text("0123456789abcdef", min_size=4, max_size=8), st.sampled_from("xyz"), min_size=1))
def test_the_digest_is_of_the_set_of_images_and_labels(rows: dict[str, str]) -> None:
    ids, names = list(rows), list(rows.values())
    digest = split_digest(ids, names)
    assert split_digest(ids[::-1], names[::-1]) == digest
    assert split_digest([*ids, "another"], [*names, "x"]) != digest
    assert split_digest(ids, ["w", *names[1:]]) != digest


def test_the_digest_stays_what_it_was() -> None:
    # Versions carry it as a tag: another definition would call every evaluation one of another split.
    assert split_digest(["b1", "a0"], ["cat", "dog"]) == (
        "a83e2f5a8ce400eebe4962891711a3370a36736d635d79beb19714c252daad5e"
    )
