"""Answer what lies in the inbox."""

from __future__ import annotations

import time
from collections.abc import Callable

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

from calotype import params
from calotype.predictions import scheduled
from calotype.predictions.batch_summary import BatchSummary
from calotype.project import Project
from tasks import artifacts
from tasks.registry import verb

SHOWN_EVERY_S = 2.0


@verb(task_run_name="predict")
def predict_inbox(inbox: str | None, dry_run: bool) -> BatchSummary:
    """Append answers for the inbox's files to the tables; None is the project's own inbox."""
    project = Project.find()
    place = project.place(inbox, "inbox") if inbox else None
    watch, ended = _progress()
    summary = scheduled.predict_inbox(project, params.load(project.params), inbox=place, dry_run=dry_run, watch=watch)
    ended()
    get_run_logger().info("%s", summary.summary())
    artifacts.publish_batch(summary)
    return summary


def _progress() -> tuple[Callable[[int, int], None], Callable[[], None]]:
    """Two functions that show a share on the run's page: one is told how many of how many, one that all is done."""
    artifact = create_progress_artifact(progress=0.0, key="inbox", description="Files of the inbox looked at")
    shown = time.monotonic()

    def watch(done: int, total: int) -> None:
        nonlocal shown
        if total and time.monotonic() - shown >= SHOWN_EVERY_S:
            shown = time.monotonic()
            # Files that arrive meanwhile are counted among those done, not among all.
            update_progress_artifact(artifact, progress=min(100.0, 100.0 * done / total))

    def ended() -> None:
        update_progress_artifact(artifact, progress=100.0)

    return watch, ended
