"""Both servers, the worker and a schedule, for real, in a project of its own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calotype.project import Project
from calotype.services import web
from calotype.services.supervisor import Supervisor
from tests.conftest import environment, make_dvc_project, run
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Servers:
    """A project whose servers run, and their answers."""

    def __init__(self, project: Project, printed: str) -> None:
        self.project = project
        self.prefect, self.mlflow = re.findall(r"http://127\.0\.0\.1:\d+", printed)[:2]

    def post(self, path: str, body: dict[str, Any]) -> Any:
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"{self.prefect}/api{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """Runs that have started at least, the latest first."""
        started = {"type": {"not_any_": ["SCHEDULED", "PENDING"]}}
        only = {"flows": {"name": {"any_": [flow]}}, "flow_runs": {"state": started}, "sort": "START_TIME_DESC"}
        return list(self.post("/flow_runs/filter", only))

    def command(self, *arguments: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
        return run(self.project, "prefect", *arguments, timeout=timeout)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    project = make_dvc_project(tmp_path_factory.mktemp("servers") / "a project")
    deployments = project.root / "prefect.yaml"
    nightly = '{cron: "0 2 * * *", timezone: UTC}'
    assert nightly in deployments.read_text()
    deployments.write_text(deployments.read_text().replace(nightly, "{interval: 20}"))
    # Two epochs of 300 images do not always beat the commonest class, and the gate would refuse.
    project.params.write_text(project.params.read_text().replace("epochs: 2", "epochs: 15"))
    started = run(project, "calotype", "up")
    try:
        assert started.returncode == 0, started.stderr
        yield Servers(project, started.stdout)
    finally:
        ended = run(project, "calotype", "down")
    assert ended.stderr == "down: all ended\n"
    assert Supervisor(project.services).marked() == []
    assert not (project.root / "prefect.toml").exists()


def test_a_schedule_fires_by_itself(servers: Servers) -> None:
    def fired() -> bool:
        runs = servers.runs("batch-prediction")
        return any(run["auto_scheduled"] and run["state_type"] in ("COMPLETED", "FAILED") for run in runs)

    try:
        assert until(fired, 120), [run["state"] for run in servers.runs("batch-prediction")]
    finally:
        # From here on it would only take processor time from the others.
        nightly = web.ask(f"{servers.prefect}/api/deployments/name/batch-prediction/nightly")["id"]
        web.ask(f"{servers.prefect}/api/deployments/{nightly}", {"paused": True}, method="PATCH")


def test_a_training_started_from_a_plain_shell_registers_and_its_run_is_in_mlflow(servers: Servers) -> None:
    done = servers.command("deployment", "run", "training/local", "--watch")
    assert done.returncode == 0, done.stdout + done.stderr
    assert servers.runs("training")[0]["state_type"] == "COMPLETED"
    record = json.loads(servers.project.run_json.read_text())
    address = f"{servers.mlflow}/api/2.0/mlflow/runs/get?run_id={record['mlflow_run_id']}"
    with urllib.request.urlopen(address, timeout=30) as reply:
        found = json.load(reply)["run"]
    tags = {tag["key"]: tag["value"] for tag in found["data"]["tags"]}
    assert servers.runs("training")[0]["name"] in tags.values()
    assert found["info"]["status"] == "FINISHED"


def test_pictures_of_the_inbox_are_predicted_once(servers: Servers) -> None:
    sampled = run(servers.project, "calotype", "sample", "6", "--to", "data/inbox")
    assert sampled.returncode == 0, sampled.stderr
    for _ in range(2):
        done = servers.command("deployment", "run", "batch-prediction/nightly", "--watch")
        # A scheduled run may be at work: then this one is skipped, and that one predicts.
        assert done.returncode == 0 or "Cancelled" in done.stdout, done.stdout + done.stderr

    def rows() -> int:
        import deltalake

        table = servers.project.table("predictions")
        return deltalake.DeltaTable(table).to_pyarrow_table().num_rows if Path(table).exists() else 0

    assert until(lambda: rows() == 6, 60)


def test_a_second_up_says_what_runs_and_changes_nothing(servers: Servers) -> None:
    supervisor = Supervisor(servers.project.services)

    def pids() -> list[int]:
        return [supervisor.pid(name) for name in ("prefect", "mlflow", "worker")]

    before = pids()
    again = run(servers.project, "calotype", "up")
    assert again.returncode == 0
    assert "runs already: mlflow running, prefect running, watch running, worker running" in again.stderr
    assert [servers.prefect, servers.mlflow] == re.findall(r"http://\S+", again.stdout)
    assert pids() == before


def test_a_failed_start_shows_the_last_log_lines_and_leaves_nothing(tmp_path: Path) -> None:
    project = make_dvc_project(tmp_path / "project")
    (project.root / ".prefect").write_text("a file where Prefect wants a folder")
    failed = run(project, "calotype", "up")
    assert failed.returncode == 1
    assert "prefect did not start. logs/prefect.log ends:" in failed.stderr
    assert "Application startup failed" in failed.stderr.split("ends:")[1]
    assert Supervisor(project.services).marked() == []
    assert not (project.root / "prefect.toml").exists()


def test_mlflows_pages_end_cleanly_on_interrupt(tmp_path: Path) -> None:
    project = make_dvc_project(tmp_path / "project")
    shown = subprocess.Popen(
        [sys.executable, "-m", "calotype", "ui"],
        cwd=project.root,
        env=environment(project),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert shown.stdout
    address = re.findall(r"http://127\.0\.0\.1:\d+", shown.stdout.readline())[0]
    assert until(lambda: _answers(f"{address}/health"), 90)
    shown.send_signal(signal.SIGINT)
    assert shown.wait(timeout=40) == 0
    assert not _answers(f"{address}/health")
    shown.stdout.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
