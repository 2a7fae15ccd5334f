"""A run that died goes on: once for each death, twice at most, and never while its process may still be at work.

Prefect calls one death Crashed twice: at once, and again when its worker has looked for hooks of the flow, which takes
a process of its own, so seconds or a minute. While the run is Crashed the second report is refused; where the run was
scheduled again in between, it is taken for a second death, of a process that lives. Nothing in its event tells the
two apart. So a run is scheduled again only when no report can come any more: the worker's event ``executed-flow-run``
follows its last report, and names the start that it belongs to.

Prefect's automations cannot wait for that, and on SQLite carry an action out twice where the database was locked.
Here states are read, round after round: what a server's end interrupts is done in the next round.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from calotype.console import say
from calotype.errors import CalotypeError
from calotype.services import web
from calotype.services.status import POOL
from calotype.services.supervisor import Supervisor

RESUMED = 2
"""How often a run goes on by itself."""

SILENCE = timedelta(seconds=60)
"""Time without a word of a crashed run and of its worker after which both are gone: two heartbeats were missed."""

RECENT = timedelta(days=1)
"""A run that crashed longer ago stays as it is."""

FLOW_RUN = "PREFECT__FLOW_RUN_ID"
"""Environment variable by which Prefect tells a run's process, and all that it starts, which run it is."""

CLAIM = "calotype-goes-on-after-"
"""Begin of the key that is kept with a run for each time that it goes on. Prefect takes each key once."""

SUBMITTED, EXECUTED = "prefect.worker.submitted-flow-run", "prefect.worker.executed-flow-run"
HEARTBEAT = "prefect.flow-run.heartbeat"


@dataclass
class Resumption:
    """Lets crashed runs go on; remembers when it ended what was left of one."""

    supervisor: Supervisor
    ended: dict[str, datetime] = field(default_factory=dict)

    def take_round(self, api: str) -> None:
        """Let each run go on that crashed, has a turn left, and is surely dead.

        Raises
        ------
        CalotypeError
            If Prefect does not answer. The next round finds the same runs.
        """
        for run in _crashed(api):
            if _has_turn(api, run) and self._is_dead(api, run) and _claim(api, run):
                _schedule(api, run)

    def _is_dead(self, api: str, run: dict[str, Any]) -> bool:
        events = _events(api, run, [SUBMITTED, EXECUTED])
        if all_ended(events):
            return True
        beats = _events(api, run, [HEARTBEAT])
        times = [_time(run["state"]["timestamp"]), *(_time(event["occurred"]) for event in beats)]
        now = datetime.now(UTC)
        if now - max([*times, self.ended.get(run["id"], times[0])]) < SILENCE:
            return False
        # It stands still, or its worker ended without it: it must not wake up beside the next one.
        if self.supervisor.end_leftovers(FLOW_RUN, run["id"]):
            self.ended[run["id"]] = now
            say("watch", f"the run {run['name']} was silent: what was left of it is ended")
            return False
        return True


def all_ended(events: Iterable[dict[str, Any]]) -> bool:
    """Whether a run was ever started and its workers have said of each start that it is over."""
    starts = {event["id"] for event in events if event["event"] == SUBMITTED}
    return bool(starts) and starts <= {event["follows"] for event in events if event["event"] == EXECUTED}


def _crashed(api: str) -> list[dict[str, Any]]:
    only = {"state": {"type": {"any_": ["CRASHED"]}}, "deployment_id": {"is_null_": False}}
    recent = {"end_time": {"after_": (datetime.now(UTC) - RECENT).isoformat()}}
    body = {"flow_runs": only | recent, "work_pools": {"name": {"any_": [POOL]}}}
    # One that never began has nothing to go on with.
    return [run for run in web.ask(f"{api}/flow_runs/filter", body) if 1 <= run["run_count"] <= RESUMED]


def _has_turn(api: str, run: dict[str, Any]) -> bool:
    kept = web.ask(f"{api}/flow_runs/{run['id']}/input/filter", {"prefix": CLAIM, "limit": RESUMED})
    return len(kept) < RESUMED and _key(run) not in [item["key"] for item in kept]


def _claim(api: str, run: dict[str, Any]) -> bool:
    """Take the turn that follows this very death; False where the watch of another machine was first."""
    try:
        web.ask(f"{api}/flow_runs/{run['id']}/input", {"key": _key(run), "value": "taken"})
    except CalotypeError:
        return False
    return True


def _schedule(api: str, run: dict[str, Any]) -> None:
    message = f"Crashed: goes on by itself, at most {RESUMED} times."
    state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": message}
    try:
        web.ask(f"{api}/flow_runs/{run['id']}/set_state", {"state": state})
    except CalotypeError as error:
        say("watch", f"the run {run['name']} crashed, and Prefect let it not go on ({error}). Retry it on its page.")
        return
    say("watch", f"the run {run['name']} crashed: it goes on")


def _key(run: dict[str, Any]) -> str:
    return f"{CLAIM}{run['state_id']}"


def _events(api: str, run: dict[str, Any], names: list[str]) -> list[dict[str, Any]]:
    only = {"event": {"name": names}, "any_resource": {"id": [f"prefect.flow-run.{run['id']}"]}, "order": "DESC"}
    return list(web.ask(f"{api}/events/filter", {"filter": only})["events"])


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
