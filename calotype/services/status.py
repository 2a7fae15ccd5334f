"""How the servers, the worker and the deployments are: gathered for `calotype status`, the page, and the watch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import psutil

from calotype.databases import PREFECT, without_password
from calotype.errors import CalotypeError
from calotype.files import read_json
from calotype.project import PLACES, Project
from calotype.services import deployments as shipped
from calotype.services import ports, web
from calotype.services.supervisor import Program, Supervisor

POOL = "calotype"
WORKER = "calotype"
"""Name of the worker that `up` starts; others in the pool have names of their own."""

HEALTH = {"prefect": "/api/health", "mlflow": "/health"}
"""Where each server says that it is well."""

VARIABLES = {"prefect": "PREFECT_API_URL", "mlflow": "MLFLOW_TRACKING_URI"}
"""Environment variables that name a server elsewhere."""

GIVEN = PLACES | dict.fromkeys(PREFECT, "SQLite under .prefect/")
"""Variables that `up` reads, with what holds where it found none."""

ILL = ("FAILED", "CRASHED")


@dataclass(frozen=True)
class Part:
    """A server or a program.

    Parameters
    ----------
    name
        ``prefect``, ``mlflow``, ``worker`` or ``watch``.
    state
        supervisord's word in lower case; ``elsewhere`` for a server that the environment names.
    pid
        Process id; 0 where none runs here.
    uptime_s
        Seconds since it started.
    address
        Where it answers; empty for a program without pages.
    is_well
        Whether it answers; of a program without an address, whether it runs.
    """

    name: str
    state: str
    pid: int
    uptime_s: int
    address: str
    is_well: bool


@dataclass(frozen=True)
class DeploymentState:
    """A deployment: its next run and its last one, with its page; times in UTC, None where there is none."""

    name: str
    entrypoint: str
    url: str
    is_paused: bool
    next_run: datetime | None
    last_run: datetime | None
    last_state: str
    last_url: str
    is_last_ill: bool


@dataclass(frozen=True)
class Status:
    """All parts and all deployments, and lines that say what is wrong and what to do.

    Problems are of what `up` keeps running. Warnings are of all else: a last run that failed, variables not heeded.
    """

    parts: tuple[Part, ...]
    deployments: tuple[DeploymentState, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def is_well(self) -> bool:
        return not self.problems


def read(project: Project) -> Status:
    """Ask every part how it is."""
    programs = Supervisor(project.services).programs()
    if not programs:
        return Status((), (), ("nothing runs here. Start it with `make up`.",), ())
    addresses = addresses_of(project)
    parts = tuple(_part(name, addresses, programs, addresses.get("prefect", "")) for name in _names(programs))
    prefect = addresses.get("prefect", "")
    found = _deployments(prefect) if _is_well(parts, "prefect") else None
    problems = [_complaint(part) for part in parts if not part.is_well]
    warnings = [_ill_run(deployment) for deployment in found or () if deployment.is_last_ill]
    return Status(parts, tuple(found or ()), (*problems, *_missing(project, found)), (*warnings, *not_heeded(project)))


def addresses_of(project: Project) -> dict[str, str]:
    """Where `up` found or started the servers; empty where nothing runs."""
    try:
        return dict(read_json(project.services / "addresses.json"))
    except (OSError, ValueError):
        return {}


def not_heeded(project: Project) -> list[str]:
    """A line for each variable that is set now and differs from what the servers here were started with."""
    supervisord = Supervisor(project.services).process()
    try:
        started = supervisord.environ() if supervisord else {}
    except psutil.Error:
        return []
    if not started:
        return []
    addresses = addresses_of(project)
    used = {name: started.get(name) or default for name, default in GIVEN.items()}
    used |= {VARIABLES[server]: address for server, address in addresses.items()}
    now = {name: os.environ.get(name, "") for name in GIVEN}
    now |= {VARIABLES[server]: named_elsewhere(server) for server in VARIABLES}
    return [
        f"{name} is set, but what runs here uses {without_password(used[name])}. "
        "`calotype down`, then `calotype up`, heeds it."
        for name in GIVEN
        if now[name] and now[name] != used[name]
    ]


def _names(programs: list[Program]) -> list[str]:
    own = [program.name for program in programs]
    return [*HEALTH, *(name for name in ("worker", "watch") if name in own)]


def _part(name: str, addresses: Mapping[str, str], programs: list[Program], prefect: str) -> Part:
    address = addresses.get(name, "")
    program = next((program for program in programs if program.name == name), None)
    if name in HEALTH:
        is_well = bool(address) and web.answers(address + HEALTH[name])
        if is_well and program is not None:
            is_well = ports.listens(program.pid, urlsplit(address).port or 0)
    else:
        is_well = program is not None and program.state == "RUNNING"
    if name == "worker" and is_well:
        is_well = _beats(prefect)
    if program is None:
        return Part(name, "elsewhere", 0, 0, address, is_well)
    return Part(name, program.state.lower(), program.pid, program.uptime_s, address, is_well)


def _beats(prefect: str) -> bool:
    """Whether our worker is online; True where Prefect does not answer, which is no fault of the worker."""
    try:
        workers = web.ask(f"{prefect}/api/work_pools/{POOL}/workers/filter", {}, limit_s=web.HEALTH_LIMIT_S)
    except CalotypeError:
        return True
    ours = [worker for worker in workers if worker["name"] == WORKER]
    return not ours or any(worker["status"] == "ONLINE" for worker in ours)


def _is_well(parts: tuple[Part, ...], name: str) -> bool:
    return any(part.name == name and part.is_well for part in parts)


def _complaint(part: Part) -> str:
    if part.state == "elsewhere":
        return f"{part.name}: {part.address} does not answer. See to that server, or to {VARIABLES[part.name]}."
    if part.name in HEALTH and web.answers(part.address + HEALTH[part.name]):
        return (
            f"{part.name}: another program answers at {part.address}. `make down`, then `make up`, takes other ports."
        )
    return (
        f"{part.name}: {part.state}, but it does not answer. See logs/{part.name}.log; it is started again by itself."
    )


def _ill_run(deployment: DeploymentState) -> str:
    return f"the last run of {deployment.name} ended {deployment.last_state}. Its log: {deployment.last_url}"


def _missing(project: Project, found: list[DeploymentState] | None) -> list[str]:
    if found is None:
        return []
    try:
        expected = shipped.read(project)
    except CalotypeError as error:
        return str(error).splitlines()
    there = {(deployment.name.rpartition("/")[2], deployment.entrypoint) for deployment in found}
    return [
        f"the deployment {deployment.name} of prefect.yaml is not there. `make down`, then `make up`, deploys it."
        for deployment in expected
        if (deployment.name, deployment.entrypoint) not in there
    ]


def _deployments(prefect: str) -> list[DeploymentState] | None:
    """The deployments of the pool by name; None where Prefect does not say."""
    pool = {"work_pools": {"name": {"any_": [POOL]}}}
    try:
        found = web.ask(f"{prefect}/api/deployments/filter", pool)
        flows = {flow["id"]: flow["name"] for flow in web.ask(f"{prefect}/api/flows/filter", pool)}
        return sorted((_deployment(prefect, item, flows) for item in found), key=lambda state: state.name)
    except CalotypeError:
        return None


def _deployment(prefect: str, item: Mapping[str, Any], flows: Mapping[str, str]) -> DeploymentState:
    due = _one_run(prefect, item["id"], {"type": {"any_": ["SCHEDULED"]}}, "EXPECTED_START_TIME_ASC")
    last = _one_run(prefect, item["id"], {"type": {"not_any_": ["SCHEDULED", "PENDING"]}}, "START_TIME_DESC")
    return DeploymentState(
        name=f"{flows.get(item['flow_id'], '?')}/{item['name']}",
        entrypoint=item["entrypoint"] or "",
        url=f"{prefect}/deployments/deployment/{item['id']}",
        is_paused=bool(item["paused"]),
        next_run=_time(due.get("next_scheduled_start_time")),
        last_run=_time(last.get("start_time") or last.get("expected_start_time")),
        last_state=last.get("state_name") or "",
        last_url=f"{prefect}/runs/flow-run/{last['id']}" if last else "",
        is_last_ill=last.get("state_type") in ILL,
    )


def _one_run(prefect: str, deployment: str, state: Mapping[str, Any], order: str) -> dict[str, Any]:
    only = {"deployments": {"id": {"any_": [deployment]}}, "flow_runs": {"state": state}, "sort": order, "limit": 1}
    found = web.ask(f"{prefect}/api/flow_runs/filter", only)
    return dict(found[0]) if found else {}


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def named_elsewhere(server: str) -> str:
    """The address that the environment gives for a server, without Prefect's ``/api``; empty where it gives none."""
    return os.environ.get(VARIABLES[server], "").rstrip("/").removesuffix("/api")
