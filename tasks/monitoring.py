"""Judge what was predicted, keep the verdict where people look, and tell Prefect when drift holds."""

from __future__ import annotations

from uuid import NAMESPACE_URL, uuid5

from prefect.events import emit_event
from prefect.logging import get_run_logger

from calotype import params
from calotype.monitoring import monitor, runs
from calotype.monitoring.monitor import Monitored
from calotype.monitoring.windows import Window
from calotype.project import Project
from tasks import artifacts
from tasks.registry import verb

DRIFT = "calotype.drift.detected"


@verb(task_run_name="judge windows")
def judge_windows() -> Monitored:
    """Judge the predictions that no window holds yet; each window is an MLflow run and an artifact.

    Tried again, it finds what the first attempt appended, and writes the runs that are missing.
    """
    project = Project.find()
    values = params.load(project.params)
    monitored = monitor.monitor(project, values)
    get_run_logger().info("%s", monitored.summary())
    found = runs.record(project, values, project.resolve(monitored.page) if monitored.page else None)
    artifacts.publish_windows(project, monitored, {window.key: found[window.key] for window in monitored.windows})
    return monitored


@verb(task_run_name="announce drift")
def announce_drift() -> str:
    """Emit `calotype.drift.detected` if drift holds in the newest window and was not told of; return the reason.

    The event's id comes from the window: should two runs tell of one window, Prefect keeps one event.
    """
    project = Project.find()
    values = params.load(project.params)
    window = runs.unannounced(project, values)
    if window is None:
        return ""
    _emit(window)
    runs.mark_announced(project, values, window)
    get_run_logger().warning("%s: %s", DRIFT, window.reason)
    return window.reason


def _emit(window: Window) -> None:
    emit_event(
        DRIFT,
        resource={"prefect.resource.id": f"calotype.model.{window.model_name}", "prefect.resource.name": window.model},
        payload={
            "reason": window.reason,
            "model_version": window.model_version,
            "window_start": window.window_start.isoformat(),
            "window_end": window.window_end.isoformat(),
            "tests": [test.test for test in window.alarms],
        },
        id=uuid5(NAMESPACE_URL, f"{DRIFT}/{window.key}/{window.judged_at.isoformat()}"),
    )
