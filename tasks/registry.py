"""Register the trained model, and let it challenge the champion."""

from __future__ import annotations

from functools import partial
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from calotype import params
from calotype.errors import DataError, UsageError
from calotype.project import Project
from calotype.releases import promotion, registry
from calotype.releases.promotion import Promotion
from calotype.releases.registry import RegisteredVersion
from tasks import artifacts

VERDICTS = {"promote": "promoted", "hold": "held", "reject": "rejected"}
"""Last words of the events that tell Prefect's automations what came of a promotion: ``calotype.promotion.held``."""


LASTING = (UsageError, DataError, ArithmeticError, AttributeError, ImportError, LookupError, NameError, TypeError)
"""What fails again however often it is tried: a use or data that cannot work, and mistakes in code."""


def may_pass(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Claim that a failure may pass, a server's say: every verb gives the same result when called again."""
    return not isinstance(state.data, LASTING)


verb = partial(task, cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[5, 30], retry_condition_fn=may_pass)
"""A task that changes the registry: never cached, tried again where that can help."""


@verb(task_run_name="register")
def register_model() -> RegisteredVersion:
    """Make the trained model a version in the registry, with the alias challenger."""
    project = Project.find()
    version = registry.register(project, params.load(project.params))
    get_run_logger().info("%s", version.summary())
    artifacts.publish_text("registered-version", version.summary())
    return version


@verb(task_run_name="promote")
def promote_model() -> Promotion:
    """Score challenger and champion now; the challenger becomes champion if it earns it. The ledger keeps the verdict.

    Tried again, it finds what the first attempt wrote: a promoted version is the champion already, and an equal verdict
    on equal evidence is not written twice.
    """
    project = Project.find()
    found = promotion.promote(project, params.load(project.params), who=flow_run.get_name())
    get_run_logger().info("%s", found.summary())
    artifacts.publish_promotion(found)
    _tell(found)
    return found


def _tell(found: Promotion) -> None:
    """Emit a verdict that the ledger keeps as an event; where there was nothing to decide, nothing happened."""
    if found.entry is None:
        return
    emit_event(
        f"calotype.promotion.{VERDICTS[found.verdict]}",
        resource={
            "prefect.resource.id": f"calotype.version.{found.name}.{found.version}",
            "prefect.resource.name": f"{found.name}/{found.version}",
        },
        payload={"verdict": found.verdict, "summary": found.summary()},
    )
