"""Lineage that does not lie: a stage runs under DVC alone, and only on inputs that stay as they were at its start.

DVC writes into dvc.lock what params.yaml and the dependencies hold when a stage *ends*. A value edited meanwhile would
be recorded for outputs made with the old one (treeverse/dvc#11058), so a stage looks twice and refuses on a difference.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from ruamel.yaml import YAML

import calotype
from calotype import processes
from calotype.errors import CalotypeError, UsageError
from calotype.files import read_json, sha256_of, write_json
from calotype.project import Project

Snapshot = dict[str, Any]


@contextmanager
def stage(name: str, project: Project) -> Iterator[None]:
    """Run the body as DVC stage ``name``: guarded, locked, and refused at its end if an input changed meanwhile.

    Raises
    ------
    UsageError
        If DVC did not start this process for this stage, or if the imported package is not the project's own.
    CalotypeError
        If the stage runs already, or if a parameter or dependency that dvc.yaml lists changed while it ran.
    """
    command = f"dvc repro {_target(name, project)}"
    _require_dvc(name, project, command)
    _die_with_parent()
    if processes.has_stage_above():
        yield
        return
    with _lock(name, project):
        before = snapshot(name, project)
        yield
        differences = compare(before, snapshot(name, project))
        if differences:
            changed = "; ".join(differences)
            raise CalotypeError(
                f"{name}: changed while the stage ran: {changed}. Its outputs belong to no single state and are not "
                f"recorded. Run `{command}` again."
            )


def snapshot(name: str, project: Project) -> Snapshot:
    """Every parameter value and dependency that dvc.yaml lists for a stage: ``{"train.lr": 0.1, "a.py": digest}``."""
    definition = _definition(_file_of(name, project), name)
    values = YAML(typ="safe").load(project.params)
    taken: Snapshot = {key: _look_up(values, key) for key in definition.get("params", [])}
    return taken | {str(path): _fingerprint(project.root / path) for path in definition.get("deps", [])}


def compare(before: Snapshot, after: Snapshot) -> list[str]:
    """Say in words what differs between two snapshots of one stage."""
    return [
        f"{key} was {before.get(key)!r}, is {after.get(key)!r}" if "/" not in key else key
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _file_of(name: str, project: Project) -> Path:
    """The file that defines a stage: dvc.yaml, or that of the folder named like the stage, which is off the line."""
    own = project.root / name / "dvc.yaml"
    return project.dvc_yaml if _definition(project.dvc_yaml, name) or not own.is_file() else own


def _definition(path: Path, name: str) -> dict[str, Any]:
    return dict(YAML(typ="safe").load(path)["stages"].get(name, {}))


def _target(name: str, project: Project) -> str:
    """What `dvc repro` takes to run a stage: its name on the line, else its file."""
    path = _file_of(name, project)
    return name if path == project.dvc_yaml else project.relative(path)


def _require_dvc(name: str, project: Project, command: str) -> None:
    # DVC calls a stage outside dvc.yaml by its file and its name: audit/dvc.yaml:audit.
    target = _target(name, project)
    if os.environ.get("DVC_STAGE") != (name if target == name else f"{target}:{name}"):
        raise UsageError(f"{name}: only DVC writes this stage's outputs. Run `{command}`.")
    root = Path(os.environ.get("DVC_ROOT", "")).resolve()
    imported = Path(calotype.__file__).resolve()
    if not imported.is_relative_to(root):
        raise UsageError(
            f"{name}: the package was imported from {imported.parent}, expected one under {root}: another copy's "
            f"code would run. Call it through `{command}`, with `bin/calotype {name}` as the stage's command."
        )


def _die_with_parent() -> None:
    """Ask Linux for SIGTERM when dvc dies: a stage that outlives it would meet a second one."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


@contextmanager
def _lock(name: str, project: Project) -> Iterator[None]:
    path = project.cache / "locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.with_suffix(".json")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        seen = read_json(holder) if holder.exists() else {}
        raise CalotypeError(
            f"{name}: runs already, as process {seen.get('pid')} since {seen.get('since')}. Wait for it, or end it."
        ) from error
    try:
        write_json(holder, {"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")})
        yield
    finally:
        lock.release()


def _look_up(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _fingerprint(path: Path) -> Any:
    """Content for code and small files, sizes and times for folders of data: those are large."""
    if path.is_dir():
        files = sorted(item for item in path.rglob("*") if item.is_file())
        return [(str(item.relative_to(path)), item.stat().st_size, item.stat().st_mtime_ns) for item in files]
    return sha256_of(path) if path.exists() else None
