"""The project's folder: its files, git, DVC, and whether its places can be written to."""

from __future__ import annotations

import configparser
import json
import os
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import psutil

from calotype import params
from calotype.counted import counted
from calotype.databases import without_password
from calotype.doctor.check import Check, ok, problem, warning
from calotype.errors import CalotypeError
from calotype.project import Project
from calotype.services import deployments

REACH_S = 2.0
"""Seconds within which a remote's host answers."""

LOCK_AGE_S = 600

PORTS = {"http": 80, "https": 443, "ssh": 22}


def checks(project: Project) -> Iterator[Check]:
    """Look at the project's folder."""
    yield parameters(project)
    yield schedules(project)
    yield from git(project)
    yield from dvc(project)
    yield from places(project)


def parameters(project: Project) -> Check:
    """Whether params.yaml can work."""
    try:
        values = params.load(project.params)
    except CalotypeError as error:
        return problem("params.yaml", str(error), "`calotype params` shows every value and its line.")
    return ok("params.yaml", f"valid, {len(params.flatten(values))} values")


def schedules(project: Project) -> Check:
    """Whether prefect.yaml can work."""
    try:
        found = deployments.read(project)
    except CalotypeError as error:
        return problem("prefect.yaml", str(error), "Correct it; `make up` deploys it.")
    return ok("prefect.yaml", f"valid, {len(found)} deployments")


def git(project: Project) -> Iterator[Check]:
    """Whether git can say what code a training ran with."""
    if _git(project, "rev-parse", "--is-inside-work-tree") != "true":
        yield warning("git", "no repository here", "`git init`, then commit: without it no training knows its code.")
        return
    commit = _git(project, "rev-parse", "--short", "HEAD")
    if not commit:
        yield warning("git", "a repository without a commit", "`git add -A`, then `git commit`.")
        return
    changed = len(_git(project, "status", "--porcelain").splitlines())
    state = f"{counted(changed, 'changed file')}, which a training records as a diff" if changed else "nothing changed"
    yield ok("git", f"commit {commit}, {state}")
    if _git(project, "rev-parse", "--is-shallow-repository") == "true":
        yield warning("git", "a shallow clone", "`git fetch --unshallow`: `dvc exp run` and `reproduce` need all.")
    if not (_git(project, "config", "user.name") and _git(project, "config", "user.email")):
        yield warning("git", "does not know who you are", "`git config user.name NAME`, and user.email.")
    index_lock = project.root / _git(project, "rev-parse", "--git-path", "index.lock")
    if index_lock.exists() and time.time() - index_lock.stat().st_mtime > LOCK_AGE_S:
        yield warning("git", f"{index_lock} is older than 10 minutes", "If no git runs, remove it.")


def dvc(project: Project) -> Iterator[Check]:
    """Whether DVC is set up, where it keeps copies, and whether something holds its locks."""
    folder = project.root / ".dvc"
    if not folder.is_dir():
        yield problem("DVC", "not initialised", "`dvc init` (without git: `dvc init --no-scm`).")
        return
    locked = "dvc.lock is there" if (project.root / "dvc.lock").is_file() else "nothing was reproduced yet"
    yield ok("DVC", f"initialised, {locked}")
    yield from _remotes(folder)
    yield from _holders(folder)


def places(project: Project) -> Iterator[Check]:
    """Whether the tables, the ledger, MLflow's store and the stages' outputs can be written."""
    named = {"predictions": project.predictions, "ledger": project.ledger, "mlruns": str(project.mlruns)}
    outputs = {folder: str(project.root / folder) for folder in ("data", "models", "reports", "logs", ".cache")}
    elsewhere = [name for name, place in named.items() if "://" in place]
    failing = [
        problem("places", f"{name}: {place} {reason}", "Move what is in the way, or `chmod u+rwx` that folder.")
        for name, place in (named | outputs).items()
        if name not in elsewhere and (reason := _unwritable(Path(place)))
    ]
    yield from failing
    if not failing:
        note = f"; {', '.join(elsewhere)} at a URL" if elsewhere else ""
        yield ok("places", f"{len(named) + len(outputs) - len(elsewhere)} can be written{note}")


def _unwritable(place: Path) -> str:
    existing = next(folder for folder in [place, *place.parents] if os.path.lexists(folder))
    if not existing.is_dir():
        return "is no folder" if existing == place else f"cannot be made: {existing} is no folder"
    return "" if os.access(existing, os.W_OK | os.X_OK) else "cannot be written"


def _remotes(folder: Path) -> Iterator[Check]:
    config = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        config.read([folder / "config", folder / "config.local"])
    except configparser.Error as error:
        yield problem("DVC", f"its config cannot be read: {str(error).splitlines()[0]}", "Correct .dvc/config.")
        return
    remotes = [section for section in config.sections() if section.strip("'").startswith("remote ")]
    if not remotes:
        yield warning("DVC remote", "none: data and models are on this machine alone", "`dvc remote add -d NAME URL`.")
    for section in remotes:
        name = section.strip("'").removeprefix("remote ").strip('"')
        yield _reach(name, config[section].get("endpointurl") or config[section]["url"], folder)


def _reach(name: str, url: str, folder: Path) -> Check:
    """A folder must be there and a host must answer; nobody is asked who gives no host, the network's stores."""
    shown = f"{name}: {without_password(url)}"
    parts = urllib.parse.urlsplit(url)
    if parts.scheme in ("", "file"):
        place = folder / Path(parts.path).expanduser()
        if os.access(place, os.R_OK | os.W_OK | os.X_OK):
            return ok("DVC remote", shown)
        return problem("DVC remote", f"{shown} is not there, or not yours", "Mount or make it, or `dvc remote modify`.")
    if parts.scheme not in PORTS or not parts.hostname:
        return ok("DVC remote", f"{shown}, not tried")
    try:
        with socket.create_connection((parts.hostname, parts.port or PORTS[parts.scheme]), timeout=REACH_S):
            return ok("DVC remote", f"{shown} answers")
    except OSError as error:
        return problem("DVC remote", f"{shown} does not answer ({error})", "Start it, or see to the network.")


def _holders(folder: Path) -> Iterator[Check]:
    """Processes that DVC's lock file names: those that live hold it, the dead ones DVC forgets by itself."""
    try:
        held = json.loads((folder / "tmp" / "rwlock").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    pids = set(_pids(held))
    living = sorted(pid for pid in pids if psutil.pid_exists(pid))
    if living:
        yield ok("locks", f"DVC works here as process {', '.join(map(str, living))}")
    elif pids:
        yield warning("locks", f"DVC was killed as process {min(pids)}", "The next `dvc repro` takes its lock over.")


def _pids(held: object) -> Iterator[int]:
    """Every number under a key ``pid``, however deep."""
    if isinstance(held, dict):
        if isinstance(pid := held.get("pid"), int):
            yield pid
        held = list(held.values())
    if isinstance(held, list):
        for value in held:
            yield from _pids(value)


def _git(project: Project, *arguments: str) -> str:
    """What git prints; nothing where it fails or is absent."""
    try:
        done = subprocess.run(["git", "-C", str(project.root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
