"""The machine and its packages: versions, memory, disk, GPU, clock."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from calotype import machine
from calotype.doctor.check import Check, ok, problem, warning
from calotype.project import Project
from calotype.provenance import packages

OLDEST_PYTHON = (3, 11)

KNOWN_BAD = {
    "fastapi": ((0, 151), "every Prefect flow dies with it"),
    "sqlalchemy": ((2, 1), "it stops Prefect's scheduler in silence: no schedule ever fires"),
}
"""Versions from which a package breaks the line though nothing complains at its installation, and how it breaks it."""

GIB = 2**30
FULL = GIB
TIGHT = 5 * GIB
"""Free bytes of a disk: below the first a training fails, below the second one soon will."""

SMALL_MEMORY = GIB

SHOWN = 3
"""Packages that a line names."""

ASK_TORCH = "import torch; print(torch.cuda.is_available() and torch.cuda.get_device_name() or '')"


def checks(project: Project) -> Iterator[Check]:
    """Look at the machine."""
    yield python()
    yield from versions(project, packages.installed())
    yield memory()
    yield from disks(project)
    yield gpu(machine.may_have_gpu())
    yield time_zone()


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """Whether this Python is new enough."""
    found = ".".join(map(str, version))
    if version[:2] < OLDEST_PYTHON:
        return problem("Python", found, "Expected 3.11 or newer: `make setup PYTHON=python3.12`.")
    return ok("Python", f"{found}, {platform.system()} {platform.machine()}")


def versions(project: Project, present: Mapping[str, str]) -> Iterator[Check]:
    """Compare what is installed with requirements.lock, and with versions that are known to break the line."""
    broken = [name for name, (bad, _) in KNOWN_BAD.items() if name in present and _numbers(present[name]) >= bad]
    for name in broken:
        limit = ".".join(map(str, KNOWN_BAD[name][0]))
        yield problem(
            "packages", f"{name} {present[name]}: {KNOWN_BAD[name][1]}", f"Install {name} below {limit}: `make setup`."
        )
    lock = project.root / "requirements.lock"
    if not lock.is_file():
        yield ok("packages", f"{len(present)}; no requirements.lock here to compare them with")
        return
    differing = packages.differing(lock.read_text(encoding="utf-8"), {}, present)
    if differing:
        more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        found = f"not those of requirements.lock: {', '.join(differing[:SHOWN])}{more}"
        yield warning("packages", found, "`make setup` installs what the lock names.")
    elif not broken:
        yield ok("packages", f"{len(present)}, those of requirements.lock")


def memory() -> Check:
    """How much memory is free, and how many cores this process may use."""
    free, cores = psutil.virtual_memory().available, machine.cores()
    found = f"{free / GIB:.1f} GiB free, {cores} cores"
    if free < SMALL_MEMORY:
        return warning("memory", found, "End other programs, or lower train.memory_gb and train.batch_size.")
    return ok("memory", found)


def disks(project: Project) -> Iterator[Check]:
    """How much room is left where the project, DVC's cache and temporary files are; each disk once."""
    places = {
        "project": project.root,
        "temporary files": Path(tempfile.gettempdir()),
        "DVC's cache": _dvc_cache(project),
    }
    seen: set[int] = set()
    for name, place in places.items():
        existing = next(folder for folder in [place, *place.parents] if folder.exists())
        device = existing.stat().st_dev
        if device not in seen:
            yield room(name, existing)
        seen.add(device)


def room(name: str, place: Path) -> Check:
    """How much room is left on the disk of ``place``."""
    free = shutil.disk_usage(place).free
    found = f"{free / GIB:.1f} GiB free for {name}"
    advice = f"Make room on the disk of {place}; `dvc gc --workspace` drops data that no version in the workspace uses."
    if free < FULL:
        return problem("disk", found, advice)
    return warning("disk", found, advice) if free < TIGHT else ok("disk", found)


def gpu(may_have: bool) -> Check:
    """Whether torch sees the GPU that the machine has. It is asked only where there may be one: it takes seconds."""
    if not may_have:
        return ok("GPU", "none: torch computes on the processor")
    done = subprocess.run([sys.executable, "-c", ASK_TORCH], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return problem("GPU", f"torch cannot be imported: {last}", "`make setup` installs it again.")
    if name := done.stdout.strip():
        return ok("GPU", f"torch sees {name}")
    if sys.platform != "linux":
        return ok("GPU", "torch sees no CUDA device")
    return warning("GPU", "the machine has one, torch does not see it", "See `nvidia-smi`: the driver may be too old.")


def time_zone() -> Check:
    """Name the machine's own time zone: schedules name theirs."""
    now = time.localtime()
    return ok("time zone", f"{now.tm_zone} ({time.strftime('%z', now)}); schedules keep the zone that they name")


def _dvc_cache(project: Project) -> Path:
    return Path(os.environ.get("DVC_CACHE_DIR") or project.root / ".dvc" / "cache")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
