"""report.html: one page that says how good a model is, complete in itself, readable anywhere.

The page asks nothing of the network, obeys light and dark, and treats every name in it as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from calotype import charts, pages
from calotype.metrics import Evaluation

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
    evaluation
        The figures.
    history
        One mapping for each epoch of the training.
    facts
        Words and values about model and data, in the order shown.
    parameters
        What the model was trained with: full key names and values.
    mistakes
        Wrong answers, the most confident first.
    """

    title: str
    evaluation: Evaluation
    history: Sequence[Mapping[str, Any]]
    facts: Mapping[str, str]
    parameters: Mapping[str, Any]
    mistakes: Sequence[Mistake]


def render(report: Report) -> str:
    """The page, as HTML text."""
    from markupsafe import Markup

    evaluation = report.evaluation
    drawn = len(evaluation.classes) <= charts.DRAWN_CLASSES
    return pages.render(
        "report.html.j2",
        report=report,
        evaluation=evaluation,
        wrong=evaluation.images - int(evaluation.confusion.trace()),
        curves=[(title, legend, Markup(svg)) for title, legend, svg in _curves(report.history)],
        matrix=Markup(charts.confusion(evaluation.confusion, evaluation.classes)) if drawn else None,
        picture=None if drawn else charts.confusion_picture(evaluation.confusion),
        pairs=most_confused(evaluation),
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
