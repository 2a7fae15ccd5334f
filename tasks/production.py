"""Tell Prefect when the labels of production show that the champion answers too badly."""

from __future__ import annotations

from uuid import NAMESPACE_URL, uuid5

from prefect.events import emit_event
from prefect.logging import get_run_logger

from calotype import params
from calotype.production import accuracy
from calotype.production.accuracy import Judgement
from calotype.project import Project
from tasks.registry import verb

DROPPED = "calotype.accuracy.dropped"


@verb(task_run_name="announce accuracy")
def announce_accuracy() -> str:
    """Emit `calotype.accuracy.dropped` if new labels show the champion below `monitor.min_accuracy`; return the reason.

    The labels are marked after the event, whose id comes from them: should this be tried again in between, or two runs
    tell of the same labels, Prefect keeps one event.
    """
    project = Project.find()
    values = params.load(project.params)
    judgement = accuracy.judge(project, values)
    get_run_logger().info("%s", judgement.reason)
    if not judgement.is_below:
        return ""
    _emit(values.name, judgement)
    accuracy.remember(project, judgement)
    return judgement.reason


def _emit(name: str, judgement: Judgement) -> None:
    emit_event(
        DROPPED,
        resource={
            "prefect.resource.id": f"calotype.model.{name}",
            "prefect.resource.name": f"{name} version {judgement.version}",
        },
        payload={
            "reason": judgement.reason,
            "model_version": judgement.version,
            "images": judgement.images,
            "accuracy": judgement.accuracy,
            "low": judgement.low,
            "high": judgement.high,
        },
        id=uuid5(NAMESPACE_URL, f"{DROPPED}/{name}/{judgement.version}/{judgement.newest}"),
    )
