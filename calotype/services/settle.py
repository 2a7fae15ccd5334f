"""At the start of Prefect's server: what an earlier end of it, or of the machine, had cut off."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from calotype.console import say
from calotype.services import web
from calotype.services.automations import RESUMED

UNFINISHED = ["PENDING", "RUNNING", "CANCELLING"]

RECENT = timedelta(days=1)
"""A run that crashed longer ago, and that nothing let go on, stays as it is."""


def settle(api: str) -> None:
    """Let runs that were cut off go on, as often as any crashed run may; without it each would run for ever.

    No worker runs yet, so no run of a deployment can be alive.
    """
    for run in _runs(api, UNFINISHED):
        _set_state(api, run, *_next(run))
    # The servers' end may have come between a run's crash and the automation that lets it go on.
    for run in _runs(api, ["CRASHED"], since=datetime.now(UTC) - RECENT):
        if 1 <= run["run_count"] <= RESUMED:
            _set_state(api, run, "SCHEDULED", "AwaitingRetry")


def _next(run: dict[str, Any]) -> tuple[str, str]:
    """The state of a run that was cut off; one that had not begun was never Running, and may begin."""
    if run["state_type"] == "CANCELLING":
        return "CANCELLED", "Cancelled"
    if run["run_count"] > RESUMED:
        return "CRASHED", "Crashed"
    return "SCHEDULED", "AwaitingRetry"


def _runs(api: str, types: Sequence[str], since: datetime | None = None) -> list[dict[str, Any]]:
    only: dict[str, Any] = {"state": {"type": {"any_": list(types)}}, "deployment_id": {"is_null_": False}}
    if since:
        only["end_time"] = {"after_": since.isoformat()}
    return list(web.ask(f"{api}/flow_runs/filter", {"flow_runs": only}))


def _set_state(api: str, run: dict[str, Any], kind: str, name: str) -> None:
    state = {"type": kind, "name": name, "message": "The servers ended while it ran."}
    web.ask(f"{api}/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
    outcome = "it goes on" if kind == "SCHEDULED" else f"marked {name}"
    say("up", f"the run {run['name']} was cut off: {outcome}")
