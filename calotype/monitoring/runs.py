"""Judged windows as MLflow runs: a projection of the table, found again by the window's key, or written anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calotype import tracking
from calotype.monitoring import windows
from calotype.monitoring.windows import Window
from calotype.params import Params
from calotype.project import Project
from calotype.releases import versions

MOST = 100
"""Windows that are looked for at once, the newest: those before them were written in their time."""

ANNOUNCED_TAG = "calotype.drift_announced"


def record(project: Project, params: Params, page: Path | None = None) -> dict[str, str]:
    """Write a run for each window that has none; return the runs of the newest windows, by key.

    Parameters
    ----------
    project, params
        The project and its values.
    page
        The page of the newest window, which goes into its run.

    Raises
    ------
    CalotypeError
        If MLflow cannot be reached, or refuses.
    """
    newest = _newest(project, params)
    if not newest:
        return {}
    with versions.answering(project):
        client = tracking.connect(project)
        experiment = tracking.experiment(project, client, f"{params.name}-monitoring")
        runs = client.search_runs([experiment], max_results=2 * MOST, order_by=["attributes.start_time DESC"])
        found = {str(run.data.tags.get(tracking.KEY_TAG)): str(run.info.run_id) for run in runs}
        # One that was killed on its way is still running: it is written again.
        whole = {run.info.run_id for run in runs if run.info.status == "FINISHED"}
        for window in (window for window in newest if found.get(window.key) not in whole):
            run_id = found.get(window.key) or _begin(client, experiment, window)
            _fill(client, run_id, window, page if window is newest[-1] else None)
            found[window.key] = run_id
    return found


def unannounced(project: Project, params: Params) -> Window | None:
    """The newest window, if drift holds in it and nobody has been told."""
    newest = _newest(project, params)[-1:]
    if not newest or not newest[0].drift_holds:
        return None
    run_id = record(project, params)[newest[0].key]
    with versions.answering(project):
        tags = tracking.connect(project).get_run(run_id).data.tags
    return None if ANNOUNCED_TAG in tags else newest[0]


def mark_announced(project: Project, params: Params, window: Window) -> None:
    """Remember that drift was told of: a repeated run tells nothing twice."""
    run_id = record(project, params)[window.key]
    with versions.answering(project):
        tracking.connect(project).set_tag(run_id, ANNOUNCED_TAG, "true")


def _newest(project: Project, params: Params) -> list[Window]:
    view = windows.read(project)
    own = [window for window in view.windows if window.model_name == params.name] if view else []
    return own[-MOST:]


def _begin(client: Any, experiment: str, window: Window) -> str:
    tags = {
        tracking.KEY_TAG: window.key,
        "mlflow.runName": f"v{window.model_version}-{window.window_end:%Y-%m-%d-%H%M}",
        "mlflow.source.name": "calotype monitor",
        "mlflow.source.type": "LOCAL",
        "calotype.model_version": str(window.model_version),
        "calotype.verdict": window.verdict,
    }
    if window.reason:
        tags["calotype.reason"] = window.reason
    start = int(window.window_start.timestamp() * 1000)
    return str(client.create_run(experiment, start_time=start, tags=tags).info.run_id)


def _fill(client: Any, run_id: str, window: Window, page: Path | None) -> None:
    end = int(window.window_end.timestamp() * 1000)
    tracking.log_metrics(client, run_id, dict(_figures(window)), at_ms=end)
    if page is not None and page.is_file():
        client.log_artifact(run_id, str(page))
    client.set_terminated(run_id, "FINISHED", end_time=end)


def _figures(window: Window) -> Iterator[tuple[str, float]]:
    yield from (("images", window.images), ("drift", float(window.is_drift)), ("seconds", window.seconds))
    for test in window.tests:
        yield f"p/{test.test}", test.p_holm
        yield f"statistic/{test.test}", test.statistic
        if test.difference is not None:
            yield f"difference/{test.test}", test.difference
