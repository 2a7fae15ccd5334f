"""What runs and what is recorded: servers, versions, clocks, MLflow's store, runs that nobody runs, the champion."""

from __future__ import annotations

import contextlib
import email.utils
import os
import re
import sqlite3
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock, Timeout

from calotype import databases, params
from calotype.doctor.check import Check, ok, problem, warning
from calotype.errors import CalotypeError
from calotype.monitoring import windows
from calotype.predictions import reading
from calotype.predictions.tables import FILES, PREDICTIONS
from calotype.production import labels_table
from calotype.project import Project
from calotype.releases import ledger
from calotype.services import status, web
from calotype.services.supervisor import Supervisor

VERSIONS = {"prefect": "/api/admin/version", "mlflow": "/version"}

SKEW_S = 5.0
"""Seconds by which two clocks may differ: runs and windows are put in order by them."""

SILENT = timedelta(minutes=10)
"""A run without a heartbeat for so long has no process: Prefect's own distance between two is 3 minutes."""

REVISION = re.compile(r"^revision\b[^=]*= *[\"'](\w+)[\"']", re.MULTILINE)
PARENT = re.compile(r"^down_revision\b[^=]*= *[\"'](\w+)[\"']", re.MULTILINE)


def checks(project: Project) -> Iterator[Check]:
    """Look at the servers, then at what they and the files recorded."""
    addresses = {name: status.named_elsewhere(name) for name in status.HEALTH}
    own = status.addresses_of(project)
    addresses = {name: named or own.get(name, "") for name, named in addresses.items()}
    yield from servers(project, addresses)
    yield from named_databases(project)
    yield from store(project)
    yield from training_runs(project)
    if addresses["prefect"] and web.answers(addresses["prefect"] + status.HEALTH["prefect"]):
        yield flow_runs(addresses["prefect"])
    yield tables(project)
    yield champion(project)


def servers(project: Project, addresses: dict[str, str]) -> Iterator[Check]:
    """Whether what should answer answers, in this environment's version and at this machine's time."""
    supervisor = Supervisor(project.services)
    if not supervisor.process() and (left := supervisor.marked()):
        found = f"{len(left)} processes of a `make up` whose supervisord is gone"
        yield problem("servers", found, "`make down` ends them, `make up` starts anew.")
    asked = {name: address for name, address in addresses.items() if address.startswith("http")}
    if not asked:
        yield ok("servers", "none run here; `make up` starts them")
    for name, address in asked.items():
        yield from server(name, address)


def server(name: str, address: str) -> Iterator[Check]:
    """One server: health, version, clock."""
    shown = databases.without_password(address)
    try:
        with urllib.request.urlopen(address + status.HEALTH[name], timeout=web.HEALTH_LIMIT_S) as reply:
            date = reply.headers.get("Date", "")
        with urllib.request.urlopen(address + VERSIONS[name], timeout=web.HEALTH_LIMIT_S) as reply:
            theirs = reply.read().decode(errors="replace").strip().strip('"')
    except web.UNREACHED as error:
        reason = getattr(error, "reason", error)
        advice = f"`make status` says more; see logs/{name}.log, or correct {status.VARIABLES[name]}."
        yield problem("servers", f"{name} does not answer at {shown} ({reason})", advice)
        return
    yield ok("servers", f"{name} {theirs} at {shown} is well")
    ours = version(name)
    if theirs != ours:
        advice = "Use the same version on both sides: `make setup` here, or install it there."
        yield warning("servers", f"{name} is {theirs} there and {ours} here", advice)
    yield from clock(name, date)


def clock(name: str, date: str) -> Iterator[Check]:
    """Compare this machine's clock with the date that a server wrote into its answer."""
    try:
        skew = time.time() - email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return
    if abs(skew) > SKEW_S:
        found = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} {name}'s server"
        yield problem("clock", found, "Set both by NTP: the order of runs and windows hangs on it.")
    else:
        yield ok("clock", f"as {name}'s server's")


def named_databases(project: Project) -> Iterator[Check]:
    """Whether the databases that the environment names for the servers let us in."""
    named = {variable: os.environ.get(variable, "") for variable in databases.PREFECT}
    for variable, url in (named | {"CALOTYPE_MLFLOW_STORE": project.mlflow_store}).items():
        if not databases.is_postgres(url):
            continue
        try:
            databases.require(url, variable)
        except CalotypeError as error:
            yield problem("databases", str(error), "`make up` asks it first, and starts nothing without it.")
        else:
            yield ok("databases", f"{databases.without_password(url)} lets us in")


def store(project: Project) -> Iterator[Check]:
    """Whether the embedded store's tables are those of the MLflow that is installed."""
    path = _embedded_store(project)
    if path is None:
        return
    try:
        with _database(path) as database:
            found = {row[0] for row in database.execute("SELECT version_num FROM alembic_version")}
    except sqlite3.Error as error:
        advice = "Restore it from a copy, or move it away: runs are written anew from models/run.json."
        yield problem("MLflow's store", f"{project.relative(path)} cannot be read: {error}", advice)
        return
    known, head = _revisions()
    if found == head:
        yield ok("MLflow's store", f"schema {min(head)}, that of this MLflow")
    elif found <= known:
        advice = f"Copy the file, then `mlflow db upgrade sqlite:///{project.relative(path)}`."
        yield problem("MLflow's store", f"schema {', '.join(found)} is older than this MLflow's", advice)
    else:
        advice = "A newer MLflow wrote it: install that one, say by `make setup`."
        yield problem("MLflow's store", f"schema {', '.join(found)} is unknown to this MLflow", advice)


def training_runs(project: Project) -> Iterator[Check]:
    """Runs that MLflow's store calls RUNNING while no training runs here."""
    path = _embedded_store(project)
    if path is None or _is_training(project):
        return
    query = "SELECT run_uuid FROM runs WHERE status = 'RUNNING' AND lifecycle_stage = 'active'"
    try:
        with _database(path) as database:
            runs = [row[0] for row in database.execute(query)]
    except sqlite3.Error:
        return
    if runs:
        found = f"{len(runs)} MLflow runs are RUNNING and no training runs here, {runs[0]} say"
        yield warning("runs", found, "`dvc repro` takes a killed training up again; delete others on MLflow's page.")
    else:
        yield ok("runs", "none that MLflow wrongly calls RUNNING")


def flow_runs(prefect: str) -> Check:
    """Runs that Prefect calls Running though they have sent no heartbeat for ten minutes."""
    since = (datetime.now(UTC) - SILENT).isoformat()
    try:
        running = web.ask(
            f"{prefect}/api/flow_runs/filter",
            {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}, "start_time": {"before_": since}}},
        )
        beats = {"event": {"name": ["prefect.flow-run.heartbeat"]}, "occurred": {"since": since}}
        silent = [
            run["name"]
            for run in running
            if not web.ask(
                f"{prefect}/api/events/filter",
                {"filter": beats | {"resource": {"id": [f"prefect.flow-run.{run['id']}"]}}, "limit": 1},
            )["events"]
        ]
    except CalotypeError as error:
        return warning("runs", f"Prefect does not list them: {error}", "See logs/prefect.log.")
    if silent:
        found = f"Prefect calls {', '.join(silent)} Running, silent for 10 minutes"
        return warning("runs", found, "Delete it, or set its state to Crashed, on its page.")
    return ok("runs", "none that Prefect wrongly calls Running")


def tables(project: Project) -> Check:
    """Whether what lies at the places of the tables of production is ours."""
    ours = {
        "predictions": PREDICTIONS,
        "files": FILES,
        labels_table.NAME: labels_table.LABELS,
        windows.NAME: windows.WINDOWS,
    }
    try:
        for name, kind in ours.items():
            reading.open_checked(project, name, kind)
    except CalotypeError as error:
        return problem("tables", str(error), "Until then whatever needs this table fails.")
    return ok("tables", f"those in {project.relative(project.predictions)} are ours, or yet to be made")


def champion(project: Project) -> Check:
    """Whether there is a champion that can predict."""
    try:
        name = params.load(project.params).name
        head = ledger.read(project.ledger, name).head
    except CalotypeError as error:
        return problem("champion", str(error), "Without the ledger nobody knows the champion.")
    if head is None:
        advice = "Train, then `calotype register` and `calotype promote`; until then nothing is predicted."
        return warning("champion", f"{name} has none", advice)
    return ok("champion", f"{name} version {head}")


def _embedded_store(project: Project) -> Path | None:
    """The store's file, where it is a file of this project: a server or a database elsewhere keeps its own order."""
    path = project.mlruns / "mlflow.db"
    is_used = project.mlflow_store == f"sqlite:///{path}" and not os.environ.get("MLFLOW_TRACKING_URI")
    return path if is_used and path.is_file() else None


def _is_training(project: Project) -> bool:
    path = project.cache / "locks" / "train.lock"
    if not path.exists():
        return False
    try:
        FileLock(path).acquire(timeout=0).lock.release()
    except Timeout:
        return True
    return False


@contextlib.contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    """Read a database, and neither make nor lock it."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=2)
    try:
        yield connection
    finally:
        connection.close()


def _revisions() -> tuple[set[str], set[str]]:
    """All schemas that this MLflow knows, and the newest; from its files, for its import takes seconds."""
    spec = find_spec("mlflow")
    folder = Path(spec.origin or "").parent if spec else Path()
    texts = [path.read_text(encoding="utf-8") for path in (folder / "store/db_migrations/versions").glob("*.py")]
    known = {match[1] for text in texts if (match := REVISION.search(text))}
    parents = {match[1] for text in texts if (match := PARENT.search(text))}
    return known, known - parents
