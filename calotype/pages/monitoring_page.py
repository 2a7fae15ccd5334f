"""monitoring.html: does production still look like what the model was measured on, and where not?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from calotype import pages
from calotype.monitoring.shifts import Sample, Share
from calotype.monitoring.unusual import Surroundings
from calotype.monitoring.windows import Tested, Window
from calotype.pages import monitoring_charts as charts
from calotype.pages.gallery import Picture

MOST_CLASSES = 30
"""Of more classes the chart shows those whose share changed most."""

UNITS = {
    "mean": "0 black, 1 white",
    "contrast": "spread of the luminance",
    "sharpness": "spread of its Laplacian",
    "confidence": "of the predicted class",
}


@dataclass(frozen=True)
class Unusual:
    """An image of the window far from all of the reference; ``picture`` is None where the inbox holds it no more."""

    path: str
    label: str
    confidence: float
    distance: float
    picture: Picture | None


@dataclass(frozen=True)
class MonitoringPage:
    """All that the page shows.

    Parameters
    ----------
    window
        The window.
    last
        The last windows of its model version, oldest first, itself included.
    asked
        Drift in how many of the last how many windows holds.
    shares
        Of the classes.
    reference, sample
        What was compared.
    surroundings
        Where the window's images lie.
    unusual
        The most distant first.
    """

    window: Window
    last: Sequence[Window]
    asked: tuple[int, int]
    shares: Sequence[Share]
    reference: Sample
    sample: Sample
    surroundings: Surroundings
    unusual: Sequence[Unusual]


def render(page: MonitoringPage) -> str:
    """The page, as HTML text."""
    shown = _most_changed(page.shares)
    marked = page.surroundings.order[: len(page.unusual)]
    view = charts.flat_view(page.surroundings.reference_points, page.surroundings.window_points, marked)
    return pages.render(
        "monitoring.html.j2",
        page=page,
        window=page.window,
        sentence=sentence(page.window),
        recent=[window.is_drift for window in page.last[-page.asked[1] :]],
        smallest=min(page.window.tests, key=lambda test: test.p_holm),
        difference=difference,
        short_p=charts.short_p,
        p_values=Markup(charts.p_values(page.last, [test.title for test in page.window.tests])),
        shares=shown,
        mix=Markup(charts.class_mix(shown)),
        distributions=[(title, UNITS[name], Markup(drawing)) for name, title, drawing in _distributions(page)],
        view=Markup(view),
        beyond=int((page.surroundings.distances > page.surroundings.usual).sum()),
    )


def sentence(window: Window) -> str:
    """The verdict: ``Drift in brightness and sharpness.``."""
    if window.is_drift:
        return f"{window.verdict[0].upper()}{window.verdict[1:]}"
    return "No drift: these predictions look like those for the validation images"


def difference(test: Tested) -> str:
    """``-0.108 (-0.121 to -0.094)``; empty where a test has no such figure."""
    if test.difference is None:
        return ""
    return f"{test.difference:+.3f} ({test.low:+.3f} to {test.high:+.3f})".replace("-", "−")


def _most_changed(shares: Sequence[Share]) -> list[Share]:
    changes = [-abs(share.window.value - share.reference.value) for share in shares]
    kept = set(np.argsort(changes, kind="stable")[:MOST_CLASSES].tolist())
    return [share for place, share in enumerate(shares) if place in kept]


def _distributions(page: MonitoringPage) -> list[tuple[str, str, str]]:
    """Name, title and drawing of each."""
    before, now = page.reference, page.sample
    drawn = []
    for test in page.window.tests:
        if test.test == "confidence":
            pair = (before.confidence, now.confidence)
        elif test.test in UNITS:
            place = ("mean", "contrast", "sharpness").index(test.test)
            pair = (before.appearance[:, place], now.appearance[:, place])
        else:
            continue
        drawn.append((test.test, test.title, charts.distribution(*pair, test.title.lower())))
    return drawn
