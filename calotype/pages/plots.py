"""Pictures for places that show no SVG of a page: MLflow's artifacts, `dvc plots`, Prefect's artifacts."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from calotype.evaluation.metrics import Ints

COUNTED_CLASSES = 20
"""Up to so many classes each cell shows its count."""

NAMED_CLASSES = 60
"""Up to so many classes the axes name them."""


def confusion_png(confusion: Ints, classes: Sequence[str]) -> bytes:
    """Draw a confusion matrix as a PNG: rows are the true classes, columns the answers, colour the share of the row.

    Parameters
    ----------
    confusion
        Counts, shape (K, K).
    classes
        The K names.
    """
    from matplotlib.figure import Figure

    count = len(classes)
    side = min(12.0, max(4.5, 2.2 + 0.45 * count))
    # A Figure of its own, never pyplot: nothing global to leak or to close.
    figure = Figure(figsize=(side, side), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(np.sqrt(shares), cmap="YlGnBu", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    right = int(confusion.trace())
    axes.set_title(f"{right:,} of {int(confusion.sum()):,} test images right", fontsize=11)
    if count <= NAMED_CLASSES:
        names = [_literal(name) for name in classes]
        small = 9 if count <= COUNTED_CLASSES else 6
        axes.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=small)
        axes.set_yticks(range(count), names, fontsize=small)
    if count <= COUNTED_CLASSES:
        for row, column in np.argwhere(confusion):
            tone = "white" if shares[row, column] > 0.3 else "#222222"
            value = f"{confusion[row, column]:,}"
            axes.text(column, row, value, ha="center", va="center", color=tone, fontsize=8, parse_math=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _literal(name: str) -> str:
    """Shortened, and free of the dollar signs that matplotlib would read as a formula."""
    short = name if len(name) <= 20 else name[:19] + "…"
    return short.replace("$", r"\$")
