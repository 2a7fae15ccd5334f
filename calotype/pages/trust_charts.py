"""Charts of how far a model can be trusted: reliability, coverage, behaviour under change; SVG as in `charts`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from calotype.evaluation.abstention import Abstention
from calotype.evaluation.calibration import Calibration
from calotype.evaluation.robustness import Outcome
from calotype.pages.charts import Scale, nice_ticks, opening, scale

WIDTH, HEIGHT = 340, 260
LEFT, RIGHT, TOP, BOTTOM = 50, 22, 12, 40
SMALL_WIDTH, SMALL_HEIGHT = 300, 160


def reliability(found: Calibration) -> str:
    """Draw accuracy over confidence, a point with its interval for each bin; on the diagonal confidence is kept."""
    least = min([found.bins[0].confidence, *(one.accuracy.low for one in found.bins)])
    ticks = nice_ticks(max(0.0, least - 0.02), 1.0, 4)
    first, last = max(0.0, ticks[0]), min(1.0, ticks[-1])
    across, up = scale(first, last, LEFT, WIDTH - RIGHT), scale(first, last, HEIGHT - BOTTOM, TOP)
    parts = [opening(WIDTH, HEIGHT, f"Accuracy over confidence in {len(found.bins)} bins")]
    parts += _frame([tick for tick in ticks if 0 <= tick <= 1.0001], across, up, "confidence")
    parts.append(_segment(across(first), up(first), across(last), up(last), "even"))
    for one in found.bins:
        hover = f"{one.images:,} images: confidence {one.confidence:.1%}, right {one.accuracy.value:.1%}"
        whisker = _segment(across(one.confidence), up(one.accuracy.low), across(one.confidence), up(one.accuracy.high))
        parts.append(f"<g><title>{hover}</title>{whisker}{_dot(across(one.confidence), up(one.accuracy.value))}</g>")
    return "".join([*parts, "</svg>"])


def coverage(found: Abstention) -> str:
    """Draw the precision of the answers over the share of images answered, with the target and the chosen threshold."""
    lowest = min([found.target, *(precision for _, precision in found.curve)])
    ticks = nice_ticks(lowest, 1.0, 4)
    across, up = scale(0.0, 1.0, LEFT, WIDTH - RIGHT), scale(max(0.0, ticks[0]), 1.0, HEIGHT - BOTTOM, TOP)
    parts = [opening(WIDTH, HEIGHT, "Precision of the answers over the share of images answered")]
    for tick in (tick for tick in ticks if 0 <= tick <= 1.0001):
        parts.append(_segment(LEFT, up(tick), WIDTH - RIGHT, up(tick), "grid"))
        parts.append(_text(LEFT - 8, up(tick) + 4, f"{tick * 100:.4g} %", "end"))
    parts += [_text(across(share), HEIGHT - 22, f"{share:.0%}".replace("%", " %")) for share in (0.0, 0.5, 1.0)]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, "share of images answered"))
    parts.append(_segment(LEFT, up(found.target), WIDTH - RIGHT, up(found.target), "even"))
    points = " ".join(f"{across(share):.1f},{up(precision):.1f}" for share, precision in found.curve)
    parts.append(f'<polyline class="line s2" points="{points}"/>')
    if found.precision is not None:
        hover = f"answered {found.coverage.value:.1%}, of these right {found.precision.value:.1%}"
        dot = _dot(across(found.coverage.value), up(found.precision.value), radius=5)
        parts.append(f"<g><title>{hover}</title>{dot}</g>")
    return "".join([*parts, "</svg>"])


def change(outcomes: Sequence[Outcome], unchanged: float, lowest: float, title: str) -> str:
    """Draw the accuracy under one kind of change, from unchanged to the strongest.

    Parameters
    ----------
    outcomes
        The strengths, the weakest first.
    unchanged
        Accuracy on the same images as they are.
    lowest
        Where the vertical axis begins: the same for all kinds, so that the drawings compare.
    title
        The kind.
    """
    bottom, left, right = SMALL_HEIGHT - 26, 44, SMALL_WIDTH - 8
    up = scale(lowest, 1.0, bottom, 10)
    steps = [("none", unchanged), *((one.label, one.accuracy.value) for one in outcomes)]
    across = scale(0, len(steps) - 1, left + 22, right - 26)
    parts = [opening(SMALL_WIDTH, SMALL_HEIGHT, f"Accuracy under {title.lower()}")]
    for tick in (tick for tick in nice_ticks(lowest, 1.0, 3) if lowest - 1e-9 <= tick <= 1.0001):
        parts.append(_segment(left, up(tick), right, up(tick), "grid"))
        parts.append(_text(left - 6, up(tick) + 4, f"{tick * 100:.4g} %", "end"))
    points = " ".join(f"{across(place):.1f},{up(value):.1f}" for place, (_, value) in enumerate(steps))
    parts.append(f'<polyline class="line s2" points="{points}"/>')
    parts.append(f"<g><title>unchanged: {unchanged:.1%}</title>{_dot(across(0), up(unchanged))}</g>")
    for place, one in enumerate(outcomes, 1):
        hover = f"{one.label}: {one.accuracy.value:.1%}, {_drop(one)}"
        whisker = _segment(across(place), up(one.accuracy.low), across(place), up(max(lowest, one.accuracy.high)))
        dot = _dot(across(place), up(one.accuracy.value))
        parts.append(f"<g><title>{escape(hover)}</title>{whisker}{dot}</g>")
    parts += [_text(across(place), SMALL_HEIGHT - 8, label) for place, (label, _) in enumerate(steps)]
    return "".join([*parts, "</svg>"])


def _frame(ticks: Sequence[float], across: Scale, up: Scale, word: str) -> list[str]:
    parts = []
    for tick in ticks:
        parts.append(_segment(LEFT, up(tick), WIDTH - RIGHT, up(tick), "grid"))
        parts.append(_text(LEFT - 8, up(tick) + 4, f"{tick * 100:.4g} %", "end"))
        parts.append(_text(across(tick), HEIGHT - 22, f"{tick * 100:.4g} %"))
    return [*parts, _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, word)]


def _segment(x1: float, y1: float, x2: float, y2: float, kind: str = "whisker") -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _dot(x: float, y: float, radius: float = 3.5) -> str:
    return f'<circle class="dot s2" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>'


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _drop(one: Outcome) -> str:
    points = (one.drop.value * 100, one.drop.low * 100, one.drop.high * 100)
    return "{:.1f} points lower ({:.1f} to {:.1f})".format(*points)
