"""The pile of late runs, on a real Prefect server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.client.schemas.sorting import FlowRunSort
from prefect.flow_engine import run_flow

from tasks.schedules import cancel_late_runs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


@flow(name="catching-up")
def catching_up() -> int:
    return cancel_late_runs()


def scheduled_runs(client: SyncPrefectClient, deployment_id: UUID, first_day: int, days: int) -> list[FlowRun]:
    """What the server's scheduler makes of a daily schedule from so many days ago on."""
    start = datetime.now(UTC) + timedelta(days=first_day, minutes=-1)
    asked = {"start_time": start.isoformat(), "end_time": (start + timedelta(days=days)).isoformat(), "max_runs": days}
    client._client.post(f"/deployments/{deployment_id}/schedule", json=asked | {"min_runs": days}).raise_for_status()
    only = DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id]))
    return client.read_flow_runs(deployment_filter=only, sort=FlowRunSort.EXPECTED_START_TIME_ASC)


def state_of(client: SyncPrefectClient, run: FlowRun) -> Any:
    return client.read_flow_run(run.id).state


def make_deployment(client: SyncPrefectClient, name: str) -> UUID:
    flow_id = client.create_flow(catching_up)
    daily = DeploymentScheduleCreate(schedule=IntervalSchedule(interval=timedelta(days=1)))
    return client.create_deployment(flow_id=flow_id, name=name, schedules=[daily])


def test_one_run_catches_up_and_only_the_late_ones_of_its_schedule_are_cancelled() -> None:
    with get_client(sync_client=True) as client:
        own, other = make_deployment(client, "nightly"), make_deployment(client, "other")
        runs = scheduled_runs(client, own, -3, 6)
        late = [run for run in runs if run.expected_start_time and run.expected_start_time < datetime.now(UTC)]
        future = [run for run in runs if run not in late]
        assert late
        assert future
        by_hand = client.create_flow_run_from_deployment(own)
        of_another = scheduled_runs(client, other, -3, 3)[:1]
        current = client.create_flow_run_from_deployment(own)
        assert run_flow(catching_up, flow_run=current) == len(late)
        assert {state_of(client, run).name for run in late} == {"Cancelled"}
        assert {state_of(client, run).type.value for run in [*future, by_hand, *of_another]} == {"SCHEDULED"}
        assert state_of(client, late[0]).message == f"Late: {current.name} does its work."


def test_a_flow_that_no_deployment_runs_cancels_nothing() -> None:
    assert catching_up() == 0
