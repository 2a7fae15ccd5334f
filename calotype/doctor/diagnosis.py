"""All checks in their order, as a table and as JSON."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from calotype.counted import counted
from calotype.doctor import elsewhere, machine, records, repository
from calotype.doctor.check import Check, problem
from calotype.errors import CalotypeError
from calotype.project import Project

MARKS = {"ok": "ok", "warning": "WARNING", "problem": "PROBLEM"}

Room = Callable[[Project], Iterator[Check]]


def diagnose(project: Project) -> list[Check]:
    """Check everything; one check that breaks is a problem of its own and stops no other."""
    rooms: list[Room] = [machine.checks, repository.checks, elsewhere.checks, records.checks]
    with ThreadPoolExecutor(len(rooms)) as threads:
        found = threads.map(lambda room: _guarded(room, project), rooms)
        return [check for checks in found for check in checks]


def is_well(checks: Sequence[Check]) -> bool:
    """Whether nothing is a problem; warnings are none."""
    return all(check.verdict != "problem" for check in checks)


def text(checks: Sequence[Check]) -> str:
    """A line for each check, and below it what to do where something is to be done."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        first, *rest = check.found.splitlines()
        lines.append(f"{MARKS[check.verdict]:<8} {check.name:<{width}}  {first}")
        lines += [" " * (width + 11) + line for line in [*rest, *([f"→ {check.advice}"] if check.advice else [])]]
    counts = Counter(check.verdict for check in checks)
    wrong = ", ".join(counted(counts[verdict], verdict) for verdict in ("problem", "warning"))
    lines.append(f"\n{wrong}, {counts['ok']} ok")
    return "\n".join(lines)


def as_json(checks: Sequence[Check]) -> list[dict[str, str]]:
    """Each check as a mapping."""
    return [dataclasses.asdict(check) for check in checks]


def _guarded(room: Room, project: Project) -> list[Check]:
    found: list[Check] = []
    try:
        found.extend(room(project))
    except (OSError, CalotypeError) as error:  # one that cannot be finished must not hide the others
        name = room.__module__.rpartition(".")[2]
        found.append(problem(name, str(error), "See to that file or server, then ask again."))
    return found
