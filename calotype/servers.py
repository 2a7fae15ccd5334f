"""Prefect's server, MLflow's server and a worker: up, down, and MLflow's pages alone.

Imports neither Prefect nor MLflow: both run as programs of this interpreter. ``PREFECT_API_URL`` and
``MLFLOW_TRACKING_URI`` name servers that run elsewhere; what they name is used and not started here.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from calotype import databases
from calotype.console import say
from calotype.errors import CalotypeError, UsageError
from calotype.files import write_json, write_text
from calotype.project import Project
from calotype.services import automations, deployments, notifications, page, ports, status, web
from calotype.services.settle import settle
from calotype.services.status import HEALTH, POOL, VARIABLES, WORKER, addresses_of, named_elsewhere, not_heeded
from calotype.services.supervisor import FAILED, Supervisor, wait_until

PREFECT_PORT = 4200
MLFLOW_PORT = 5000
START_LIMIT_S = 180.0
SERVER = "calotype.services.program"
"""The module that becomes a server once nothing of an earlier one is left."""

MARK = "# Written by `calotype up`, removed by `calotype down`.\n"

SILENT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
}
"""Environment that keeps every tool from reporting its use."""

MAKE_STORE = "from calotype import tracking; from calotype.project import Project; tracking.connect(Project.find())"


def up(project: Project) -> None:
    """Start the servers and the worker, deploy the flows, print the addresses; say so if all runs already.

    Raises
    ------
    CalotypeError
        If one of them does not start; its last log lines are in the message, and nothing is left running. If a server
        that the environment names does not answer.
    UsageError
        If prefect.yaml or the addresses of notifications cannot work.
    """
    with _alone(project):
        supervisor = Supervisor(project.services)
        if supervisor.process():
            _report_running(project, supervisor)
            return
        _require_own_settings(project)
        deployments.read(project)
        notifications.addresses()
        _require_named()
        _require_databases(project)
        if _stop(project, supervisor):
            say("up", "ended what an earlier start had left")
        with _addresses() as addresses:
            try:
                _start(project, supervisor, addresses)
            except BaseException:
                _stop(project, supervisor)
                raise
        _print_addresses(project, addresses)


def down(project: Project) -> None:
    """End everything that `up` started, and remove what told shells of it."""
    with _alone(project):
        ran = _stop(project, Supervisor(project.services))
        say("down", "all ended" if ran else "nothing was running")


def ui(project: Project) -> None:
    """Serve MLflow's pages on this project's runs, in the foreground, until interrupted."""
    environment = environment_for(project)
    _make_store(project, environment)
    with ports.claimed(MLFLOW_PORT) as port:
        print(f"MLflow  http://127.0.0.1:{port}  (Ctrl-C ends it)", flush=True)
        command = [sys.executable, "-P", "-m", *_mlflow_command(port).split()]
        process = subprocess.Popen(command, cwd=project.root, env=environment, start_new_session=True)
        previous = signal.signal(signal.SIGTERM, _interrupt)
        try:
            code = process.wait()
        except KeyboardInterrupt:
            code = 0
        finally:
            signal.signal(signal.SIGTERM, previous)
            _end_group(process)
    if code:
        raise CalotypeError(f"MLflow's server ended with exit code {code}. Its last lines are above.")


def mlflow_address(project: Project) -> str | None:
    """Where MLflow's pages answer: a server of the environment or of `up`, else None."""
    named = os.environ.get("MLFLOW_TRACKING_URI", "")
    if named.startswith("http"):
        return named.rstrip("/")
    return addresses_of(project).get("mlflow")


def environment_for(project: Project, prefect_api: str | None = None) -> dict[str, str]:
    """Environment of servers and worker: this project, this interpreter, no telemetry."""
    here = Path(sys.executable).parent
    paths = {
        "CALOTYPE_ROOT": str(project.root),
        # Of MLflow's server. On its command line everyone on the machine would read a password.
        "MLFLOW_BACKEND_STORE_URI": project.mlflow_store,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": project.mlflow_artifacts,
        "PATH": os.pathsep.join([str(here), os.environ.get("PATH", os.defpath)]),
        "PREFECT_HOME": str(project.root / ".prefect"),
        # Prefect's workers share /tmp/runner_storage, which belongs to the first user of the machine who started one.
        "TMPDIR": str(project.services / "tmp"),
        # The worker's runs start in a temporary folder; the code is the checkout's.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(project.root), os.environ.get("PYTHONPATH")])),
    }
    if sys.prefix != sys.base_prefix:
        paths["VIRTUAL_ENV"] = sys.prefix
    if prefect_api:
        paths["PREFECT_API_URL"] = prefect_api
    tuning = {
        # Job workers would be several processes of 250 MB each.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }
    given = {name: value for name, value in os.environ.items() if name != notifications.VARIABLE}
    return given | SILENT | tuning | paths


def _start(project: Project, supervisor: Supervisor, addresses: dict[str, str]) -> None:
    (project.root / "logs").mkdir(exist_ok=True)
    (project.services / "tmp").mkdir(exist_ok=True)
    environment = environment_for(project, addresses["prefect"] + "/api")
    supervisor.start(_programs(addresses), environment)
    write_json(project.services / "addresses.json", addresses)
    if "prefect" in supervisor.states():
        say("up", "starting Prefect's server")
        supervisor.start_program("prefect")
    _make_store(project, environment)
    if "mlflow" in supervisor.states():
        say("up", "starting MLflow's server")
        supervisor.start_program("mlflow")
    api = addresses["prefect"] + "/api"
    _wait(project, supervisor, addresses["prefect"] + HEALTH["prefect"], "prefect")
    if "prefect" in supervisor.states():
        settle(api)
    say("up", "starting the worker, deploying the flows")
    supervisor.start_program("worker")
    _wait(project, supervisor, f"{api}/work_pools/{POOL}", "worker")
    _deploy(project, environment)
    found = web.ask(f"{api}/deployments/filter", {"work_pools": {"name": {"any_": [POOL]}}})
    automations.make(api, [deployment["id"] for deployment in found], notifications.addresses())
    _wait(project, supervisor, addresses["mlflow"] + HEALTH["mlflow"], "mlflow")
    supervisor.start_program("watch")
    page.write(project, status.read(project))
    write_text(project.root / "prefect.toml", _prefect_toml(project, addresses))


def _programs(addresses: dict[str, str]) -> dict[str, str]:
    """What supervisord runs: only servers that the environment does not name elsewhere, the worker, the watch."""
    programs = {}
    if not os.environ.get("PREFECT_API_URL"):
        port = addresses["prefect"].rpartition(":")[2]
        programs["prefect"] = f"{SERVER} prefect server start --host 127.0.0.1 --port {port}"
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        programs["mlflow"] = f"{SERVER} {_mlflow_command(int(addresses['mlflow'].rpartition(':')[2]))}"
    worker = f"prefect worker start --pool {POOL} --type process --name {WORKER}"
    return programs | {"worker": worker, "watch": "calotype.services.watch"}


def _mlflow_command(port: int) -> str:
    return f"mlflow server --no-serve-artifacts --workers 1 --host 127.0.0.1 --port {port}"


@contextlib.contextmanager
def _addresses() -> Iterator[dict[str, str]]:
    """Where the servers are or will be; the ports of those to start here are ours while this lasts."""
    with contextlib.ExitStack() as claims:

        def own(first: int) -> str:
            return f"http://127.0.0.1:{claims.enter_context(ports.claimed(first))}"

        yield {
            "prefect": named_elsewhere("prefect") or own(PREFECT_PORT),
            "mlflow": named_elsewhere("mlflow") or own(MLFLOW_PORT),
        }


def _require_databases(project: Project) -> None:
    """Ask the databases of both servers first: a server that waits for one fails after minutes, with a traceback."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        databases.require(project.mlflow_store, "CALOTYPE_MLFLOW_STORE")
    for variable in databases.PREFECT:
        if not os.environ.get("PREFECT_API_URL"):
            databases.require(os.environ.get(variable, ""), variable)


def _require_named() -> None:
    """Ask the servers elsewhere first: without them nothing else can start, and each would wait for minutes."""
    mlflow = named_elsewhere("mlflow")
    if mlflow and not mlflow.startswith("http"):
        raise UsageError(
            f"MLFLOW_TRACKING_URI is {databases.without_password(mlflow)}: expected a server's http address, or "
            "nothing. A database for the server that `up` starts is named by CALOTYPE_MLFLOW_STORE."
        )
    for server, path in HEALTH.items():
        if address := named_elsewhere(server):
            web.require(address + path, VARIABLES[server], os.environ[VARIABLES[server]])


def _make_store(project: Project, environment: dict[str, str]) -> None:
    """Make MLflow's database first: two processes that make it at once break each other's migrations."""
    _run([sys.executable, "-c", MAKE_STORE], project, environment, "MLflow's store could not be made")


def _deploy(project: Project, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "prefect", "deploy", "--all", "--no-prompt"]
    _run(command, project, environment, "the flows could not be deployed")


def _run(command: list[str], project: Project, environment: dict[str, str], failure: str) -> None:
    done = subprocess.run(
        command, cwd=project.root, env=environment, text=True, capture_output=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()[-15:]
        raise CalotypeError("\n".join([f"{failure}. The last lines:", *lines]))


def _wait(project: Project, supervisor: Supervisor, url: str, program: str) -> None:
    started: set[int] = set()

    def answers() -> bool:
        state = supervisor.states().get(program)
        if state == "RUNNING":
            started.add(supervisor.pid(program))
        # Started twice: it ended by itself, and supervisord tries again.
        if state in FAILED or len(started - {0}) > 1:
            raise CalotypeError(
                "\n".join([f"{program} did not start. logs/{program}.log ends:", *_tail(project, program)])
            )
        return web.answers(url) and _is_ours(supervisor, program, url)

    try:
        wait_until(answers, START_LIMIT_S, f"{program} to answer at {url}")
    except CalotypeError as error:
        if str(error).startswith("waited"):
            raise CalotypeError("\n".join([f"{error} logs/{program}.log ends:", *_tail(project, program)])) from error
        raise


def _is_ours(supervisor: Supervisor, program: str, url: str) -> bool:
    """Whether the server that answers is the one that was started here: another's may have its port."""
    if program not in HEALTH or program not in supervisor.states():
        return True
    return ports.listens(supervisor.pid(program), urlsplit(url).port or 0)


def _tail(project: Project, program: str, lines: int = 15) -> list[str]:
    path = project.root / "logs" / f"{program}.log"
    return path.read_text(errors="replace").splitlines()[-lines:] if path.exists() else []


def _stop(project: Project, supervisor: Supervisor) -> bool:
    ran = supervisor.stop("worker")
    settings = project.root / "prefect.toml"
    if settings.exists() and settings.read_text().startswith(MARK):
        settings.unlink()
    (project.services / "addresses.json").unlink(missing_ok=True)
    page.path_of(project).unlink(missing_ok=True)
    return ran


def _report_running(project: Project, supervisor: Supervisor) -> None:
    states = supervisor.states()
    ended = [name for name, state in states.items() if state in (*FAILED, "STOPPED")]
    if ended:
        lines = [f"{name} has ended. logs/{name}.log ends:\n" + "\n".join(_tail(project, name)) for name in ended]
        raise CalotypeError("\n".join([*lines, "Run `calotype down`, then `calotype up`."]))
    say("up", "runs already: " + ", ".join(f"{name} {state.lower()}" for name, state in states.items()))
    for line in not_heeded(project):
        say("up", line)
    _print_addresses(project, addresses_of(project))


def _print_addresses(project: Project, addresses: dict[str, str]) -> None:
    here = project.relative(Path(sys.executable).parent)
    print(f"Prefect  {addresses.get('prefect')}\nMLflow   {addresses.get('mlflow')}")
    print(f"All      {page.path_of(project).as_uri()}\n\nTry next:")
    print(f"  {here}/prefect deployment run training/local --watch")
    print(f"  {here}/prefect deployment run batch-prediction/nightly --watch")
    print(f"  {here}/calotype status")
    print(f"  {here}/calotype down", flush=True)


def _prefect_toml(project: Project, addresses: dict[str, str]) -> str:
    home, url = json.dumps(str(project.root / ".prefect")), json.dumps(addresses["prefect"] + "/api")
    return f"{MARK}home = {home}\n\n[api]\nurl = {url}\n"


def _require_own_settings(project: Project) -> None:
    path = project.root / "prefect.toml"
    if path.exists() and not path.read_text().startswith(MARK):
        raise UsageError(f"{path}: exists, and `calotype up` did not write it. Move it away: up writes its own.")


@contextlib.contextmanager
def _alone(project: Project) -> Iterator[None]:
    project.services.mkdir(parents=True, exist_ok=True)
    lock = FileLock(project.services / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise CalotypeError("another `calotype up` or `calotype down` is at work here. Wait for it.") from error
    try:
        yield
    finally:
        lock.release()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
