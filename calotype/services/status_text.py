"""`calotype status` as text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from calotype.services.status import DeploymentState, Status


def text(status: Status) -> str:
    """The parts, the deployments, then what is wrong or that nothing is: a line each."""
    if not status.parts:
        return "\n".join(status.problems)
    parts = [
        (
            part.name,
            part.state,
            "well" if part.is_well else "no answer",
            str(part.pid or ""),
            age(part.uptime_s),
            part.address,
        )
        for part in status.parts
    ]
    blocks = [_table(("part", "state", "health", "pid", "uptime", "address"), parts)]
    if status.deployments:
        runs = [
            (item.name, next_run(item), item.last_state or "none yet", _at(item.last_run))
            for item in status.deployments
        ]
        blocks.append(_table(("deployment", "next run", "last run", "at"), runs))
    blocks.append("\n".join([*(status.problems or [verdict(status)]), *map("WARNING: {}".format, status.warnings)]))
    return "\n\n".join(blocks)


def verdict(status: Status) -> str:
    """One claim for a status without problems."""
    return "servers and worker are well" if status.warnings else "all is well"


def age(seconds: int) -> str:
    """A span of time in its two largest units: ``3 d 4 h``, ``12 min 5 s``; empty for none."""
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    units = ((days, "d"), (hours, "h"), (minutes, "min"), (seconds % 60, "s"))
    return " ".join([f"{count} {unit}" for count, unit in units if count][:2])


def next_run(deployment: DeploymentState) -> str:
    """When a deployment runs next, in words."""
    if deployment.is_paused:
        return "paused"
    return _at(deployment.next_run) or "when asked"


def _at(time: datetime | None) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if time else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in (header, *rows))
