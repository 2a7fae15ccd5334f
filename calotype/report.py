"""report.html: one page that says how good a model is, complete in itself, readable anywhere.

The page asks nothing of the network, obeys light and dark, and treats every name in it as text.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from calotype import charts
from calotype.decode import decode
from calotype.metrics import Evaluation

MOST_MISTAKES = 24
MOST_PAIRS = 12

SORT_SCRIPT = """
for (const header of document.querySelectorAll('table.sortable th')) {
  const button = document.createElement('button');
  button.append(...header.childNodes);
  header.append(button);
  button.addEventListener('click', () => {
    const rising = header.getAttribute('aria-sort') === 'descending';
    for (const other of header.parentNode.children) other.removeAttribute('aria-sort');
    header.setAttribute('aria-sort', rising ? 'ascending' : 'descending');
    const column = header.cellIndex, body = header.closest('table').tBodies[0];
    const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const compare = (a, b) => key(a).localeCompare(key(b), undefined, {numeric: true});
    const numbers = (a, b) => key(a) - key(b);
    const order = 'value' in (body.rows[0]?.cells[column].dataset ?? {}) ? numbers : compare;
    body.append(...[...body.rows].sort((a, b) => (rising ? 1 : -1) * order(a, b)));
  });
}
"""


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
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    # Escaping is on for every value: a class is named by whoever named a folder.
    environment = Environment(
        loader=PackageLoader("calotype", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    evaluation = report.evaluation
    drawn = len(evaluation.classes) <= charts.DRAWN_CLASSES
    return environment.get_template("report.html.j2").render(
        report=report,
        evaluation=evaluation,
        wrong=evaluation.images - int(evaluation.confusion.trace()),
        curves=[(title, legend, Markup(svg)) for title, legend, svg in _curves(report.history)],
        matrix=Markup(charts.confusion(evaluation.confusion, evaluation.classes)) if drawn else None,
        picture=None if drawn else charts.confusion_picture(evaluation.confusion),
        pairs=most_confused(evaluation),
        script=Markup(SORT_SCRIPT),
        script_digest=base64.b64encode(hashlib.sha256(SORT_SCRIPT.encode()).digest()).decode(),
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


def picture(data: bytes, *, max_megapixels: float) -> tuple[str, bool]:
    """A stored image as a data URI for a page, and whether it is so small that a page should enlarge its pixels.

    Small images stay as they are (PNG); larger ones shrink to 192 pixels (JPEG), which keeps a page of them light.
    """
    image = decode(data, max_megapixels=max_megapixels)
    is_small = max(image.size) <= 64
    buffer = io.BytesIO()
    if is_small:
        image.save(buffer, format="PNG", optimize=True)
    else:
        image.thumbnail((192, 192))
        image.save(buffer, format="JPEG", quality=82)
    kind = "png" if is_small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", is_small


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
