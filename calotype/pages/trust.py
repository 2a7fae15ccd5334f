"""What a reader may rely on, in sentences: each with the figure that says so and the doubt that remains. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from calotype.evaluation.findings import Findings
from calotype.evaluation.metrics import Estimate
from calotype.evaluation.robustness import Robustness
from calotype.evaluation.slices import Slicing

STEADY = 0.02
"""A change that costs less than this is called harmless."""


@dataclass(frozen=True)
class Statement:
    """A subject, what holds for it, and whether that is good news."""

    subject: str
    text: str
    tone: Literal["good", "bad", "open"]


def statements(found: Findings) -> list[Statement]:
    """The statements in the order of the page."""
    made = [_of_accuracy(found), _of_classes(found), _of_confidence(found), _of_abstention(found)]
    made.append(_of_slices(found.slicing))
    return made + ([_of_changes(found.robustness)] if found.robustness else [])


def _of_accuracy(found: Findings) -> Statement:
    accuracy, majority = found.evaluation.headline["accuracy"], found.evaluation.majority_class_accuracy
    text = f"Right for {accuracy.percent} of {found.evaluation.images:,} test images it never trained on"
    if accuracy.low > majority:
        return Statement("Accuracy", f"{text}; always naming the commonest class: {majority * 100:.1f} %.", "good")
    return Statement("Accuracy", f"{text}: not shown to beat the commonest class, {majority * 100:.1f} %.", "bad")


def _of_classes(found: Findings) -> Statement:
    scores = [score for score in found.evaluation.per_class if score.support]
    weakest = min(scores, key=lambda score: (score.recall.value, -score.support, score.name))
    text = f"Weakest class: {weakest.name}, {weakest.recall.percent} of its {weakest.support:,} images found."
    accuracy = found.evaluation.headline["accuracy"]
    return Statement("Classes", text, "bad" if weakest.recall.high < accuracy.low else "open")


def _of_confidence(found: Findings) -> Statement:
    error, chance = found.calibration.ece, found.calibration.chance
    text = f"Confidence and accuracy differ by {error.percent} on average"
    if error.value <= chance:
        explained = f"chance alone explains up to {chance * 100:.1f} % on so few images"
        return Statement("Confidence", f"{text}; {explained}: a stated 90 % can be read as 90 %.", "good")
    return Statement("Confidence", f"{text}, more than the {chance * 100:.1f} % that chance explains.", "bad")


def _of_abstention(found: Findings) -> Statement:
    given = found.abstention
    target = f"{given.target * 100:g} %"
    if not given.is_reached:
        return Statement("Abstention", f"No confidence kept {target} on validation: every answer is withheld.", "bad")
    if given.precision is None:
        return Statement("Abstention", "No test image reaches the threshold: every answer is withheld.", "bad")
    text = f"Answers {given.coverage.percent} of images; {given.precision.percent} of these are right, "
    if given.precision.high < given.target:
        return Statement("Abstention", f"{text}below the promised {target}.", "bad")
    kept = given.precision.low >= given.target
    return Statement("Abstention", f"{text}{target} promised.", "good" if kept else "open")


def _of_slices(slicing: Slicing) -> Statement:
    parts = [(dimension.name, part) for dimension in slicing.dimensions for part in dimension.slices]
    worse = [(name, part) for name, part in parts if part.stands_out and part.difference.value < 0]
    tried = sum(part.is_enough for _, part in parts)
    if not tried:
        return Statement(
            "Slices", f"No slice has the {slicing.fewest:,} images that an honest statement takes.", "open"
        )
    if not worse:
        return Statement("Slices", f"None of {tried:,} slices is shown to be worse than the rest.", "good")
    name, part = min(worse, key=lambda found: found[1].difference.value)
    points = "{:+.1f} points ({:+.1f} to {:+.1f})".format(*(100 * value for value in _three(part.difference)))
    more = f"; {len(worse)} of {tried} slices are worse" if len(worse) > 1 else f"; the only one of {tried} slices"
    return Statement("Slices", f"Worse on {name} {part.value}: {points} against the rest{more}.", "bad")


def _of_changes(found: Robustness) -> Statement:
    worst = max(found.outcomes, key=lambda outcome: outcome.drop.value)
    if worst.drop.value < STEADY:
        return Statement("Changes", "No change that was tried costs two points of accuracy.", "good")
    # Mirrored digits are no digits: what a flip costs is a fact about the classes first.
    mild = [outcomes[0] for kind, outcomes in found.by_kind().items() if kind != "flip"]
    costly = [one.words for one in mild if one.drop.low > STEADY]
    weak = f"Already {_list(costly)} costs more than two points; " if costly else "Weak changes cost little; "
    drop = "{:.1f} points ({:.1f}–{:.1f})".format(*(100 * value for value in _three(worst.drop)))
    text = f"{weak}most is lost by {worst.words}: {drop}."
    return Statement("Changes", text, "bad" if costly else "open")


def _three(figure: Estimate) -> tuple[float, float, float]:
    return figure.value, figure.low, figure.high


def _list(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
