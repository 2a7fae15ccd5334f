"""One run catches up: what a schedule had left waiting is cancelled."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled

from tasks.registry import verb

PAGE = 200
"""Most runs that Prefect's server returns at once."""


@verb(task_run_name="cancel late runs")
def cancel_late_runs() -> int:
    """Cancel the other runs of this run's deployment that a schedule made and that were due before now.

    After days without a worker the first run does the work of all of them; a run that a person started keeps its
    place, because its parameters may be others.

    Returns
    -------
    int
        How many were cancelled; 0 for a flow that no deployment runs.
    """
    if not deployment.get_id():
        return 0
    with get_client(sync_client=True) as client:
        late = _late_runs(client, UUID(str(deployment.get_id())), str(flow_run.get_id()))
        message = f"Late: {flow_run.get_name()} does its work."
        for run in late:
            client.set_flow_run_state(run.id, Cancelled(message=message))
    if late:
        get_run_logger().info("cancelled %d late runs: this one does their work", len(late))
    return len(late)


def _late_runs(client: SyncPrefectClient, deployment_id: UUID, own: str) -> list[FlowRun]:
    due = {
        "state": {"type": {"any_": ["SCHEDULED"]}},
        "next_scheduled_start_time": {"before_": datetime.now(UTC)},
    }
    found: list[FlowRun] = []
    while page := client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate(due),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id])),
        limit=PAGE,
        offset=len(found),
    ):
        found.extend(page)
    return [run for run in found if run.auto_scheduled and str(run.id) != own]
