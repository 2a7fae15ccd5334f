"""Classify what lies in the inbox."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from calotype import params
from calotype.predictions import prediction
from calotype.predictions.prediction import BatchSummary
from calotype.project import Project
from tasks import artifacts
from tasks.registry import may_pass


@task(
    task_run_name="predict", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[5, 30], retry_condition_fn=may_pass
)
def predict_inbox(inbox: str | None, dry_run: bool) -> BatchSummary:
    """Append predictions for the inbox's files to the table; None is the project's own inbox."""
    project = Project.find()
    folder = project.resolve(inbox) if inbox else project.inbox
    summary = prediction.predict_inbox(project, params.load(project.params), inbox=folder, dry_run=dry_run)
    get_run_logger().info("%s", summary.summary())
    artifacts.publish_text("predictions", summary.summary())
    return summary
