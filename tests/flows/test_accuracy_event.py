"""The event of a fallen accuracy, on a real Prefect server: emitted once for the same labels."""

from __future__ import annotations

import time
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client

from calotype import params
from calotype.project import Project
from tasks.production import DROPPED, announce_accuracy
from tests.calotype.production.conftest import crown
from tests.calotype.production.test_accuracy import label, some
from tests.production_tables import answer, write

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


@flow(name="telling")
def telling() -> str:
    return announce_accuracy()


def events() -> list[dict[str, Any]]:
    wanted = {"filter": {"event": {"name": [DROPPED]}}}
    with get_client(sync_client=True) as client:
        found: list[dict[str, Any]] = client._client.post("/events/filter", json=wanted).json()["events"]
        return found


def test_the_event_is_emitted_once_and_says_why(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALOTYPE_ROOT", str(project.root))
    crown(project, params.load(project.params), 1)
    write(project, answers=[answer(f"{number}.png", "cat") for number in range(60)])
    assert telling() == ""
    label(project, some(0, 20, wrong=20))
    reason = telling()
    assert "is shown to be below monitor.min_accuracy" in reason
    assert telling() == ""
    deadline = time.monotonic() + 60
    while not events() and time.monotonic() < deadline:
        time.sleep(0.5)
    (event,) = events()
    assert event["resource"]["prefect.resource.id"] == "calotype.model.digits"
    assert event["payload"]["reason"] == reason
    assert event["payload"]["images"] == 20
