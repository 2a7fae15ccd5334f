"""Charts of a window against its reference: tests over time, classes, distributions, a flat view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from calotype.evaluation.metrics import Estimate
from calotype.monitoring.shifts import Share
from calotype.monitoring.windows import Window
from calotype.pages.charts import Scale, nice_ticks, opening, scale

Floats = NDArray[np.float32] | NDArray[np.float64]

CELL_WIDTH, CELL_HEIGHT = 58, 30
NAMES_WIDTH = 160
MIX_WIDTH, MIX_ROW = 760, 26
WIDTH, HEIGHT = 340, 190
VIEW_WIDTH, VIEW_HEIGHT = 760, 430
BINS = 40
POINTS = 1500
"""Most points of each sample that the flat view draws."""

CUT = 0.002
"""Share of the points beyond each edge of the flat view: one stray image would shrink all others to a dot."""


def p_values(windows: Sequence[Window], titles: Sequence[str]) -> str:
    """Draw a row for each test and a column for each window; a cell is the adjusted p, strong where it alarms.

    Parameters
    ----------
    windows
        Oldest first.
    titles
        The tests' titles, in the order of each window's tests.
    """
    width = NAMES_WIDTH + CELL_WIDTH * len(windows) + 6
    height = CELL_HEIGHT * len(titles) + 44
    parts = [opening(width, height, "Adjusted p values of the last windows", least=min(width, 640))]
    for row, title in enumerate(titles):
        y = row * CELL_HEIGHT + CELL_HEIGHT / 2 + 4
        parts.append(f'<text x="{NAMES_WIDTH - 10}" y="{y}" text-anchor="end">{escape(title)}</text>')
    for column, window in enumerate(windows):
        x = NAMES_WIDTH + column * CELL_WIDTH
        found = {test.title: test.p_holm for test in window.tests}
        for row, title in enumerate(titles):
            if title in found:
                hover = f"{title}, {window.span}: p {short_p(found[title])}"
                parts.append(_p_cell(x, row * CELL_HEIGHT, found[title], window.alpha, hover))
        middle = x + CELL_WIDTH / 2
        bottom = CELL_HEIGHT * len(titles)
        parts.append(f'<text x="{middle}" y="{bottom + 17}" text-anchor="middle">{window.window_end:%d %b}</text>')
        parts.append(f'<text x="{middle}" y="{bottom + 33}" text-anchor="middle">{window.window_end:%H:%M}</text>')
    return "".join([*parts, "</svg>"])


def class_mix(shares: Sequence[Share]) -> str:
    """Draw each class's share of the answers in reference and window, with intervals."""
    names = [_cut(share.name, 24) for share in shares]
    left = 24 + 7 * max(map(len, names))
    top, bottom = 6, 30
    height = top + MIX_ROW * len(shares) + bottom
    highest = max(max(share.reference.high, share.window.high) for share in shares)
    ticks = nice_ticks(0, highest)
    across = scale(0, ticks[-1], left, MIX_WIDTH - 16)
    parts = [opening(MIX_WIDTH, height, "Share of each class in reference and window", least=420)]
    for tick in ticks:
        x = f"{across(tick):.1f}"
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{top}" y2="{height - bottom}"/>')
        parts.append(f'<text x="{x}" y="{height - 10}" text-anchor="middle">{tick * 100:.4g} %</text>')
    for row, (name, share) in enumerate(zip(names, shares, strict=True)):
        y = top + MIX_ROW * (row + 0.5)
        hover = f"{share.name}: reference {_share(share.reference)}, window {_share(share.window)}"
        label = f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
        marks = [
            f'<line class="bar-{kind}" x1="{across(one.low):.1f}" x2="{across(one.high):.1f}" y1="{at}" y2="{at}"/>'
            f'<circle class="dot-{kind}" cx="{across(one.value):.1f}" cy="{at}" r="4"/>'
            for kind, one, at in (("before", share.reference, y - 4.5), ("now", share.window, y + 4.5))
        ]
        parts.append(f"<g><title>{escape(hover)}</title>{label}{''.join(marks)}</g>")
    return "".join([*parts, "</svg>"])


def distribution(reference: Floats, window: Floats, word: str) -> str:
    """Draw how often each value occurs: the reference as a surface, the window as a line."""
    left, right, top, bottom = 10, 10, 8, 38
    low, high = _span(np.concatenate([reference, window]))
    edges = np.linspace(low, high, BINS + 1)
    before, now = (_shares(sample, edges) for sample in (reference, window))
    across = scale(low, high, left, WIDTH - right)
    up = scale(0, float(max(before.max(), now.max())), HEIGHT - bottom, top)
    parts = [opening(WIDTH, HEIGHT, f"{word} in reference and window")]
    for tick in (tick for tick in nice_ticks(low, high, 4) if low - 1e-9 <= tick <= high + 1e-9):
        x = f"{across(tick):.1f}"
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{top}" y2="{HEIGHT - bottom}"/>')
        parts.append(f'<text x="{x}" y="{HEIGHT - 21}" text-anchor="middle">{tick:.4g}</text>')
    surface = _steps(before, edges, across, up)
    floor = HEIGHT - bottom
    parts.append(f'<path class="surface" d="M{left},{floor}L{surface}L{WIDTH - right},{floor}Z"/>')
    parts.append(f'<path class="outline" d="M{_steps(now, edges, across, up)}"/>')
    parts.append(f'<text class="axis" x="{WIDTH / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(word)}</text>')
    return "".join([*parts, "</svg>"])


def flat_view(reference: Floats, window: Floats, marked: NDArray[np.int64]) -> str:
    """Draw both samples as points, and rings with numbers around some of the window.

    Parameters
    ----------
    reference, window
        Shapes (M, 2) and (N, 2).
    marked
        Rows of the window that get a ring, numbered from 1.
    """
    shown = np.concatenate([reference[:POINTS], window[:POINTS]])
    (left, right), (bottom, top) = (_span(shown[:, axis], CUT) for axis in (0, 1))
    across = scale(left, right, 14, VIEW_WIDTH - 14)
    up = scale(bottom, top, VIEW_HEIGHT - 14, 14)

    def place(point: NDArray[np.float64]) -> tuple[float, float]:
        x, y = min(max(float(point[0]), left), right), min(max(float(point[1]), bottom), top)
        return across(x), up(y)

    parts = [opening(VIEW_WIDTH, VIEW_HEIGHT, "Embeddings of reference and window", least=420)]
    for kind, points in (("before", reference[:POINTS]), ("now", window[:POINTS])):
        # One path of dots: thousands of circles would be most of the page.
        dots = "".join("M{:.0f},{:.0f}h0".format(*place(point)) for point in points)
        parts.append(f'<path class="points-{kind}" d="{dots}"/>')
    for number, row in enumerate(marked, 1):
        x, y = place(window[row])
        anchor, shift = ("end", -9) if x > VIEW_WIDTH - 40 else ("start", 9)
        text = f'<text x="{x + shift:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}">{number}</text>'
        parts.append(f'<g class="ring"><circle cx="{x:.1f}" cy="{y:.1f}" r="6"/>{text}</g>')
    return "".join([*parts, "</svg>"])


def short_p(p: float) -> str:
    """``< 0.001``, ``0.004``, ``0.37``, ``1``."""
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.01 else f"{p:.2f}" if p < 0.995 else "1"


def _p_cell(x: float, y: float, p: float, alpha: float, hover: str) -> str:
    alarms = p <= alpha
    # From nothing at 1 to half the colour where an alarm would begin.
    strength = 1.0 if alarms else 0.08 + 0.32 * min(1.0, math.log(max(p, 1e-9)) / math.log(alpha))
    kind, tone = ("wrong", "count strong") if alarms else ("right", "count")
    place = f'x="{x + CELL_WIDTH / 2}" y="{y + CELL_HEIGHT / 2 + 4}" text-anchor="middle"'
    square = (
        f'<rect class="{kind}" x="{x + 1}" y="{y + 1}" width="{CELL_WIDTH - 2}" height="{CELL_HEIGHT - 2}" '
        f'rx="4" fill-opacity="{strength:.3f}"/>'
    )
    return f'<g><title>{escape(hover)}</title>{square}<text class="{tone}" {place}>{escape(short_p(p))}</text></g>'


def _span(values: Floats, cut: float = 0.0) -> tuple[float, float]:
    low, high = (float(edge) for edge in np.quantile(values, [cut, 1 - cut]))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _shares(sample: Floats, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.histogram(sample, edges)[0] / len(sample)


def _steps(shares: NDArray[np.float64], edges: NDArray[np.float64], across: Scale, up: Scale) -> str:
    corners = [
        f"{across(x):.1f},{up(share):.1f}"
        for share, low, high in zip(shares, edges[:-1], edges[1:], strict=True)
        for x in (low, high)
    ]
    return "L".join(corners)


def _share(one: Estimate) -> str:
    return f"{one.value:.1%} ({one.low * 100:.1f}–{one.high * 100:.1f})"


def _cut(name: str, longest: int) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"
