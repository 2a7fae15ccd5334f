"""The line on real servers: MLflow and Prefect on Postgres; artifacts, DVC's remote, ledger, inbox and tables on S3."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
from deltalake import DeltaTable

from calotype import object_store
from calotype.learning import bundle
from calotype.project import Project
from calotype.services.supervisor import Supervisor
from tests.conftest import environment, make_dvc_project, run, write_digits
from tests.real_servers import POSTGRES, WITHOUT_POSTGRES, Postgres, S3Server, postgres, s3_server
from tests.waiting import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not POSTGRES, reason=WITHOUT_POSTGRES),
]

PAIR = """\
name: calotype
pull: []
deployments:
  - name: at-once
    entrypoint: flows.prediction.batch_prediction
    work_pool: {name: pair}
"""
"""A deployment without a limit: two of its runs may work at once."""


@dataclass
class Line:
    """A project, the servers that it works on, and what they say."""

    project: Project
    database: Postgres
    store: S3Server
    environment: dict[str, str]
    prefect: str = ""

    def command(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a program that must succeed."""
        done = run(self.project, *arguments, timeout=600, **self.environment, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        """Prefect's answer."""
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"{self.prefect}/api{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)

    def start(self, deployment: str) -> str:
        """Ask for a run; return its id."""
        said = self.command("prefect", "deployment", "run", deployment).stdout
        return re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", said)[0]

    def run_of(self, run_id: str) -> dict[str, Any]:
        """A run as it stands."""
        return dict(self.ask("/flow_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})[0])

    def ends(self, run_id: str, limit_s: float = 240) -> str:
        """Wait for the end of a run; return the type of its state."""
        final = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
        assert until(lambda: self.run_of(run_id)["state_type"] in final, limit_s), self.run_of(run_id)
        return str(self.run_of(run_id)["state_type"])

    def put(self, name: str, first: int, per_class: int) -> int:
        """Put new digits into the inbox; return how many."""
        folder = self.project.root.parent / name
        write_digits(folder, first + per_class)
        paths = [path for path in sorted(folder.rglob("*.pgm")) if int(path.stem) >= first]
        for path in paths:
            key = f"inbox/{name}/{path.relative_to(folder).as_posix()}"
            self.store.client().put_object(Bucket=self.store.bucket, Key=key, Body=path.read_bytes())
        return len(paths)

    def table(self, name: str) -> pl.DataFrame:
        """All rows of a table of production."""
        place = f"s3://{self.store.bucket}/tables/{name}"
        with pytest.MonkeyPatch.context() as patch:
            for variable, value in self.environment.items():
                patch.setenv(variable, value)
            rows = DeltaTable(place, storage_options=object_store.delta_options(place)).to_pyarrow_table()
        return pl.DataFrame(rows)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """A project after `calotype up` in which nothing was trained yet."""
    folder = tmp_path_factory.mktemp("production")
    with postgres(folder, "mlflow", "prefect") as database, s3_server(folder) as store:
        bucket = f"s3://{store.bucket}"
        places = {
            "CALOTYPE_MLFLOW_STORE": database.url("mlflow"),
            "CALOTYPE_MLFLOW_ARTIFACTS": f"{bucket}/mlflow",
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database.url("prefect", "asyncpg"),
            "CALOTYPE_LEDGER": f"{bucket}/ledger",
            "CALOTYPE_PREDICT_INBOX": f"{bucket}/inbox",
            "CALOTYPE_PREDICT_OUTPUT": f"{bucket}/tables",
        }
        made = Line(make_dvc_project(folder / "project"), database, store, store.environment | places)
        params = made.project.params
        params.write_text(
            params.read_text().replace("epochs: 2", "epochs: 15").replace("min_images: 100", "min_images: 50")
        )
        made.command("dvc", "remote", "add", "--default", "storage", f"{bucket}/dvc")
        started = run(made.project, "calotype", "up", **made.environment)
        try:
            assert started.returncode == 0, started.stderr
            made.prefect = re.findall(r"http://127\.0\.0\.1:\d+", started.stdout)[0]
            yield made
        finally:
            run(made.project, "calotype", "down", **made.environment)
        assert Supervisor(made.project.services).marked() == []


@pytest.fixture(scope="module")
def trained(line: Line) -> Line:
    """The same after a training by its worker."""
    line.command("prefect", "deployment", "run", "training/local", "--watch")
    return line


@pytest.fixture(scope="module")
def cut_off(trained: Line) -> str:
    """A batch whose worker and process were killed while it ran, the machine's power cut say; its run's id."""
    trained.put("first", 0, 4)
    run_id = trained.start("batch-prediction/nightly")
    assert until(lambda: trained.run_of(run_id)["state_type"] == "RUNNING", 120), trained.run_of(run_id)
    worker = psutil.Process(Supervisor(trained.project.services).pid("worker"))
    for process in [worker, *worker.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    return run_id


def test_a_training_leaves_its_run_its_version_and_its_artifacts_on_the_servers(trained: Line) -> None:
    runs = trained.database.query("prefect", "SELECT name, state_type FROM flow_run")
    assert ("COMPLETED",) in [row[1:] for row in runs]
    (found,) = trained.database.query("mlflow", "SELECT run_uuid, artifact_uri, status FROM runs")
    assert found[1] == f"s3://{trained.store.bucket}/mlflow/{experiment(trained)}/{found[0]}/artifacts"
    assert found[2] == "FINISHED"
    aliases = trained.database.query("mlflow", "SELECT alias, version FROM registered_model_aliases")
    assert ("champion", 1) in aliases
    keys = trained.store.keys()
    assert any(key.startswith("mlflow/") and key.endswith("/artifacts/bundle/model.safetensors") for key in keys)
    assert any(key.startswith("ledger/_delta_log/") for key in keys)
    assert any(key.startswith("dvc/files/") for key in keys)
    assert not (trained.project.mlruns / "mlflow.db").exists()
    assert not (trained.project.mlruns / "artifacts").exists()
    assert not (trained.project.mlruns / "ledger").exists()


def test_no_command_line_shows_a_password(trained: Line) -> None:
    secrets = (trained.database.password, "p%40ss", trained.environment["AWS_SECRET_ACCESS_KEY"])
    for process in Supervisor(trained.project.services).marked():
        with contextlib.suppress(psutil.Error):
            assert not any(secret in " ".join(process.cmdline()) for secret in secrets)


def test_a_fresh_clone_pulls_the_data_and_the_model_and_knows_the_champion(trained: Line, tmp_path: Path) -> None:
    trained.command("dvc", "push")
    git(trained.project, "add", "-A")
    git(trained.project, "commit", "-qm", "Train")
    subprocess.run(["git", "clone", "-q", trained.project.root, tmp_path / "clone"], check=True)
    clone = Line(Project(tmp_path / "clone"), trained.database, trained.store, trained.environment)
    clone.command("dvc", "pull", "dvc.yaml")
    assert bundle.digest(clone.project.bundle) == bundle.digest(trained.project.bundle)
    assert clone.project.splits.is_file()
    shutil.rmtree(clone.project.root / "models")
    clone.command("calotype", "sample", "3", "--to", "some")
    predicted = clone.command("calotype", "predict", "some", "--to", "some.csv")
    assert "3 predicted" in predicted.stdout + predicted.stderr
    assert "champion" in clone.command("calotype", "history").stdout


def test_two_workers_take_a_batch_each_and_the_table_has_every_image_once(trained: Line, cut_off: str) -> None:
    before = trained.put("second", 4, 4)
    with worker(trained, "one"), worker(trained, "two"):
        assert until(lambda: pool_workers(trained) == {"one", "two"}, 120)
        (trained.project.root / "pair.yaml").write_text(PAIR)
        trained.command("prefect", "deploy", "--all", "--no-prompt", "--prefect-file", "pair.yaml")
        ids = [trained.start("batch-prediction/at-once") for _ in range(2)]
        assert [trained.ends(run_id) for run_id in ids] == ["COMPLETED", "COMPLETED"]
    assert {trained.run_of(run_id)["labels"]["prefect.worker.name"] for run_id in ids} == {"one", "two"}
    assert before == 40
    assert_exactly_once(trained, 80)
    assert cut_off not in ids


def test_a_batch_whose_worker_was_killed_is_taken_up_again_by_the_next(trained: Line, cut_off: str) -> None:
    # Crashed is a state of a minute: the run is scheduled again when nothing is heard of it.
    assert until(lambda: trained.run_of(cut_off)["state_type"] == "COMPLETED", 300), trained.run_of(cut_off)
    assert trained.run_of(cut_off)["run_count"] > 1
    assert_exactly_once(trained, len(trained.table("files")))
    assert len(trained.table("files")) >= 40


def test_labels_windows_and_commands_use_the_same_tables(trained: Line, tmp_path: Path) -> None:
    assert "digits/1" in trained.command("calotype", "predictions", "summary").stdout.replace(" version ", "/")
    known = trained.table("predictions").head(20)
    known.select("image_id", "label").write_csv(tmp_path / "labels.csv")
    trained.command("calotype", "labels", "add", str(tmp_path / "labels.csv"))
    assert len(trained.table("labels")) == 20
    trained.command("calotype", "monitor")
    assert len(trained.table("windows")) == 1
    # It may have a word to say about this machine, too.
    found = json.loads(run(trained.project, "calotype", "doctor", "--json", **trained.environment).stdout)
    elsewhere = [check for check in found if check["name"] in ("databases", "S3")]
    assert [check["verdict"] for check in elsewhere] == ["ok"] * 6
    assert trained.database.password not in str(elsewhere)


def test_a_wrong_database_stops_up_with_one_line(trained: Line, tmp_path: Path) -> None:
    other = make_dvc_project(tmp_path / "project")
    wrong = {
        "CALOTYPE_MLFLOW_STORE": trained.database.url("nowhere"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": trained.database.url("prefect"),
    }
    said = run(other, "calotype", "up", CALOTYPE_MLFLOW_STORE=wrong["CALOTYPE_MLFLOW_STORE"])
    assert said.returncode == 1
    assert 'database "nowhere" does not exist. Start Postgres, or correct CALOTYPE_MLFLOW_STORE.' in said.stderr
    assert trained.database.password not in said.stderr
    assert said.stderr.count("\n") == 1
    variable = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
    said = run(other, "calotype", "up", **{variable: wrong[variable]})
    assert said.returncode == 2
    assert f"{variable} is postgresql://line:***@127.0.0.1:" in said.stderr
    assert "expected postgresql+asyncpg://" in said.stderr


def assert_exactly_once(line: Line, files: int) -> None:
    """Every file of the inbox has its row, every distinct content its own."""
    found, predictions = line.table("files"), line.table("predictions")
    assert len(found) == files
    assert found["path"].n_unique() == files
    assert sorted(predictions["image_id"]) == sorted(found["image_id"].unique())


def experiment(line: Line) -> str:
    return str(line.database.query("mlflow", "SELECT name FROM experiments WHERE name <> 'Default'")[0][0])


def git(project: Project, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=project.root, check=True, capture_output=True)


def pool_workers(line: Line) -> set[str]:
    with contextlib.suppress(OSError):
        found = line.ask("/work_pools/pair/workers/filter", {})
        return {one["name"] for one in found if one["status"] == "ONLINE"}
    return set()


@contextlib.contextmanager
def worker(line: Line, name: str) -> Iterator[None]:
    """A worker of the pool `pair` that takes one run at a time."""
    more = {
        "PREFECT_API_URL": f"{line.prefect}/api",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "CALOTYPE_ROOT": str(line.project.root),
        "PYTHONPATH": str(line.project.root),
    }
    command = ["-m", "prefect", "worker", "start", "--pool", "pair", "--type", "process", "--name", name]
    with (line.project.root.parent / f"worker-{name}.log").open("wb") as log:
        started = subprocess.Popen(
            [sys.executable, *command, "--limit", "1"],
            cwd=line.project.root,
            env=environment(line.project, **line.environment, **more),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
