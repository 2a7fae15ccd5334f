"""report.html: one page that says how good a model is, complete in itself, readable anywhere.

The page asks nothing of the network, obeys light and dark, and treats every name in it as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from calotype import pages
from calotype.evaluation.findings import Findings
from calotype.evaluation.metrics import Evaluation
from calotype.evaluation.robustness import TITLES, Outcome, Robustness
from calotype.evaluation.slices import Slicing
from calotype.pages import charts, trust, trust_charts
from calotype.releases.model_card import Card

MOST_MISTAKES = 24
MOST_PAIRS = 12


@dataclass(frozen=True)
class Mistake:
    """A test image that got a wrong answer; ``picture`` is a data URI."""

    path: str
    label: str
    predicted: str
    confidence: float
    picture: str
    is_small: bool


@dataclass(frozen=True)
class Pair:
    """Images of one class that were answered with another."""

    actual: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True)
class Report:
    """All that the page shows.

    Attributes
    ----------
    title
        Name of the model.
    findings
        The figures.
    history
        One mapping for each epoch of the training.
    facts
        Words and values about model and data, in the order shown.
    parameters
        What the model was trained with: full key names and values.
    mistakes
        Wrong answers, the most confident first.
    promised
        What temperature and threshold did on the validation images they were fitted on; empty where nobody wrote it
        down.
    card
        The model card, of which the page shows what it does not say elsewhere.
    """

    title: str
    findings: Findings
    history: Sequence[Mapping[str, Any]]
    facts: Mapping[str, str]
    parameters: Mapping[str, Any]
    mistakes: Sequence[Mistake]
    promised: Mapping[str, float] = field(default_factory=dict)
    card: Card | None = None


def render(report: Report) -> str:
    """The page, as HTML text."""
    from markupsafe import Markup

    found, evaluation = report.findings, report.findings.evaluation
    drawn = len(evaluation.classes) <= charts.DRAWN_CLASSES
    least = _least(found.slicing)
    return pages.render(
        "report.html.j2",
        report=report,
        found=found,
        evaluation=evaluation,
        statements=trust.statements(found),
        wrong=evaluation.images - int(evaluation.confusion.trace()),
        curves=[(title, legend, Markup(svg)) for title, legend, svg in _curves(report.history)],
        matrix=Markup(charts.confusion(evaluation.confusion, evaluation.classes)) if drawn else None,
        picture=None if drawn else charts.confusion_picture(evaluation.confusion),
        pairs=most_confused(evaluation),
        reliability=Markup(trust_charts.reliability(found.calibration)),
        coverage=Markup(trust_charts.coverage(found.abstention)),
        changes=[(title, outcomes, Markup(svg)) for title, outcomes, svg in _changes(found.robustness)],
        least=least,
        place=lambda share: 100 * max(0.0, share - least) / (1 - least),
        size=_bytes,
        size_of=_large,
    )


def most_confused(evaluation: Evaluation, limit: int = MOST_PAIRS) -> list[Pair]:
    """The pairs of classes most often mixed up: most images first, then class order."""
    counts = evaluation.confusion.copy()
    np.fill_diagonal(counts, 0)
    support = evaluation.confusion.sum(axis=1)
    order = np.argsort(-counts, axis=None, kind="stable")[:limit]
    rows, columns = np.unravel_index(order, counts.shape)
    return [
        Pair(
            evaluation.classes[row],
            evaluation.classes[column],
            int(counts[row, column]),
            counts[row, column] / support[row],
        )
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        if counts[row, column]
    ]


def _curves(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, tuple[str, ...], str]]:
    """Title, words of the legend and drawing of each chart that has something to show."""
    wanted = {
        "Loss": {"train_loss": "training", "val_loss": "validation"},
        "Accuracy": {"train_accuracy": "training", "val_accuracy": "validation"},
        "Learning rate": {"lr": "learning rate"},
    }
    drawn = [
        (title, tuple(series.values()) if len(series) > 1 else (), charts.lines(history, series, title))
        for title, series in wanted.items()
    ]
    return [chart for chart in drawn if chart[2]]


def _changes(found: Robustness | None) -> list[tuple[str, tuple[Outcome, ...], str]]:
    """Title, outcomes and drawing of each kind of change, all on one scale."""
    if found is None:
        return []
    lowest = min([found.unchanged.low, *(one.accuracy.low for one in found.outcomes)])
    floor = max(0.0, np.floor(lowest * 10) / 10)
    return [
        (TITLES[kind], outcomes, trust_charts.change(outcomes, found.unchanged.value, floor, TITLES[kind]))
        for kind, outcomes in found.by_kind().items()
    ]


def _least(slicing: Slicing) -> float:
    """Where the bars of the slices begin: a tenth below the least accuracy that an honest sample allows."""
    lows = [part.accuracy.low for dimension in slicing.dimensions for part in dimension.slices if part.is_enough]
    return max(0.0, float(np.floor(min(lows, default=0.0) * 10 - 1e-9) / 10))


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def _large(count: int) -> str:
    for power, word in ((1e9, "billion"), (1e6, "million")):
        if count >= power:
            return f"{count / power:.1f} {word}"
    return f"{count:,}"
