"""At the start of Prefect's server: what an earlier end of it, or of the machine, had cut off."""

from __future__ import annotations

from typing import Any

from calotype.console import say
from calotype.services import web
from calotype.services.resumption import RESUMED

UNFINISHED = ["PENDING", "RUNNING", "CANCELLING"]


def settle(api: str) -> None:
    """Let runs that were cut off go on, as often as any crashed run may; without it each would run for ever.

    No worker runs yet, so no run of a deployment can be alive.
    """
    for run in _runs(api):
        _set_state(api, run, *_next(run))


def _next(run: dict[str, Any]) -> tuple[str, str]:
    """The state of a run that was cut off; one that had not begun was never Running, and may begin."""
    if run["state_type"] == "CANCELLING":
        return "CANCELLED", "Cancelled"
    if run["run_count"] > RESUMED:
        return "CRASHED", "Crashed"
    return "SCHEDULED", "AwaitingRetry"


def _runs(api: str) -> list[dict[str, Any]]:
    only = {"state": {"type": {"any_": UNFINISHED}}, "deployment_id": {"is_null_": False}}
    return list(web.ask(f"{api}/flow_runs/filter", {"flow_runs": only}))


def _set_state(api: str, run: dict[str, Any], kind: str, name: str) -> None:
    state = {"type": kind, "name": name, "message": "The servers ended while it ran."}
    web.ask(f"{api}/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
    outcome = "it goes on" if kind == "SCHEDULED" else f"marked {name}"
    say("up", f"the run {run['name']} was cut off: {outcome}")
