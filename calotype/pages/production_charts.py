"""Charts of production: accuracy over calendar windows beside what the gate had expected; SVG as in `charts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from html import escape

from calotype.pages.charts import Scale, nice_ticks, opening, scale
from calotype.production.accuracy import Window
from calotype.production.expectation import Expected

WIDTH, HEIGHT = 1000, 340
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 18, 46
MOST_DATES = 12
COVERAGE_HEIGHT = 150


def over_time(windows: Sequence[Window], expected: Mapping[int, Expected], champion: int | None, least: float) -> str:
    """Draw each window's accuracy with its interval, what the gate had expected, and the accuracy asked for.

    Parameters
    ----------
    windows
        In order; those without a label leave a gap.
    expected
        What the gate had seen, by version.
    champion
        Whose points have the page's second colour; those of other versions the first.
    least
        `monitor.min_accuracy`.
    """
    scored = [(one, one.score) for one in windows if one.score is not None]
    bands = {version: one.accuracy for version, one in expected.items()}
    lows = [least, *(score.accuracy.low for _, score in scored), *(band.low for band in bands.values())]
    ticks = [tick for tick in nice_ticks(max(0.0, min(lows) - 0.02), 1.0, 5) if -1e-9 <= tick <= 1.0001]
    starts = sorted({one.start for one in windows})
    across = scale(-0.5, len(starts) - 0.5, LEFT, WIDTH - RIGHT)
    up = scale(ticks[0], 1.0, HEIGHT - BOTTOM, TOP)
    parts = [opening(WIDTH, HEIGHT, f"Production accuracy over {len(starts)} windows", least=640)]
    parts += _grid(ticks, up)
    for version, band in bands.items():
        mine = [starts.index(one.start) for one in windows if one.version == version]
        if mine:
            left, right = across(min(mine) - 0.5), across(max(mine) + 0.5)
            size = f'width="{right - left:.1f}" height="{max(2.0, up(band.low) - up(band.high)):.1f}"'
            kind = "s2" if version == champion else "s1"
            parts.append(f'<rect class="band {kind}" x="{left:.1f}" y="{up(band.high):.1f}" {size}/>')
    parts.append(_segment(LEFT, up(least), WIDTH - RIGHT, up(least), "least"))
    beside = _places(windows)
    for one, score in scored:
        x = across(starts.index(one.start) + beside[one.start, one.version])
        kind = "s2" if one.version == champion else "s1"
        hover = f"version {one.version}, {one.start} to {one.end}: {score.accuracy.percent}, {score.images:,} labelled"
        whisker = _segment(x, up(score.accuracy.low), x, up(score.accuracy.high), f"whisker {kind}")
        dot = f'<circle class="dot {kind}" cx="{x:.1f}" cy="{up(score.accuracy.value):.1f}" r="4.5"/>'
        parts.append(f"<g><title>{escape(hover)}</title>{whisker}{dot}</g>")
    return "".join([*parts, *_dates([f"{start:%d %b %y}" for start in starts], across, HEIGHT), "</svg>"])


def coverage(windows: Sequence[Window]) -> str:
    """Draw how many answers each window has, and how many of them are labelled."""
    starts = sorted({one.start for one in windows})
    given = {start: sum(one.answers for one in windows if one.start == start) for start in starts}
    labelled = {start: sum(one.score.images for one in windows if one.start == start and one.score) for start in starts}
    ticks = nice_ticks(0, max(given.values()), 3)
    across = scale(-0.5, len(starts) - 0.5, LEFT, WIDTH - RIGHT)
    up = scale(0, ticks[-1], COVERAGE_HEIGHT - BOTTOM, TOP)
    width = min(46.0, 0.6 * (WIDTH - LEFT - RIGHT) / len(starts))
    parts = [opening(WIDTH, COVERAGE_HEIGHT, "Answers and labelled answers in each window", least=640)]
    for tick in ticks:
        parts.append(_segment(LEFT, up(tick), WIDTH - RIGHT, up(tick), "grid"))
        parts.append(_text(LEFT - 8, up(tick) + 4, f"{tick:,.0f}", "end"))
    for place, start in enumerate(starts):
        x = across(place) - width / 2
        hover = f"{start}: {labelled[start]:,} of {given[start]:,} answers labelled"
        bars = _bar(x, up(given[start]), width, up(0), "given") + _bar(x, up(labelled[start]), width, up(0), "labelled")
        parts.append(f"<g><title>{hover}</title>{bars}</g>")
    return "".join([*parts, *_dates([f"{start:%d %b %y}" for start in starts], across, COVERAGE_HEIGHT), "</svg>"])


def _places(windows: Sequence[Window]) -> dict[tuple[date, int], float]:
    """Versions of one window stand side by side."""
    places: dict[tuple[date, int], float] = {}
    for start in {one.start for one in windows}:
        versions = [one.version for one in windows if one.start == start]
        for place, version in enumerate(versions):
            places[start, version] = (place - (len(versions) - 1) / 2) * min(0.22, 0.7 / len(versions))
    return places


def _grid(ticks: Sequence[float], up: Scale) -> list[str]:
    parts = []
    for tick in ticks:
        parts.append(_segment(LEFT, up(tick), WIDTH - RIGHT, up(tick), "grid"))
        parts.append(_text(LEFT - 8, up(tick) + 4, f"{tick * 100:.4g} %", "end"))
    return parts


def _dates(words: Sequence[str], across: Scale, height: float) -> list[str]:
    step = -(-len(words) // MOST_DATES)
    return [_text(across(place), height - 22, words[place]) for place in range(0, len(words), step)]


def _bar(x: float, top: float, width: float, bottom: float, kind: str) -> str:
    size = f'width="{width:.1f}" height="{max(0.0, bottom - top):.1f}"'
    return f'<rect class="{kind}" x="{x:.1f}" y="{top:.1f}" {size} rx="2"/>'


def _segment(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
