"""What `make up` keeps running, killed and hung for real: it comes back, runs go on, people are told."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import psutil
import pytest

from calotype.errors import CalotypeError
from calotype.project import Project
from calotype.services import web
from calotype.services.resumption import EXECUTED, FLOW_RUN, HEARTBEAT, RESUMED, SUBMITTED, Resumption
from calotype.services.supervisor import MARK, Supervisor
from tests.conftest import make_dvc_project, run
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SECRET = "hunter2"


@dataclass
class Mailbox:
    """A real HTTP server that keeps what is posted to it."""

    received: list[str] = field(default_factory=list)
    server: HTTPServer = field(init=False)

    def __post_init__(self) -> None:
        received = self.received

        class Keeps(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Keeps)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"json://user:{SECRET}@127.0.0.1:{self.server.server_port}/"


@dataclass
class Line:
    """A project whose servers run."""

    project: Project
    prefect: str
    mlflow: str
    mailbox: Mailbox

    def ask(self, path: str, body: Any = None) -> Any:
        """Ask Prefect's server; one that has just been started again, on a busy machine, takes its time."""
        last = time.monotonic() + 120
        while True:
            try:
                return web.ask(f"{self.prefect}/api{path}", body)
            except CalotypeError as error:
                if "no answer" not in str(error) or time.monotonic() > last:
                    raise
                time.sleep(1)

    def pid(self, name: str) -> int:
        return Supervisor(self.project.services).pid(name)

    def start_training(self, epochs: int) -> dict[str, Any]:
        """Start a training of so many epochs, without waiting for it."""
        text = self.project.params.read_text()
        self.project.params.write_text(re.sub(r"\n  epochs: \d+", f"\n  epochs: {epochs}", text))
        deployment = self.ask("/deployments/name/training/local")["id"]
        return dict(self.ask(f"/deployments/{deployment}/create_flow_run", {"state": {"type": "SCHEDULED"}}))

    def run(self, made: dict[str, Any]) -> dict[str, Any]:
        return dict(self.ask(f"/flow_runs/{made['id']}"))

    def states(self, made: dict[str, Any]) -> list[str]:
        return [state["name"] for state in self.ask(f"/flow_run_states/?flow_run_id={made['id']}")]

    def trains(self) -> bool:
        """Whether a stage `train` is at work, past its first epochs."""
        return any(
            "calotype train" in " ".join(process.cmdline()) and process.cpu_times().user > 6
            for process in Supervisor(self.project.services).marked()
        )

    def engines(self, made: dict[str, Any]) -> list[psutil.Process]:
        """The processes that carry out the flow run: one, or none before its start and after its end."""
        found = []
        for process in Supervisor(self.project.services).marked():
            with contextlib.suppress(psutil.Error):
                is_engine = process.cmdline()[-1:] == ["engine"] or "prefect.engine" in process.cmdline()
                if is_engine and process.environ().get(FLOW_RUN) == made["id"]:
                    found.append(process)
        return found

    def set_state(self, made: dict[str, Any], kind: str, name: str) -> None:
        self.ask(f"/flow_runs/{made['id']}/set_state", {"state": {"type": kind, "name": name}, "force": True})

    def pause_pool(self, paused: bool) -> None:
        web.ask(f"{self.prefect}/api/work_pools/calotype", {"is_paused": paused}, method="PATCH")

    def watches(self, count: int) -> list[Resumption]:
        """Watches of other machines."""
        return [Resumption(Supervisor(self.project.services)) for _ in range(count)]

    def say_that_a_start_is_over(self, made: dict[str, Any]) -> None:
        """Say what a worker says of a run that it started, when it has reported its end."""
        start, end = str(uuid.uuid4()), str(uuid.uuid4())
        related = [{"prefect.resource.id": f"prefect.flow-run.{made['id']}", "prefect.resource.role": "flow-run"}]
        common = {
            "occurred": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "resource": {"prefect.resource.id": "prefect.worker.process.second"},
            "related": related,
        }
        self.ask(
            "/events",
            [common | {"id": start, "event": SUBMITTED}, common | {"id": end, "event": EXECUTED, "follows": start}],
        )

    def engine(self, made: dict[str, Any]) -> psutil.Process:
        """The process of the flow run."""
        (found,) = self.engines(made)
        return found

    def status(self) -> tuple[int, str]:
        done = run(self.project, "calotype", "status")
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    project = make_dvc_project(tmp_path_factory.mktemp("services") / "a project")
    mailbox = Mailbox()
    started = run(project, "calotype", "up", CALOTYPE_NOTIFY_URLS=mailbox.url)
    try:
        assert started.returncode == 0, started.stderr
        prefect, mlflow = re.findall(r"http://127\.0\.0\.1:\d+", started.stdout)[:2]
        yield Line(project, prefect, mlflow, mailbox)
    finally:
        run(project, "calotype", "down")
        mailbox.server.shutdown()
        mailbox.server.server_close()
    assert Supervisor(project.services).marked() == []


def test_status_says_that_all_is_well_and_names_each_part(line: Line) -> None:
    assert until(lambda: line.status()[0] == 0, 60), line.status()
    _, text = line.status()
    assert [row.split()[0] for row in text.splitlines()[1:5]] == ["prefect", "mlflow", "worker", "watch"]
    assert "training/local" in text
    assert text.endswith("all is well\n")


def test_doctor_finds_both_servers_and_no_problem(line: Line) -> None:
    done = run(line.project, "calotype", "doctor")
    assert done.returncode == 0, done.stdout
    for words in ("prefect 3", "mlflow 3", "as prefect's server's", "none that Prefect wrongly calls Running"):
        assert words in done.stdout, done.stdout


def test_the_page_of_addresses_is_renewed_while_the_servers_run(line: Line) -> None:
    path = line.project.services / "index.html"
    before = path.read_text()
    assert f'href="{line.prefect}/deployments"' in before
    assert until(lambda: path.read_text() != before, 40)
    assert "All is well." in path.read_text()


def test_a_second_up_makes_no_second_automation_and_removes_what_is_no_longer_wanted(line: Line) -> None:
    from calotype.services import automations

    ids = [deployment["id"] for deployment in line.ask("/deployments/filter", {})]

    def names() -> list[str]:
        return sorted(
            item["name"] for item in line.ask("/automations/filter", {}) if item["name"].startswith("calotype")
        )

    before = names()
    assert len(before) == 4
    automations.make(f"{line.prefect}/api", ids, [line.mailbox.url])
    assert names() == before
    automations.make(f"{line.prefect}/api", ids, [])
    assert len(names()) == 2
    automations.make(f"{line.prefect}/api", ids, [line.mailbox.url])
    assert names() == before


def test_an_automation_that_a_person_disabled_stays_disabled(line: Line) -> None:
    from calotype.services import automations

    ids = [deployment["id"] for deployment in line.ask("/deployments/filter", {})]

    def silent() -> dict[str, Any]:
        there = line.ask("/automations/filter", {})
        return next(dict(item) for item in there if item["name"] == "calotype: a run without heartbeats is Crashed")

    for enabled in (False, True):
        web.ask(f"{line.prefect}/api/automations/{silent()['id']}", {"enabled": enabled}, method="PATCH")
        automations.make(f"{line.prefect}/api", ids, [line.mailbox.url])
        assert silent()["enabled"] is enabled


def test_bad_data_fails_once_people_are_told_and_nothing_is_tried_again(line: Line) -> None:
    source = line.project.root / "data" / "raw" / "digits"
    away = source.with_name("away")
    source.rename(away)
    made = line.start_training(2)
    assert until(lambda: line.run(made)["state_type"] == "FAILED", 90), line.states(made)
    away.rename(source)
    assert until(lambda: any(made["name"] in text for text in line.mailbox.received), 30)
    time.sleep(5)
    assert (line.run(made)["state_type"], line.run(made)["run_count"]) == ("FAILED", 1)
    tasks = line.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [made["id"]]}}})
    assert [task["run_count"] for task in tasks] == [1]
    told = json.loads(next(text for text in line.mailbox.received if made["name"] in text))
    assert "training failed" in told["title"]
    assert "exit code" in told["message"]
    code, text = line.status()
    assert code == 0
    assert text.splitlines()[-2] == "servers and worker are well"
    assert text.splitlines()[-1].startswith("WARNING: the last run of training/local ended Failed. Its log: http://")


def test_what_dies_or_hangs_is_back_and_the_next_flow_run_works(line: Line) -> None:
    before = {name: line.pid(name) for name in ("prefect", "mlflow", "worker", "watch")}
    hung = psutil.Process(before["mlflow"])
    for process in [hung, *hung.children()]:
        process.suspend()
    for name in ("prefect", "worker"):
        os.kill(before[name], signal.SIGKILL)
    # Three rounds of 10 s and 5 s without an answer, then the start.
    assert until(lambda: line.pid("mlflow") not in (0, before["mlflow"]) and line.status()[0] == 0, 240), line.status()
    os.kill(before["watch"], signal.SIGKILL)
    assert until(lambda: line.pid("watch") not in (0, before["watch"]), 30)
    made = line.start_training(15)
    assert until(lambda: line.run(made)["state_type"] == "COMPLETED", 240), line.states(made)
    assert "did not answer 3 times: ended" in (line.project.root / "logs" / "watch.log").read_text()


def test_the_first_servers_death_leaves_no_port_taken(line: Line) -> None:
    before = line.pid("mlflow")
    os.kill(before, signal.SIGKILL)
    assert until(lambda: line.pid("mlflow") not in (0, before) and web.answers(f"{line.mlflow}/health"), 90)


def test_a_run_whose_process_is_killed_goes_on_once_and_never_as_two_processes(line: Line) -> None:
    made = line.start_training(200)
    assert until(line.trains, 120), line.states(made)
    line.engine(made).kill()
    at_once = [0]

    def is_over() -> bool:
        at_once.append(len(line.engines(made)))
        return bool(line.run(made)["state_type"] in ("COMPLETED", "FAILED"))

    assert until(is_over, 240), line.states(made)
    assert max(at_once) == 1
    assert line.run(made)["state_type"] == "COMPLETED"
    assert line.run(made)["run_count"] == 2
    states = line.states(made)
    assert (states.count("Crashed"), states.count("AwaitingRetry")) == (1, 1), states


def test_each_death_is_answered_once_however_many_watches_look_and_the_third_never(line: Line) -> None:
    line.pause_pool(True)
    deployment = line.ask("/deployments/name/training/local")["id"]
    made = line.ask(f"/deployments/{deployment}/create_flow_run", {"state": {"type": "RUNNING"}})
    try:
        for death in (1, 2, 3):
            line.set_state(made, "CRASHED", "Crashed")
            line.say_that_a_start_is_over(made)

            def goes_on(turns: int = min(death, RESUMED)) -> bool:
                with ThreadPoolExecutor(4) as watches:
                    rounds = [watches.submit(watch.take_round, f"{line.prefect}/api") for watch in line.watches(4)]
                for done in rounds:
                    done.result()
                return line.states(made).count("AwaitingRetry") == turns

            assert until(goes_on, 30), line.states(made)
            assert line.run(made)["run_count"] == death
            assert line.run(made)["state_name"] == ("Crashed" if death > RESUMED else "AwaitingRetry")
            line.set_state(made, "RUNNING", "Running")
    finally:
        line.set_state(made, "CANCELLED", "Cancelled")
        line.pause_pool(False)
    assert line.states(made).count("AwaitingRetry") == RESUMED


def test_a_silent_run_is_dead_when_no_heartbeat_comes_and_nothing_of_it_is_left_here(line: Line) -> None:
    api, (watch,) = f"{line.prefect}/api", line.watches(1)
    silent, heard = (
        {"id": str(uuid.uuid4()), "name": name, "state": {"timestamp": "2026-01-01T00:00:00Z"}}
        for name in ("silent", "heard")
    )
    assert watch._is_dead(api, silent)
    marked = {MARK: str(line.project.services), FLOW_RUN: str(silent["id"])}
    left = subprocess.Popen(["sleep", "600"], env=dict(os.environ) | marked)
    left.send_signal(signal.SIGSTOP)
    assert not watch._is_dead(api, silent)
    assert left.wait(5) == -signal.SIGKILL
    assert not watch._is_dead(api, silent)  # its worker may have to report that end yet
    heartbeat = {
        "id": str(uuid.uuid4()),
        "occurred": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "event": HEARTBEAT,
        "resource": {"prefect.resource.id": f"prefect.flow-run.{heard['id']}"},
    }
    line.ask("/events", [heartbeat])
    assert until(lambda: not watch._is_dead(api, heard), 30)


def test_a_run_that_died_with_its_worker_is_crashed_in_two_minutes_and_goes_on(line: Line) -> None:
    made = line.start_training(100_000)
    assert until(line.trains, 120), line.states(made)
    died = time.monotonic()
    for process in (psutil.Process(line.pid("worker")), line.engine(made)):
        process.kill()
    assert until(lambda: "Crashed" in line.states(made), 130), line.states(made)
    crashed_s = time.monotonic() - died
    assert until(lambda: line.run(made)["run_count"] == 2 and line.trains(), 180), line.states(made)
    print(f"Crashed after {crashed_s:.0f} s, trains again after {time.monotonic() - died:.0f} s")
    assert "train: resumes after epoch" in (line.project.root / "logs" / "worker.log").read_text()
    for before in (2, 3):  # a worker that dies alone takes its runs along at once
        os.kill(line.pid("worker"), signal.SIGKILL)
        assert until(lambda count=before: line.states(made).count("Crashed") == count, 130), line.states(made)
        if before < 3:
            assert until(lambda: line.run(made)["run_count"] == 3 and line.trains(), 180), line.states(made)
    assert until(lambda: not line.trains(), 30)
    assert until(lambda: line.engines(made) == [], 60)


def test_a_verdict_and_a_drift_are_told_and_no_secret_is_written_anywhere(line: Line) -> None:
    made = line.start_training(15)
    assert until(lambda: line.run(made)["state_type"] in ("COMPLETED", "FAILED"), 240), line.states(made)
    verdicts = {"event": {"prefix": ["calotype.promotion."]}}
    found = until(lambda: line.ask("/events/filter", {"filter": verdicts})["events"], 30)
    assert {event["event"].rpartition(".")[2] for event in found} <= {"promoted", "held", "rejected"}
    deployment = line.ask("/deployments/name/training/local")["id"]
    event = {
        "occurred": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "event": "calotype.drift.detected",
        "id": "00000000-0000-4000-8000-000000000001",
        "resource": {"prefect.resource.id": "calotype.model.digits"},
        "related": [{"prefect.resource.id": f"prefect.deployment.{deployment}", "prefect.resource.role": "deployment"}],
        "payload": {"summary": "drift in 3 of the last 5 windows"},
    }
    line.ask("/events", [event])
    assert until(lambda: any("drift in 3 of the last 5 windows" in text for text in line.mailbox.received), 30)
    written = [*(line.project.root / "logs").glob("*.log"), *line.project.services.glob("*.*")]
    assert [path for path in written if path.is_file() and SECRET in path.read_text(errors="replace")] == []
    assert SECRET not in json.dumps(line.ask("/block_documents/filter", {}))


def test_a_run_that_down_cut_off_goes_on_after_the_next_up(line: Line) -> None:
    made = line.start_training(100_000)
    assert until(line.trains, 120), line.states(made)
    assert run(line.project, "calotype", "down").stderr == "down: all ended\n"
    assert Supervisor(line.project.services).marked() == []
    assert line.status() == (1, "nothing runs here. Start it with `make up`.\n")
    again = run(line.project, "calotype", "up")
    assert again.returncode == 0, again.stderr
    line.prefect, line.mlflow = re.findall(r"http://127\.0\.0\.1:\d+", again.stdout)[:2]
    assert until(lambda: line.run(made)["run_count"] == 2, 90), line.states(made)
    with urllib.request.urlopen(f"{line.prefect}/api/health", timeout=10) as reply:
        assert reply.status == 200
    assert len([item for item in line.ask("/automations/filter", {}) if item["name"].startswith("calotype")]) == 2
