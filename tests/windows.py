"""A window that nobody predicted, with all that its page shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from calotype.evaluation.metrics import wilson
from calotype.monitoring import unusual
from calotype.monitoring.shifts import TESTS, Sample, Share
from calotype.monitoring.windows import Tested, Window
from calotype.pages.gallery import Picture
from calotype.pages.monitoring_page import MonitoringPage, Unusual

DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


def make_window(day: int, alarms: tuple[str, ...]) -> Window:
    """A day's window in which some tests alarm."""
    tests = tuple(
        Tested(test, 0.3, 1e-6, 6e-6, -0.15, -0.17, -0.13)
        if test in alarms
        else Tested(test, 0.1, 0.4, 0.8, None, None, None)
        for test in TESTS
    )
    start = datetime(2026, 11, 2, 2, tzinfo=UTC) + timedelta(days=day)
    holds = bool(alarms) and day > 12
    return Window(
        model_name="m",
        model_version=2,
        window_start=start,
        window_end=start + timedelta(days=1),
        images=300,
        sampled=300,
        reference=600,
        alpha=0.01,
        tests=tests,
        is_drift=bool(alarms),
        drift_holds=holds,
        reason="drift in 2 of the last 3 windows of m version 2: brightness and contrast" if holds else "",
        seconds=1.0,
        judged_at=start + timedelta(days=1, hours=2),
    )


def make_sample(count: int, classes: int, random: np.random.Generator, darker: float = 0.0) -> Sample:
    """Answers of a model that exists nowhere."""
    predicted = random.integers(classes, size=count)
    return Sample(
        embedding=(random.normal(size=(count, 8)) + 4 * np.eye(8)[predicted % 8] - 3 * darker).astype(np.float32),
        predicted=predicted,
        confidence=random.beta(9, 1, count).astype(np.float32),
        appearance=(random.normal(0.5, 0.1, (count, 3)) - darker).astype(np.float32),
    )


def make_page(*, drift: bool, names: tuple[str, ...] = ("cat", "dog", "horse")) -> MonitoringPage:
    """A page of the last of 14 windows."""
    random = np.random.default_rng(0)
    reference, sample = make_sample(600, len(names), random), make_sample(300, len(names), random, 0.15 * drift)
    alarms = ("mean", "contrast") if drift else ()
    counts = [np.bincount(one.predicted, minlength=len(names)).tolist() for one in (reference, sample)]
    surroundings = unusual.look(reference.embedding, sample.embedding)
    last = [make_window(day, alarms if day > 11 else ()) for day in range(14)]
    return MonitoringPage(
        window=last[-1],
        last=last,
        asked=(2, 3),
        shares=[
            Share(name, wilson(before, 600), wilson(now, 300)) for name, before, now in zip(names, *counts, strict=True)
        ],
        reference=reference,
        sample=sample,
        surroundings=surroundings,
        unusual=[
            Unusual(f"line-{row}/{names[0]}.png", names[0], 0.9, float(surroundings.distances[row]), Picture(DOT, True))
            for row in surroundings.order[:8].tolist()
        ]
        + [Unusual("gone.png", names[0], 0.5, 1.0, None)],
    )
