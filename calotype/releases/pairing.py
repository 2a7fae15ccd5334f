"""Which answers the gate compares: the same images and classes for both models, and none that either learned from.

What cannot be compared is refused here by name; what the answers are worth is weighed in `releases.evidence`.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from calotype.errors import DataError
from calotype.evaluation.resampling import Floats, Ints, Metric
from calotype.params import PromoteParams

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Rules:
    """What a challenger must show: the section `promote` of params.yaml, which says what each key means."""

    metric: Metric
    min_margin: float
    floor: float
    recall_tolerance: float
    calibration_tolerance: float
    class_changes: Literal["refuse", "accept"]

    @classmethod
    def of(cls, promote: PromoteParams) -> Rules:
        """The rules that params.yaml sets."""
        return cls(**{name: getattr(promote, name) for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class LoadCheck:
    """What came of loading the model in a fresh process and asking it for the golden images.

    Attributes
    ----------
    images
        How many golden images it answered.
    largest_difference
        Between a probability that it gave and the one that was logged.
    tolerance
        The largest difference allowed.
    problem
        Why it could not answer; empty if it did.
    """

    images: int
    largest_difference: float
    tolerance: float
    problem: str = ""

    @property
    def passed(self) -> bool:
        return not self.problem and self.images > 0 and self.largest_difference <= self.tolerance


@dataclass(frozen=True, eq=False)
class Predictions:
    """One model's answers to a test split.

    Attributes
    ----------
    model
        What to call it: ``digits version 2``.
    split_digest
        `split_digest.split_digest` of the images and labels that were scored.
    labels
        True class names, N of them.
    classes
        The model's class names, in the order of the columns.
    probabilities
        Shape (N, K).
    seen
        Which images the model trained or validated on, shape (N,).
    evaluated_on
        Digest of the split that its recorded evaluation scored; None where that does not matter.
    """

    model: str
    split_digest: str
    labels: Sequence[str] | NDArray[Any]
    classes: Sequence[str]
    probabilities: NDArray[Any]
    seen: Bools
    evaluated_on: str | None = None


@dataclass(frozen=True)
class Excluded:
    """Test images that are left out for both models.

    ``by_challenger`` and ``by_champion`` overlap in the images that both models trained or validated on; ``seen`` is
    how many there are altogether. ``other_classes`` were seen by neither, but only one of the models knows the class.
    """

    test_images: int
    seen: int
    by_challenger: int
    by_champion: int
    other_classes: int


@dataclass(frozen=True)
class ClassChanges:
    """Classes that only the challenger, or only the champion, knows."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Side:
    """One model of the two.

    Attributes
    ----------
    answers
        Class indices, shape (N,); -1 where the answer is not finite or lies outside the pair's classes.
    confidence
        The answer's probability, shape (N,).
    finite
        Which answers are finite, shape (N,).
    not_finite
        How many answers are not, of all test images.
    """

    model: str
    answers: Ints
    confidence: Floats
    finite: Bools
    not_finite: int


@dataclass(frozen=True, eq=False)
class Pair:
    """Two models, or a first one alone, on the same images of the same classes.

    Attributes
    ----------
    classes
        The names that both know, sorted.
    actual
        True class indices, shape (N,).
    own_classes, own_actual, own_answers
        The challenger on all its classes: the same, unless the classes changed.
    """

    split_digest: str
    classes: tuple[str, ...]
    actual: Ints
    challenger: Side
    champion: Side | None
    excluded: Excluded
    class_changes: ClassChanges
    own_classes: tuple[str, ...]
    own_actual: Ints
    own_answers: Ints


def pair(challenger: Predictions, champion: Predictions | None, rules: Rules) -> Pair:
    """Bring the models onto common ground.

    Raises
    ------
    DataError
        If the two answered different splits, know different classes that params.yaml does not accept, or learned from
        every test image; if the challenger's evaluation is of another split; or if labels are unknown to the models.
    """
    _check(challenger, champion)
    changes = _class_changes(challenger, champion, rules) if champion else ClassChanges()
    own = tuple(sorted(challenger.classes))
    shared = tuple(name for name in own if name not in changes.added)
    own_actual, actual = (_indices(challenger.labels, names) for names in (own, shared))
    seen = challenger.seen | champion.seen if champion else challenger.seen
    counted, compared = ~seen & (own_actual >= 0), ~seen & (actual >= 0)
    excluded = _excluded(challenger, champion, int((~seen & ~compared).sum()))
    if not compared.any():
        raise DataError(_nothing_left(challenger, champion, excluded))
    return Pair(
        split_digest=challenger.split_digest,
        classes=shared,
        actual=actual[compared],
        challenger=_side(challenger, shared, compared),
        champion=_side(champion, shared, compared) if champion else None,
        excluded=excluded,
        class_changes=changes,
        own_classes=own,
        own_actual=own_actual[counted],
        own_answers=_side(challenger, own, counted).answers,
    )


def describe_changes(changes: ClassChanges) -> str:
    """Say what was added, removed and, by the look of the names, renamed: ``adds 'crane' and lacks 'cat'``."""
    added, removed, renamed = list(changes.added), list(changes.removed), []
    for old in changes.removed:
        folded = {name.casefold(): name for name in added}
        close = difflib.get_close_matches(old.casefold(), list(folded), n=1, cutoff=0.7)
        if close:
            new = folded[close[0]]
            renamed.append(f"{old!r} to {new!r}")
            added.remove(new)
            removed.remove(old)
    parts = [f"seems to rename {', '.join(renamed)}"] if renamed else []
    parts += [f"adds {', '.join(map(repr, added))}"] if added else []
    parts += [f"lacks {', '.join(map(repr, removed))}"] if removed else []
    return " and ".join(parts)


def _indices(labels: Sequence[str] | NDArray[Any], classes: Sequence[str]) -> Ints:
    """Where each label stands among the classes; -1 outside."""
    places = {name: place for place, name in enumerate(classes)}
    return np.array([places.get(label, -1) for label in labels], dtype=np.int64)


def _side(predictions: Predictions, classes: Sequence[str], chosen: Bools) -> Side:
    finite = np.isfinite(predictions.probabilities).all(axis=1)
    probabilities, sound = predictions.probabilities[chosen], finite[chosen]
    columns = probabilities.argmax(axis=1)
    answers = np.where(sound, _indices(predictions.classes, classes)[columns], -1)
    confidence = np.take_along_axis(probabilities, columns[:, None], axis=1)[:, 0].astype(np.float64)
    return Side(predictions.model, answers, confidence, sound, int((~finite).sum()))


def _excluded(challenger: Predictions, champion: Predictions | None, other_classes: int) -> Excluded:
    by_champion = champion.seen if champion else np.zeros_like(challenger.seen)
    return Excluded(
        test_images=len(challenger.labels),
        seen=int((challenger.seen | by_champion).sum()),
        by_challenger=int(challenger.seen.sum()),
        by_champion=int(by_champion.sum()),
        other_classes=other_classes,
    )


def _check(challenger: Predictions, champion: Predictions | None) -> None:
    _check_form(challenger)
    _check_evaluation(challenger)
    if champion:
        _check_form(champion)
        _check_same_split(challenger, champion)
    known = {*challenger.classes, *(champion.classes if champion else ())}
    unknown = sorted(set(challenger.labels) - known)
    if unknown:
        raise DataError(
            f"{challenger.model}: does not know {', '.join(map(repr, unknown))}, which the test split holds. Run "
            "`dvc repro` to train on these data."
        )


def _check_form(predictions: Predictions) -> None:
    images, classes = len(predictions.labels), len(predictions.classes)
    if images == 0:
        raise DataError("the test split holds no images; expected some. Raise `split.test`, then run `dvc repro`.")
    if predictions.probabilities.shape != (images, classes) or predictions.seen.shape != (images,):
        found = f"probabilities of shape {predictions.probabilities.shape} and marks of shape {predictions.seen.shape}"
        raise DataError(f"{predictions.model}: {found}; expected {images:,} images and {classes} classes.")
    if len(set(predictions.classes)) != classes:
        raise DataError(f"{predictions.model}: names a class twice; expected {classes} different names.")


def _check_evaluation(challenger: Predictions) -> None:
    recorded = challenger.evaluated_on
    if recorded is not None and recorded != challenger.split_digest:
        raise DataError(
            f"{challenger.model}: was evaluated on another test split ({recorded[:12]}…) than today's "
            f"({challenger.split_digest[:12]}…). Run `dvc repro evaluate`, then `calotype register`."
        )


def _check_same_split(challenger: Predictions, champion: Predictions) -> None:
    is_same = challenger.split_digest == champion.split_digest
    if is_same and list(challenger.labels) == list(champion.labels):
        return
    raise DataError(
        f"{challenger.model} and {champion.model} answered different test splits ({challenger.split_digest[:12]}… and "
        f"{champion.split_digest[:12]}…); expected the same images and labels, in the same order. Score both on "
        "today's split."
    )


def _class_changes(challenger: Predictions, champion: Predictions, rules: Rules) -> ClassChanges:
    ours, theirs = set(challenger.classes), set(champion.classes)
    changes = ClassChanges(tuple(sorted(ours - theirs)), tuple(sorted(theirs - ours)))
    if changes == ClassChanges() or (rules.class_changes == "accept" and ours & theirs):
        return changes
    difference = describe_changes(changes)
    if rules.class_changes == "accept":
        raise DataError(
            f"{challenger.model} shares no class with the champion, {champion.model}: it {difference}. Set another "
            "`name` in params.yaml, then train."
        )
    raise DataError(
        f"{challenger.model} knows other classes than the champion, {champion.model}: it {difference}. Expected the "
        "same ones. To compare on the classes that both know, set `promote.class_changes: accept` in params.yaml."
    )


def _nothing_left(challenger: Predictions, champion: Predictions | None, excluded: Excluded) -> str:
    names = f"{challenger.model} or {champion.model}" if champion else challenger.model
    others = f", and only one of them knows the classes of the other {excluded.other_classes:,}"
    return (
        f"no test image is left to compare on: {names} trained or validated on {excluded.seen:,} of "
        f"{excluded.test_images:,}{others if excluded.other_classes else ''}. Add images, then run `dvc repro`."
    )
