"""The gate: may the challenger take the champion's place? A pure decision from test predictions and rules.

``pairing`` finds the images on which the models can be compared, ``evidence`` computes every figure, and here the
rules of params.yaml turn them into a verdict:

- *reject*: the challenger breaks something that no lead makes up for;
- *promote*: nothing is broken, and a lead is shown: its interval lies above the margin, and chance does not explain it;
- *hold*: nothing is broken, and no lead is shown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from calotype.data.split_digest import split_digest
from calotype.releases import canonical
from calotype.releases.evidence import ClassFigures, Difference, Evidence, weigh
from calotype.releases.pairing import LoadCheck, Predictions, Rules, describe_changes, pair

__all__ = [
    "Decision",
    "Evidence",
    "LoadCheck",
    "Predictions",
    "Rules",
    "decide",
    "split_digest",
]

Verdict = Literal["promote", "hold", "reject"]
FORMAT_VERSION = 2
MOST_NAMES = 20
"""Classes that a line names; the evidence names all."""


@dataclass(frozen=True)
class Decision:
    """What the gate says, why, the deciding reason first, and from which figures."""

    verdict: Verdict
    reasons: tuple[str, ...]
    evidence: Evidence | None = None

    @property
    def promoted(self) -> bool:
        return self.verdict == "promote"

    def summary(self) -> str:
        """Verdict and reasons, a line each."""
        return "\n".join([f"{self.verdict}: {self.reasons[0]}", *(f"  {reason}" for reason in self.reasons[1:])])

    def as_json(self) -> dict[str, Any]:
        """The decision as plain values, keys sorted; null where a figure is no number."""
        values = _plain({"format_version": FORMAT_VERSION, **asdict(self)})
        plain: dict[str, Any] = json.loads(canonical.encoded(values))
        return plain

    @property
    def digest(self) -> str:
        """SHA-256 of the decision, evidence included, in hexadecimal."""
        return canonical.digest(self.as_json())


def decide(
    challenger: Predictions, champion: Predictions | None, rules: Rules, load_check: LoadCheck | None = None
) -> Decision:
    """Weigh the challenger against the champion, or against the floors alone where there is none.

    Parameters
    ----------
    challenger, champion
        Their answers to today's test split, both to the same images in the same order.
    rules
        What params.yaml asks of a challenger.
    load_check
        What came of loading the challenger in a fresh process; None if that was not tried.

    Raises
    ------
    DataError
        If the answers cannot be compared: see `pairing.pair`.
    """
    evidence = weigh(pair(challenger, champion, rules), rules, load_check)
    faults = list(_faults(evidence))
    facts = list(_facts(evidence))
    if faults:
        return Decision("reject", (*faults, *facts), evidence)
    verdict, reason = _lead(evidence)
    return Decision(verdict, (reason, *facts), evidence)


def _lead(evidence: Evidence) -> tuple[Verdict, str]:
    name, metric, rules = evidence.challenger.model, _word(evidence.rules.metric), evidence.rules
    if evidence.champion is None or evidence.difference is None:
        reached = f"{metric} {evidence.absolute.plain}, at least promote.floor {rules.floor:g}"
        beaten = f"more than the {evidence.majority.value:.4f} of always answering {evidence.majority.label!r}"
        return "promote", f"{name} is the first champion: {reached} and {beaten}"
    rival, difference = evidence.champion.model, evidence.difference
    ahead = f"{metric} {difference.metric.signed}"
    if not difference.metric.low > rules.min_margin:
        return "hold", f"{rival} stays the champion: {ahead}, not above promote.min_margin {rules.min_margin:g}"
    if difference.swap_p > evidence.alpha:
        chance = f"{difference.swap_p:.1%} of random swaps of their answers give as much"
        return "hold", f"{rival} stays the champion: {ahead}, but the two differ on too few images: {chance}"
    return "promote", f"{name} takes the place of {rival}: {ahead}, above promote.min_margin {rules.min_margin:g}"


def _faults(evidence: Evidence) -> Iterator[str]:
    """What no lead makes up for, the gravest first."""
    name, rules, metric = evidence.challenger.model, evidence.rules, _word(evidence.rules.metric)
    reached = evidence.absolute
    if evidence.challenger.not_finite:
        broken = f"{evidence.challenger.not_finite:,} of {evidence.excluded.test_images:,} test images"
        yield f"{name} answers NaN or infinity for {broken}. Train again with a lower `train.lr`"
    if evidence.load_check is not None and not evidence.load_check.passed:
        yield f"{name} {_load_failure(evidence.load_check)}"
    if not reached.value > evidence.majority.value:
        constant = f"the {evidence.majority.value:.4f} of always answering {evidence.majority.label!r}"
        yield f"{name} does not beat the commonest class: {metric} {reached.plain}, not more than {constant}"
    if reached.value < rules.floor:
        yield f"{name} is below the floor: {metric} {reached.plain}, less than promote.floor {rules.floor:g}"
    if evidence.champion is None or evidence.difference is None:
        return
    difference = evidence.difference
    if difference.metric.high < 0:
        yield f"{name} is worse than {evidence.champion.model}: {metric} {difference.metric.signed}, wholly below 0"
    yield from (_fall(row, rules) for row in evidence.classes if row.name in evidence.fell)
    rise = difference.calibration_error
    if rise is not None and rise.value > rules.calibration_tolerance:
        limit = f"more than promote.calibration_tolerance {rules.calibration_tolerance:g}"
        yield f"{name} is worse calibrated: expected calibration error {rise.signed}, {limit}"


def _load_failure(check: LoadCheck) -> str:
    if check.problem:
        return f"fails in a fresh process: {check.problem}"
    if not check.images:
        return "was asked for no golden image in a fresh process; expected some. Run `dvc repro evaluate`"
    return (
        f"answers otherwise in a fresh process: {check.largest_difference:.2g} from the logged probabilities of "
        f"{check.images} golden images, {check.tolerance:.2g} allowed"
    )


def _fall(row: ClassFigures, rules: Rules) -> str:
    test = row.against
    assert test is not None
    return (
        f"recall of {row.name!r} fell from {test.champion.value:.4f} to {row.recall.value:.4f}, more than "
        f"promote.recall_tolerance {rules.recall_tolerance:g} ({row.images:,} images, {test.lost:,} lost and "
        f"{test.won:,} won, p {test.p_holm:.2g} by Holm)"
    )


def _facts(evidence: Evidence) -> Iterator[str]:
    """What else a person wants to know, whatever the verdict."""
    if evidence.difference is not None and evidence.champion is not None:
        yield from _comparison(evidence, evidence.difference)
        if evidence.champion.not_finite:
            broken = f"{evidence.champion.not_finite:,} of {evidence.excluded.test_images:,} test images"
            yield f"{evidence.champion.model} answers NaN or infinity for {broken}, which count as wrong"
    if evidence.excluded.seen:
        yield _left_out(evidence)
    if evidence.class_changes.added or evidence.class_changes.removed:
        others = f"{evidence.excluded.other_classes:,} images of other classes are left out"
        yield f"classes changed: {evidence.challenger.model} {describe_changes(evidence.class_changes)}; {others}"
    if evidence.underpowered:
        tolerance = f"a fall in recall of {evidence.rules.recall_tolerance:g}"
        names = _names(evidence, evidence.underpowered)
        yield f"too few images to show {tolerance}, so these classes block nothing: {names}"
    if evidence.blunt:
        yield (
            f"so many answers changed that a fall in recall of {evidence.rules.recall_tolerance:g} may go unseen in: "
            f"{_names(evidence, evidence.blunt)}"
        )


def _comparison(evidence: Evidence, difference: Difference) -> Iterator[str]:
    ours, theirs, metric = evidence.challenger, evidence.champion, evidence.rules.metric
    assert theirs is not None
    images = f"{evidence.images:,} test images"
    if metric != "accuracy":
        yield f"{_word(metric)} {ours.metric.plain} against {theirs.metric.plain} on {images}"
    yield (
        f"accuracy {ours.accuracy.plain} against {theirs.accuracy.plain} on {images}: {difference.won:,} won, "
        f"{difference.lost:,} lost, McNemar's exact p {difference.mcnemar_p:.2g}"
    )
    if ours.calibration_error is not None and theirs.calibration_error is not None:
        errors = f"{ours.calibration_error.plain} against {theirs.calibration_error.plain}"
        yield f"expected calibration error {errors}"


def _left_out(evidence: Evidence) -> str:
    excluded, rival = evidence.excluded, evidence.champion
    by_rival = f", {rival.model} on {excluded.by_champion:,}" if rival else ""
    who = f"{evidence.challenger.model} trained or validated on {excluded.by_challenger:,}{by_rival}"
    return f"{excluded.seen:,} of {excluded.test_images:,} test images are left out: {who}"


def _names(evidence: Evidence, chosen: Sequence[str]) -> str:
    images = {row.name: row.images for row in evidence.classes}
    shown = ", ".join(f"{name!r} ({images[name]:,})" for name in chosen[:MOST_NAMES])
    return shown if len(chosen) <= MOST_NAMES else f"{shown} and {len(chosen) - MOST_NAMES} more"


def _word(metric: str) -> str:
    return metric.replace("_f1", " F1").replace("_", " ")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
