"""The flow monitoring on a real Prefect server: verdicts, artifacts, and the event that asks for a training, once."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from prefect.client.orchestration import get_client

from calotype import params
from calotype.monitoring import monitor, runs
from calotype.project import Project
from flows.monitoring import MonitoringReport, monitoring
from tasks.monitoring import DRIFT
from tests.flows.test_training import artifacts_of, error_of
from tests.watched import predict, watch

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


@pytest.fixture
def watched(trained_project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("CALOTYPE_ROOT", str(trained_project.root))
    return watch(trained_project)


def run() -> tuple[MonitoringReport, Any]:
    state = monitoring(return_state=True)
    assert state.is_completed(), state.message
    return asyncio.run(error_of(state)), state.state_details.flow_run_id


def events(at_least: int) -> list[dict[str, Any]]:
    """The events of drift that the server has, once so many have arrived."""
    deadline = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while True:
            wanted = {"filter": {"event": {"name": [DRIFT]}}}
            found: list[dict[str, Any]] = client._client.post("/events/filter", json=wanted).json()["events"]
            if len(found) >= at_least or time.monotonic() > deadline:
                return found
            time.sleep(0.5)


def test_drift_that_holds_is_told_once(watched: Project) -> None:
    predict(watched, 0, 62)
    report, run_id = run()
    assert [window.is_drift for window in report.monitored.windows] == [False]
    assert "no drift" in asyncio.run(artifacts_of(run_id))["monitoring"]
    predict(watched, 100, 62, factor=0.4)
    assert run()[0].drift == ""
    predict(watched, 200, 62, factor=0.4)
    report, run_id = run()
    assert report.drift.startswith("drift in 2 of the last 3 windows of digits version 1, until 20")
    assert "brightness" in report.drift
    shown = asyncio.run(artifacts_of(run_id))["monitoring"]
    assert report.drift in shown
    assert "| Brightness |" in shown
    # Again: no new window, and nobody is told twice.
    again, _ = run()
    assert again.monitored.windows == ()
    assert again.monitored.notes == ("no new predictions: each is in a window already",)
    assert again.drift == ""
    event = next(found for found in events(1) if found["payload"]["reason"] == report.drift)
    assert event["payload"]["tests"]
    assert event["resource"]["prefect.resource.id"] == "calotype.model.digits"


def test_drift_that_nobody_could_be_told_of_is_told_by_the_next_run(watched: Project) -> None:
    values = params.load(watched.params)
    for first in (0, 100):
        predict(watched, first, 62, factor=0.4)
        # As `calotype monitor` does, or a run that died after its verdict.
        monitor.monitor(watched, values)
    assert runs.unannounced(watched, values)
    assert run()[0].drift
    assert runs.unannounced(watched, values) is None
