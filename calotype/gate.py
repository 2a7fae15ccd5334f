"""The gate: may the challenger take the champion's place? A pure decision from answers to one test split."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Rules:
    """What a challenger must show."""

    min_margin: float


@dataclass(frozen=True)
class Answers:
    """One model's class probabilities (N, K) for the test images, and the name to call the model by."""

    model: str
    probabilities: Probabilities


@dataclass(frozen=True)
class Score:
    """How many of the test images a model got right; an answer that is no number counts as wrong."""

    model: str
    correct: int
    accuracy: float
    not_finite: int


@dataclass(frozen=True)
class Evidence:
    """The figures behind a decision, all from the same ``images`` test images."""

    images: int
    challenger: Score
    champion: Score | None
    majority_correct: int
    majority_accuracy: float
    min_margin: float


@dataclass(frozen=True)
class Decision:
    """What the gate says, why, and from which figures."""

    verdict: Literal["promote", "hold"]
    reasons: tuple[str, ...]
    evidence: Evidence | None = None

    @property
    def promoted(self) -> bool:
        return self.verdict == "promote"

    def summary(self) -> str:
        """Verdict and reasons, a line each."""
        return "\n".join([f"{self.verdict}: {self.reasons[0]}", *(f"  {reason}" for reason in self.reasons[1:])])

    def as_json(self) -> dict[str, Any]:
        """The decision as plain values, for the record."""
        return {"format_version": 1, **asdict(self), "reasons": list(self.reasons)}


def nothing_to_promote(reason: str) -> Decision:
    """Hold, for want of a challenger."""
    return Decision("hold", (f"there is nothing to promote: {reason}",))


def decide(challenger: Answers, champion: Answers | None, labels: Labels, rules: Rules) -> Decision:
    """Promote a challenger whose accuracy is higher than its rival's by more than the margin.

    Parameters
    ----------
    challenger
        Its probabilities (N, K).
    champion
        The champion's probabilities for the same images and classes, or None where there is no champion: then the
        rival is whoever always answers the commonest class.
    labels
        True classes (N,), as indices into the models' common class list.
    rules
        The margin by which the challenger must be ahead.

    Raises
    ------
    ValueError
        If the shapes do not belong together, or there is no image.
    """
    evidence = _weigh(challenger, champion, labels, rules)
    name, rival = challenger.model, champion.model if champion else None
    if evidence.challenger.not_finite:
        broken = f"{evidence.challenger.not_finite:,} of {evidence.images:,} test images"
        return Decision("hold", (f"{name} answers NaN for {broken}. Train again with a lower `train.lr`.",), evidence)
    ahead = evidence.challenger.correct - _rival_correct(evidence)
    # Exact: 0.29 * 100 as floats is less than 29, and would let 29 of 100 pass as more than the margin.
    if ahead > Fraction(repr(rules.min_margin)) * evidence.images:
        place = f"in place of {rival}" if rival else "the first"
        return Decision("promote", (f"{name} is the champion now, {place}", _comparison(evidence, "more")), evidence)
    stays = f"{rival} stays the champion" if rival else f"{name} does not become the first champion"
    return Decision("hold", (stays, _comparison(evidence, "not more")), evidence)


def _weigh(challenger: Answers, champion: Answers | None, labels: Labels, rules: Rules) -> Evidence:
    if labels.ndim != 1 or not len(labels):
        raise ValueError(f"labels have shape {labels.shape}; expected (N,) with at least one image")
    if champion and champion.probabilities.shape != challenger.probabilities.shape:
        shapes = f"{challenger.probabilities.shape} and {champion.probabilities.shape}"
        raise ValueError(f"the answers have shapes {shapes}; expected the same images and classes")
    majority = int(np.bincount(labels).max())
    return Evidence(
        images=len(labels),
        challenger=_score(challenger, labels),
        champion=_score(champion, labels) if champion else None,
        majority_correct=majority,
        majority_accuracy=majority / len(labels),
        min_margin=rules.min_margin,
    )


def _score(answers: Answers, labels: Labels) -> Score:
    if answers.probabilities.ndim != 2 or len(answers.probabilities) != len(labels):
        shape = answers.probabilities.shape
        raise ValueError(f"{answers.model}: answers of shape {shape}; expected ({len(labels)}, classes)")
    finite = np.isfinite(answers.probabilities).all(axis=1)
    correct = int(((answers.probabilities.argmax(axis=1) == labels) & finite).sum())
    return Score(answers.model, correct, correct / len(labels), int((~finite).sum()))


def _rival_correct(evidence: Evidence) -> int:
    return evidence.champion.correct if evidence.champion else evidence.majority_correct


def _comparison(evidence: Evidence, relation: str) -> str:
    rival = "the champion's" if evidence.champion else "the commonest class's"
    theirs = _rival_correct(evidence)
    ours, images = evidence.challenger.correct, evidence.images
    margin = f"{(ours - theirs) / images:+.4f}, {relation} than promote.min_margin {evidence.min_margin:g}"
    return (
        f"accuracy {ours / images:.4f} ({ours:,} of {images:,} test images) against {rival} "
        f"{theirs / images:.4f} ({theirs:,}): {margin}"
    )
