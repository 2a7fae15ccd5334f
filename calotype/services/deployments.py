"""prefect.yaml as `calotype up` and `calotype doctor` read it: which deployments it names, and what cannot work.

Prefect finds a schedule that cannot work after the servers have started, and says so in a page of traceback.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from calotype.errors import UsageError
from calotype.project import Project

KINDS = ("cron", "interval", "rrule")


@dataclass(frozen=True)
class Deployment:
    """A deployment that prefect.yaml names."""

    name: str
    entrypoint: str


def read(project: Project) -> list[Deployment]:
    """Read prefect.yaml.

    Raises
    ------
    UsageError
        If it cannot be read or a schedule cannot work; one line for each problem.
    """
    document = _document(project)
    listed = document.get("deployments") if isinstance(document, Mapping) else None
    if not isinstance(listed, list) or not all(isinstance(item, Mapping) for item in listed):
        raise UsageError("prefect.yaml: expected a list `deployments` of mappings. Restore it, say from git.")
    problems = [f"prefect.yaml: {problem}" for item in listed for problem in _problems(item)]
    if problems:
        raise UsageError("\n".join(problems))
    return [Deployment(item["name"], item["entrypoint"]) for item in listed]


def _document(project: Project) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path = project.root / "prefect.yaml"
    if not path.is_file():
        raise UsageError(f"{path}: not found. It names the deployments; restore it, say from git.")
    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UsageError(f"prefect.yaml{where}: no YAML ({what}). Correct that line.") from error


def _problems(deployment: Mapping[str, Any]) -> Iterator[str]:
    name = deployment.get("name") or "a deployment without a name"
    for key in ("name", "entrypoint"):
        if not isinstance(deployment.get(key), str):
            yield f"{name}: `{key}` is missing or no text. Every deployment has both a name and an entrypoint."
    schedules = deployment.get("schedules") or []
    if not isinstance(schedules, list):
        yield f"{name}: found schedules {schedules!r}; expected a list of mappings."
        return
    for schedule in schedules:
        for problem in _schedule_problems(schedule):
            yield f"{name}: {problem}"


def _schedule_problems(schedule: Any) -> Iterator[str]:
    if not isinstance(schedule, Mapping) or sum(kind in schedule for kind in KINDS) != 1:
        yield f"found the schedule {schedule!r}; expected a mapping with one of cron, interval and rrule."
        return
    zone = schedule.get("timezone")
    if zone is not None and not _is_zone(zone):
        yield f"found the time zone {zone!r}, which does not exist; expected one such as UTC or Europe/Berlin."
    if "cron" in schedule and (reason := _cron_problem(schedule["cron"])):
        yield (
            f"found the cron {schedule['cron']!r} ({reason}); expected five fields, "
            "minute, hour, day, month and weekday: `0 2 * * *` is 02:00 each day."
        )
    seconds = schedule.get("interval", 1)
    if not isinstance(seconds, int | float) or seconds <= 0:
        yield f"found the interval {seconds!r}; expected seconds, more than 0."


def _is_zone(zone: Any) -> bool:
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        return False
    return True


def _cron_problem(cron: Any) -> str | None:
    from cronsim import CronSim, CronSimError

    if not isinstance(cron, str):
        return "no text"
    if cron.startswith("@"):  # @daily and the like, which Prefect knows
        return None
    try:
        CronSim(cron, datetime(2000, 1, 1))
    except CronSimError as error:
        return str(error).lower()
    return None
