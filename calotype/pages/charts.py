"""Charts for pages: SVG text that takes its colours from the page, so one drawing serves light and dark.

Every name is escaped: a folder called ``<script>`` is drawn, never run.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calotype.evaluation.metrics import Ints

Scale = Callable[[float], float]

DRAWN_CLASSES = 30
"""Up to so many classes the confusion matrix is drawn with names and counts, beyond as a picture."""

WIDTH, HEIGHT = 340, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 10, 10, 36


def lines(history: Sequence[Mapping[str, Any]], series: Mapping[str, str], title: str) -> str:
    """Draw columns of a training's history over its epochs.

    Parameters
    ----------
    history
        One mapping for each epoch, with ``epoch`` and the columns.
    series
        Column names and the words for the legend; at most two lines, of the page's first and second colour.
    title
        What the vertical axis shows.

    Returns
    -------
    str
        An SVG element; empty if no column has a finite value.
    """
    points = {name: _finite(history, name) for name in series}
    values = [y for line in points.values() for _, y in line]
    if not values:
        return ""
    epochs = [x for line in points.values() for x, _ in line]
    ticks = nice_ticks(min(values), max(values))
    across = scale(min(epochs), max(epochs), LEFT, WIDTH - RIGHT)
    up = scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [opening(WIDTH, HEIGHT, f"{title} over {len(history)} epochs")]
    for tick in ticks:
        y = up(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    parts += [
        f'<text x="{across(epoch):.1f}" y="{HEIGHT - 20}" text-anchor="middle">{epoch}</text>'
        for epoch in _epoch_ticks(int(min(epochs)), int(max(epochs)))
    ]
    parts.append(
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 5}" text-anchor="middle">epoch</text>'
    )
    for number, line in enumerate(points.values(), 1):
        parts.append(_line([(across(x), up(y)) for x, y in line], number))
    return "".join([*parts, "</svg>"])


def confusion(counts: Ints, classes: Sequence[str]) -> str:
    """Draw a confusion matrix: rows are the true classes, columns the answers; colour is the share of the row."""
    size = len(classes)
    cell = max(22, min(56, 520 // size))
    labels = [_shorten(name) for name in classes]
    margin = 14 + 7 * max(len(label) for label in labels)
    slanted = cell < 46 or margin > 60
    top = 34 + (round(margin * 0.75) if slanted else 0)
    # Slanted names of the last columns lean out to the right.
    edge = round(margin * 0.7) if slanted else 8
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    width = margin + cell * size + edge
    title = "Confusion matrix: true class down, answer across"
    parts = [opening(width, top + cell * size + 8, title, least=min(width, 20 * size + 90))]
    for index, label in enumerate(labels):
        middle = top + cell * (index + 0.5) + 4
        parts.append(f'<text x="{margin - 8}" y="{middle:.1f}" text-anchor="end">{escape(label)}</text>')
        parts.append(_column_label(label, margin + cell * (index + 0.5), top - 8, slanted))
    for row in range(size):
        for column in range(size):
            x, y = margin + cell * column, top + cell * row
            hover = f"{classes[row]} → {classes[column]}: {counts[row, column]:,} ({shares[row, column] * 100:.1f} %)"
            parts.append(_cell(x, y, cell, int(counts[row, column]), float(shares[row, column]), row == column, hover))
    return "".join([*parts, "</svg>"])


def confusion_picture(counts: Ints) -> str:
    """A pixel for each pair of classes, as a data URI of a PNG with transparency: for too many classes to name."""
    from PIL import Image

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    pixels: NDArray[np.uint8] = np.zeros((*counts.shape, 4), dtype=np.uint8)
    pixels[..., :3] = (196, 78, 40)
    pixels[np.diag_indices(len(counts))] = (47, 136, 145, 0)
    pixels[..., 3] = np.round(255 * np.where(shares > 0, 0.3 + 0.7 * np.sqrt(shares), 0))
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover ``low`` to ``high`` in about ``count`` steps of 1, 2 or 5 times a power of ten."""
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        around = 0.05 * (abs(low) if abs(low) > 1e-12 else 1)
        low, high = low - around, high + around
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _finite(history: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    rows = ((row["epoch"], row.get(name)) for row in history)
    return [(float(epoch), float(value)) for epoch, value in rows if value is not None and math.isfinite(value)]


def scale(low: float, high: float, start: float, end: float) -> Scale:
    """Maps values from ``low``..``high`` to ``start``..``end``; to the middle where both are equal."""
    span = (high - low) or 1.0
    shift = 0.5 if high == low else 0.0
    return lambda value: start + (end - start) * ((value - low) / span + shift)


def _epoch_ticks(first: int, last: int) -> list[int]:
    step = max(1, math.ceil((last - first) / 6))
    return list(range(first, last + 1, step))


def _line(points: Sequence[tuple[float, float]], number: int) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f'<circle class="dot s{number}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in points)
    return f'<polyline class="line s{number}" points="{path}"/>' + (dots if len(points) <= 40 else "")


def _column_label(label: str, x: float, y: float, slanted: bool) -> str:
    if slanted:
        return f'<text transform="translate({x + 4:.1f} {y}) rotate(-48)">{escape(label)}</text>'
    return f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{escape(label)}</text>'


def _cell(x: float, y: float, size: float, count: int, share: float, right: bool, hover: str) -> str:
    strength = 0.12 + 0.88 * math.sqrt(share) if count else 1.0
    kind = ("right" if right else "wrong") if count else "none"
    square = f'<rect class="{kind}" x="{x + 1}" y="{y + 1}" width="{size - 2}" height="{size - 2}" rx="3"'
    square += f' fill-opacity="{strength:.3f}"/>'
    tone = "count strong" if strength > 0.6 else "count"
    place = f'x="{x + size / 2:.1f}" y="{y + size / 2 + 4:.1f}" text-anchor="middle"'
    text = f'<text class="{tone}" {place}>{_compact(count)}</text>' if count else ""
    return f"<g><title>{escape(hover)}</title>{square}{text}</g>"


def _compact(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"


def _shorten(name: str, limit: int = 18) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"


def opening(width: float, height: float, label: str, least: float = 0) -> str:
    """Begin a drawing that shrinks with its page, down to ``least`` pixels."""
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'style="min-width: {least:.0f}px" role="img" aria-label="{escape(label)}">'
    )
