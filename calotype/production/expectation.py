"""What the gate had expected of a version, from the evidence that the ledger names; and whether production agrees."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from calotype.errors import CalotypeError
from calotype.evaluation.metrics import Estimate
from calotype.evaluation.slices import difference
from calotype.params import Params
from calotype.production.accuracy import Score
from calotype.project import Project
from calotype.releases import ledger
from calotype.releases.ledger import Entry


@dataclass(frozen=True)
class Expected:
    """How the version did when the gate judged it, on its test images."""

    images: int
    right: int
    accuracy: Estimate


@dataclass(frozen=True)
class Expectations:
    """By version; and a line where the evidence of some could not be read."""

    by_version: dict[int, Expected]
    note: str = ""


def read(project: Project, params: Params, versions: Iterable[int]) -> Expectations:
    """Look up the evidence of versions in their MLflow runs; what cannot be had is said, never an error."""
    entries = ledger.read(project.ledger, params.name).entries
    wanted = {version: [one for one in entries if _has_evidence(one, version)] for version in versions}
    if not any(wanted.values()):
        return Expectations({})
    # MLflow takes seconds to import.
    from calotype.releases.runs import Store

    found: dict[int, Expected] = {}
    try:
        store = Store(project)
        for version, told in wanted.items():
            expected = next(filter(None, (_expected(store, params, entry) for entry in reversed(told))), None)
            if expected is not None:
                found[version] = expected
    except CalotypeError as error:
        return Expectations(found, f"the gate's evidence could not be read: {error}")
    return Expectations(found)


def difference_to(score: Score, expected: Expected | None) -> Estimate | None:
    """Production accuracy less the one that the gate saw, with Newcombe's interval: they are of different images."""
    if expected is None:
        return None
    return difference(score.right, score.images, expected.right, expected.images)


def agreement(score: Score, expected: Expected | None) -> str:
    """One plain sentence: does production agree with the gate?"""
    gap = difference_to(score, expected)
    if expected is None or gap is None:
        return "The ledger holds no figures of the gate for this version."
    points = f"{abs(gap.value) * 100:.1f} points"
    interval = f"95 % interval of the difference {gap.low * 100:+.1f} to {gap.high * 100:+.1f}"
    there = f"the {expected.accuracy.percent} on {expected.images:,} test images that the gate saw"
    if gap.high < 0:
        return f"Production is shown to be worse than the gate expected: {points} below {there} ({interval})."
    if gap.low > 0:
        return f"Production is shown to be better than the gate expected: {points} above {there} ({interval})."
    return f"Production agrees with {there}: no difference is shown ({interval})."


def selection(score: Score) -> str:
    """Of how many answers a score speaks, and how those differ from the others."""
    share = score.images / score.answers
    return (
        f"{score.images:,} of {score.answers:,} answers ({share * 100:.1f} %) are labelled; their mean confidence is "
        f"{score.confidence:.3f}, that of all {score.confidence_of_all:.3f}"
    )


def standing(score: Score, least: float) -> str:
    """Whether the score is shown to be below the accuracy that is asked for."""
    verdict = "is shown to be below" if score.accuracy.high < least else "is not shown to be below"
    return f"Its production accuracy, {score.accuracy.percent}, {verdict} monitor.min_accuracy {least:g}."


def _has_evidence(entry: Entry, version: int) -> bool:
    return entry.version == version and bool(entry.evidence_digest)


def _expected(store: Any, params: Params, entry: Entry) -> Expected | None:
    assert entry.version is not None
    run_id = entry.run_id or store.version(params.name, entry.version).run_id
    data = store.artifact(run_id, f"gate/decision-{entry.evidence_digest[:12]}.json")
    if data is None or hashlib.sha256(data).hexdigest() != entry.evidence_digest:
        return None
    decision = json.loads(data)
    # A forced promotion holds what the gate said inside.
    evidence = decision.get("gate", decision).get("evidence")
    if not evidence:
        return None
    standing = evidence["challenger"]
    figure = standing["accuracy"]
    accuracy = Estimate(figure["value"], figure["low"], figure["high"])
    return Expected(evidence["images"], standing["correct"], accuracy)
