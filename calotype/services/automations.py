"""What Prefect does by itself for our deployments: a run that died is Crashed; people hear of trouble.

Prefect's automations in its own words, made through its API. Each is found again by its name, so that making them
twice changes nothing; one that a person disabled stays disabled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from calotype.services import web
from calotype.services.notifications import notification_block

SILENCE_S = 75
"""Seconds without a heartbeat after which a run counts as dead: two of those that prefect.yaml asks for were missed."""

PENDING_S = 100
"""Seconds that the process of a run gets for its start."""

PREFIX = "calotype: "

ENDED = ["Completed", "Failed", "Cancelled", "Crashed", "Cancelling", "AwaitingRetry"]


def make(api: str, deployments: Sequence[str], urls: Sequence[str]) -> None:
    """Make or renew the automations for these deployments; remove those that are no longer wanted.

    Parameters
    ----------
    api
        Prefect's API, ``http://…/api``.
    deployments
        Their ids. Automations act on their runs alone: the server may serve others too.
    urls
        Where notifications go, as Apprise writes addresses; none for none.
    """
    block = notification_block(api, urls)
    wanted = [crash_silent(deployments), crash_unstarted(deployments)]
    if block:
        wanted += [notify_of_failures(deployments, block), notify_of_events(deployments, block)]
    there = [item for item in web.ask(f"{api}/automations/filter", {}) if item["name"].startswith(PREFIX)]
    for automation in wanted:
        _put(api, automation, [item for item in there if item["name"] == automation["name"]])
    for item in there:
        if item["name"] not in {automation["name"] for automation in wanted}:
            web.ask(f"{api}/automations/{item['id']}", method="DELETE")


def crash_silent(deployments: Sequence[str]) -> dict[str, Any]:
    """A run whose heartbeats cease is Crashed, which frees its deployment's only place."""
    return _automation(
        "a run without heartbeats is Crashed",
        "Its process or its whole machine is gone, and nobody else can say so.",
        deployments,
        {
            "posture": "Proactive",
            # A run that dies in its first second is Running and never had a heartbeat.
            "after": ["prefect.flow-run.Running", "prefect.flow-run.heartbeat"],
            "expect": ["prefect.flow-run.heartbeat", *(f"prefect.flow-run.{name}" for name in ENDED)],
            "within": SILENCE_S,
        },
        _set_state("CRASHED", "Crashed", f"No heartbeat for {SILENCE_S} seconds: its process is gone."),
    )


def crash_unstarted(deployments: Sequence[str]) -> dict[str, Any]:
    """A run that a worker took and never started is Crashed too."""
    return _automation(
        "a run that does not start is Crashed",
        "The worker died between taking it and starting it.",
        deployments,
        {
            "posture": "Proactive",
            "after": ["prefect.flow-run.Pending"],
            "expect": [f"prefect.flow-run.{name}" for name in ["Running", "Late", "Scheduled", *ENDED]],
            "within": PENDING_S,
        },
        _set_state("CRASHED", "Crashed", f"Not started within {PENDING_S} seconds: its worker is gone."),
    )


def notify_of_failures(deployments: Sequence[str], block: str) -> dict[str, Any]:
    """Tell people of a run that failed or crashed."""
    return _automation(
        "notify of runs that failed or crashed",
        "To the addresses in CALOTYPE_NOTIFY_URLS.",
        deployments,
        {"posture": "Reactive", "expect": ["prefect.flow-run.Failed", "prefect.flow-run.Crashed"]},
        {
            "type": "send-notification",
            "block_document_id": block,
            "subject": "{{ flow.name }} {{ flow_run.state.name | lower }}: {{ flow_run.name }}",
            "body": "{{ flow_run.state.message }}\n{{ flow_run | ui_url }}",
        },
    )


def notify_of_events(deployments: Sequence[str], block: str) -> dict[str, Any]:
    """Tell people of a model that was held or rejected, of drift, and of accuracy that dropped."""
    trigger = {
        "posture": "Reactive",
        "expect": [
            "calotype.promotion.held",
            "calotype.promotion.rejected",
            "calotype.drift.detected",
            "calotype.accuracy.dropped",
        ],
        "match": {},
    }
    action = {
        "type": "send-notification",
        "block_document_id": block,
        "subject": "{{ event.event }}",
        "body": "{{ event.payload.summary or event.payload.reason or event.payload }}",
    }
    return _automation(
        "notify of verdicts and drift", "To the addresses in CALOTYPE_NOTIFY_URLS.", deployments, trigger, action
    )


def _automation(
    name: str, description: str, deployments: Sequence[str], trigger: dict[str, Any], action: dict[str, Any]
) -> dict[str, Any]:
    common = {
        "type": "event",
        "match": {"prefect.resource.id": "prefect.flow-run.*"},
        "match_related": {"prefect.resource.id": [f"prefect.deployment.{deployment}" for deployment in deployments]},
        "for_each": ["prefect.resource.id"],
        "threshold": 1,
    }
    return {
        "name": PREFIX + name,
        "description": description,
        "enabled": True,
        "trigger": common | trigger,
        "actions": [action],
    }


def _set_state(kind: str, name: str, message: str) -> dict[str, Any]:
    return {"type": "change-flow-run-state", "state": kind, "name": name, "message": message}


def _put(api: str, automation: dict[str, Any], there: Sequence[dict[str, Any]]) -> None:
    if not there:
        web.ask(f"{api}/automations/", automation)
        return
    first, *others = there
    web.ask(f"{api}/automations/{first['id']}", automation | {"enabled": first["enabled"]}, method="PUT")
    for item in others:
        web.ask(f"{api}/automations/{item['id']}", method="DELETE")
