"""`calotype monitor`: judge what was predicted since the last window, keep the verdict, write the page."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from deltalake import DeltaTable

from calotype.console import say
from calotype.errors import CalotypeError, UsageError
from calotype.monitoring import judging, report, sampling, windows
from calotype.monitoring.judging import Judged
from calotype.monitoring.sampling import Span
from calotype.monitoring.shifts import Shift
from calotype.monitoring.windows import Tested, View, Window
from calotype.params import MonitorParams, Params
from calotype.predictions.reading import open_checked
from calotype.predictions.tables import PREDICTIONS
from calotype.project import Project

ATTEMPTS = 10


@dataclass(frozen=True)
class Monitored:
    """What one call judged: a window for each model version that had enough predictions."""

    windows: tuple[Window, ...]
    notes: tuple[str, ...] = ()
    page: str = ""

    def summary(self) -> str:
        """One or a few lines for a person."""
        lines = [f"{one.model}, {one.span}: {one.images:,} predictions, {one.verdict}" for one in self.windows]
        lines += [f"  {one.reason}" for one in self.windows if one.reason]
        if self.page:
            lines[-1] += f" → {self.page}"
        return "\n".join([*lines, *self.notes])


def monitor(project: Project, params: Params) -> Monitored:
    """Judge the predictions that no window holds yet, each model version against its own reference.

    Several monitors at once judge a window once: the verdict is appended through the snapshot that was read.

    Raises
    ------
    DataError
        If the place of a table holds something else.
    CalotypeError
        If MLflow cannot be reached, or other monitors came first again and again.
    """
    table = open_checked(project, "predictions", PREDICTIONS)
    if table is None:
        place = project.relative(project.predictions)
        return Monitored((), (f"{place}: no predictions yet. Put images into the inbox, then run `batch-prediction`.",))
    known: dict[Span, Judged | str] = {}
    for _ in range(ATTEMPTS):
        view = windows.writable(project)
        due, notes = _due(table, view, params)
        if due and not known:
            say("monitor", f"{sum(span.images for span in due):,} predictions to judge")
        known |= _judged_all(project, params, table, [span for span in due if span not in known])
        done = [one for span in due if isinstance(one := known[span], Judged)]
        notes += [one for span in due if isinstance(one := known[span], str)]
        if not done:
            return Monitored((), tuple(notes))
        rows = tuple(_row(one, view, params) for one in done)
        if windows.append(view, rows):
            page = report.write(project, params, done[-1], (*view.windows, *rows))
            return Monitored(rows, tuple(notes), project.relative(page))
        time.sleep(random.uniform(0, 0.5))
    raise CalotypeError(
        f"{project.table('windows')}: {ATTEMPTS} attempts to append met other monitors, each ahead of this one. "
        "Run it again when they have ended."
    )


def _due(table: DeltaTable, view: View, params: Params) -> tuple[list[Span], list[str]]:
    """The spans that have enough images, and a line about each that has not."""
    ends = {window.model_version: window.window_end for window in view.windows if window.model_name == params.name}
    waiting = sampling.waiting(table, params.name, ends)
    least = params.monitor.min_images
    due = [span for span in waiting if span.images >= least]
    notes = [
        f"{params.name} version {span.model_version}: {span.images:,} predictions wait until there are {least:,}"
        for span in waiting
        if span.images < least
    ]
    return due, notes if waiting else ["no new predictions: each is in a window already"]


def _judged_all(project: Project, params: Params, table: DeltaTable, spans: Sequence[Span]) -> dict[Span, Judged | str]:
    """What was found about each span, or why nothing could be."""
    if not spans:
        return {}
    # MLflow takes seconds to import: not where there is nothing to judge.
    from calotype.releases import versions

    with ExitStack() as stack:
        registry = stack.enter_context(versions.connected(project))
        found: dict[Span, Judged | str] = {}
        for span in spans:
            try:
                version = versions.require(registry, params.name, span.model_version)
                folder = versions.local(registry, version).bundle_folder
            except UsageError as error:
                found[span] = f"{span.images:,} predictions are not judged: {error}"
                continue
            found[span] = judging.judge(table, params, span, folder)
        return found


def _row(judged: Judged, view: View, params: Params) -> Window:
    span = judged.span
    window = Window(
        model_name=params.name,
        model_version=span.model_version,
        window_start=span.start,
        window_end=span.end,
        images=span.images,
        sampled=len(judged.predictions.sample),
        reference=len(judged.reference),
        alpha=params.monitor.alpha,
        tests=tuple(_test(shift) for shift in judged.comparison.shifts),
        is_drift=judged.comparison.is_drift,
        drift_holds=False,
        reason="",
        seconds=round(judged.seconds, 3),
        judged_at=datetime.now(UTC),
    )
    return _with_verdict(window, view.of(params.name, span.model_version), params.monitor)


def _with_verdict(window: Window, before: Sequence[Window], asked: MonitorParams) -> Window:
    drifted = windows.holds(before, window.is_drift, windows=asked.windows, of_last=asked.of_last)
    if not drifted:
        return window
    of = f"{drifted} of the last {asked.of_last} windows" if asked.of_last > 1 else "the last window"
    reason = f"drift in {of} of {window.model}, until {window.window_end:%Y-%m-%d %H:%M} UTC: {window.drifted}"
    return replace(window, drift_holds=True, reason=reason)


def _test(shift: Shift) -> Tested:
    effect = shift.effect
    values = (None, None, None) if effect is None else (effect.value, effect.low, effect.high)
    return Tested(shift.test, shift.statistic, shift.p, shift.p_holm, *values)
