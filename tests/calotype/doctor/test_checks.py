"""Each check, provoked: what it finds and what it says to do."""

from __future__ import annotations

import email.utils
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from filelock import FileLock

from calotype.doctor import diagnosis, elsewhere, machine, records, repository
from calotype.doctor.check import Check
from calotype.project import Project
from tests.production_tables import file, write


def one(checks: Iterable[Check], verdict: str, name: str) -> Check:
    """The only check of that verdict and name."""
    (found,) = [check for check in checks if (check.verdict, check.name) == (verdict, name)]
    assert found.advice or verdict == "ok"
    return found


def test_a_python_that_is_too_old_is_a_problem() -> None:
    assert machine.python((3, 10, 1)).verdict == "problem"
    assert machine.python().verdict == "ok"


def test_a_version_that_is_not_the_locks_is_named(project: Project) -> None:
    (project.root / "requirements.lock").write_text("numpy==1.0 \\\n    --hash=sha256:0\n")
    found = one(machine.versions(project, {"numpy": "2.4.0"}), "warning", "packages")
    assert found.found == "not those of requirements.lock: numpy 2.4.0 (was 1.0)"
    (project.root / "requirements.lock").write_text("numpy==2.4.0 \\\n    --hash=sha256:0\n")
    one(machine.versions(project, {"numpy": "2.4.0"}), "ok", "packages")


@pytest.mark.parametrize(("package", "version"), [("fastapi", "0.165.0"), ("sqlalchemy", "2.1.0b1")])
def test_a_version_that_breaks_the_line_in_silence_is_a_problem(project: Project, package: str, version: str) -> None:
    assert f"{package} {version}" in one(machine.versions(project, {package: version}), "problem", "packages").found


def test_the_versions_that_work_are_no_problem(project: Project) -> None:
    found = machine.versions(project, {"fastapi": "0.150.2", "sqlalchemy": "2.0.44"})
    assert {check.verdict for check in found} == {"ok"}


def test_a_disk_without_room_is_a_problem(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = []
    for full, tight in ((0, 0), (0, 2**62), (2**62, 2**62)):
        monkeypatch.setattr(machine, "FULL", full)
        monkeypatch.setattr(machine, "TIGHT", tight)
        verdicts.append(machine.room("project", project.root).verdict)
    assert verdicts == ["ok", "warning", "problem"]


def test_a_disk_that_holds_several_places_is_looked_at_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: str(project.root))
    monkeypatch.setenv("DVC_CACHE_DIR", str(project.root / "not" / "made" / "yet"))
    assert len(list(machine.disks(project))) == 1


def test_little_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SMALL_MEMORY", 2**62)
    assert machine.memory().verdict == "warning"


def test_torch_is_not_asked_where_no_gpu_can_be() -> None:
    assert machine.gpu(may_have=False).found == "none: torch computes on the processor"


def test_parameters_that_cannot_work_are_a_problem(project: Project) -> None:
    assert repository.parameters(project).verdict == "ok"
    project.params.write_text(project.params.read_text().replace("epochs: 2", "epoch: 2"))
    assert "unknown key" in repository.parameters(project).found


def test_a_schedule_that_cannot_work_is_a_problem(project: Project) -> None:
    text = "deployments: [{name: n, entrypoint: e, schedules: [{cron: x}]}]"
    (project.root / "prefect.yaml").write_text(text)
    assert "found the cron 'x'" in repository.schedules(project).found


def git(project: Project, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(project.root), *arguments], check=True, capture_output=True)


def test_git_is_looked_at_from_no_repository_to_a_dirty_one(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.root.parent))
    assert one(repository.git(project), "warning", "git").found == "no repository here"
    git(project, "init", "-q")
    assert one(repository.git(project), "warning", "git").found == "a repository without a commit"
    git(project, "-c", "user.name=A", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "Start")
    assert one(repository.git(project), "warning", "git").found == "does not know who you are"
    git(project, "config", "user.name", "A")
    git(project, "config", "user.email", "a@b")
    assert "changed files, which a training records" in one(repository.git(project), "ok", "git").found
    lock = project.root / ".git" / "index.lock"
    lock.touch()
    os.utime(lock, (0, 0))
    assert "older than 10 minutes" in one(repository.git(project), "warning", "git").found


def set_up_dvc(project: Project, config: str = "") -> None:
    (project.root / ".dvc" / "tmp").mkdir(parents=True)
    (project.root / ".dvc" / "config").write_text(config)


def test_dvc_that_is_not_set_up_is_a_problem(project: Project) -> None:
    assert one(repository.dvc(project), "problem", "DVC").found == "not initialised"


@pytest.mark.parametrize(
    ("config", "verdict", "words"),
    [
        ("", "warning", "none: data and models are on this machine alone"),
        ("['remote \"store\"']\n    url = ../store\n", "ok", "store: ../store"),
        ("['remote \"store\"']\n    url = /nowhere/at/all\n", "problem", "is not there, or not yours"),
        ("['remote \"store\"']\n    url = http://me:hunter2@127.0.0.1:9/\n", "problem", "does not answer"),
        ("['remote \"store\"']\n    url = s3://bucket\n    endpointurl = http://127.0.0.1:9\n", "problem", "answer"),
        ("['remote \"store\"']\n    url = s3://bucket/key\n", "ok", "store: s3://bucket/key, not tried"),
    ],
)
def test_a_remote_is_looked_for_where_that_needs_no_network(
    project: Project, config: str, verdict: str, words: str
) -> None:
    set_up_dvc(project, config)
    (project.root / "store").mkdir()
    found = one(repository.dvc(project), verdict, "DVC remote").found
    assert words in found
    assert "hunter2" not in found


def test_a_config_of_dvc_that_is_broken_is_a_problem(project: Project) -> None:
    set_up_dvc(project, "nonsense")
    assert "cannot be read" in one(repository.dvc(project), "problem", "DVC").found


def test_a_lock_of_dvc_tells_the_living_from_the_dead(project: Project) -> None:
    set_up_dvc(project)
    rwlock = project.root / ".dvc" / "tmp" / "rwlock"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid, verdict in ((ended.pid, "warning"), (os.getpid(), "ok")):
        rwlock.write_text(json.dumps({"data": {"write": {"pid": pid, "cmd": "dvc repro"}}}))
        assert str(pid) in one(repository.dvc(project), verdict, "locks").found


def test_a_place_that_is_a_file_or_lies_below_one_is_a_problem(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [check.verdict for check in repository.places(project)] == ["ok"]
    (project.root / "reports").write_text("a file where a folder is wanted")
    monkeypatch.setenv("CALOTYPE_LEDGER", "params.yaml/ledger")
    found = [check.found for check in repository.places(project)]
    assert [text.split(":")[0] for text in found] == ["ledger", "reports"]


def test_a_place_at_a_url_is_not_tried(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALOTYPE_LEDGER", "s3://bucket/ledger")
    assert one(repository.places(project), "ok", "places").found == "7 can be written; ledger at a URL"


def test_servers_that_do_not_answer_are_a_problem(project: Project) -> None:
    addresses = {"prefect": "", "mlflow": "http://me:hunter2@127.0.0.1:9"}
    found = one(records.servers(project, addresses), "problem", "servers").found
    assert "mlflow does not answer at http://me:***@127.0.0.1:9" in found


def test_no_server_at_all_is_no_problem(project: Project) -> None:
    one(records.servers(project, {"prefect": "", "mlflow": ""}), "ok", "servers")


@pytest.mark.parametrize(
    ("offset_s", "verdict", "words"),
    [(0, "ok", "as mlflow's"), (600, "problem", "behind"), (-600, "problem", "ahead of")],
)
def test_a_clock_that_differs_from_the_servers_is_a_problem(offset_s: int, verdict: str, words: str) -> None:
    found = one(records.clock("mlflow", email.utils.formatdate(time.time() + offset_s)), verdict, "clock")
    assert words in found.found


def test_a_database_that_lets_nobody_in_is_a_problem(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(records.named_databases(project)) == []
    monkeypatch.setenv("CALOTYPE_MLFLOW_STORE", "postgresql://me:hunter2@127.0.0.1:9/mlflow")
    found = one(records.named_databases(project), "problem", "databases").found
    assert "127.0.0.1:9" in found
    assert "hunter2" not in found


def make_store(project: Project, schema: str, *running: str) -> None:
    project.mlruns.mkdir()
    with sqlite3.connect(project.mlruns / "mlflow.db") as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES (?)", (schema,))
        database.execute("CREATE TABLE runs (run_uuid TEXT, status TEXT, lifecycle_stage TEXT)")
        database.executemany("INSERT INTO runs VALUES (?, 'RUNNING', 'active')", [(run,) for run in running])


def test_a_store_of_this_mlflow_is_well_and_of_another_is_a_problem(project: Project) -> None:
    known, head = records._revisions()
    assert len(head) == 1
    make_store(project, min(head))
    one(records.store(project), "ok", "MLflow's store")
    for schema, words in ((min(known - head), "older"), ("0123456789ab", "unknown")):
        with sqlite3.connect(project.mlruns / "mlflow.db") as database:
            database.execute("UPDATE alembic_version SET version_num = ?", (schema,))
        assert words in one(records.store(project), "problem", "MLflow's store").found


def test_a_store_that_is_no_database_is_a_problem(project: Project) -> None:
    project.mlruns.mkdir()
    (project.mlruns / "mlflow.db").write_text("not a database, and long enough to be looked at as one" * 10)
    assert "cannot be read" in one(records.store(project), "problem", "MLflow's store").found


def test_a_run_that_nobody_runs_is_named_unless_a_training_is_at_work(project: Project) -> None:
    make_store(project, "0", "abc")
    assert "abc" in one(records.training_runs(project), "warning", "runs").found
    lock = project.cache / "locks" / "train.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        code = "import sys; from calotype.doctor import records; from calotype.project import Project;"
        code += "print(list(records.training_runs(Project.find())))"
        given = os.environ | {"CALOTYPE_ROOT": str(project.root)}
        repository_root = Path(__file__).parents[3]
        done = subprocess.run(
            [sys.executable, "-c", code], env=given, cwd=repository_root, capture_output=True, text=True, check=True
        )
    assert done.stdout.strip() == "[]"


def test_a_ledger_that_is_none_is_a_problem_and_no_champion_a_warning(project: Project) -> None:
    assert records.champion(project).verdict == "warning"
    Path(project.ledger).mkdir(parents=True)
    (Path(project.ledger) / "something.txt").write_text("else")
    assert records.champion(project).verdict == "problem"


def test_tables_that_are_none_of_ours_are_a_problem(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert records.tables(project).verdict == "ok"
    write(project, files=[file("a.png")])
    assert records.tables(project).verdict == "ok"
    write_deltalake(project.table("labels"), pa.table({"speed": [1.0]}))
    found = records.tables(project)
    assert found.verdict == "problem"
    assert "predictions/labels: found a table with the columns speed; expected the table of labels" in found.found
    monkeypatch.setenv("CALOTYPE_PREDICT_OUTPUT", "params.yaml")
    assert "params.yaml: found a file; expected a folder for the table of predictions" in records.tables(project).found


def test_an_address_of_s3_that_is_none_is_a_problem_of_each_place(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9")
    monkeypatch.setenv("CALOTYPE_LEDGER", "s3://line/ledger")
    monkeypatch.setenv("CALOTYPE_PREDICT_OUTPUT", "s3://line/tables")
    found = [*elsewhere.checks(project), records.tables(project), records.champion(project)]
    assert [check.verdict for check in found] == ["problem"] * 4
    assert all(check.found.startswith("AWS_ENDPOINT_URL: found '127.0.0.1:9'; expected") for check in found)


def test_the_table_shows_what_to_do_below_each_finding() -> None:
    checks = [Check("git", "ok", "fine"), Check("disk", "problem", "full", "Make room.")]
    assert diagnosis.text(checks) == (
        "ok       git   fine\nPROBLEM  disk  full\n               → Make room.\n\n1 problem, 0 warnings, 1 ok"
    )
    assert not diagnosis.is_well(checks)
    assert diagnosis.is_well(checks[:1])


def test_the_command_answers_in_5_seconds_without_mlflow_prefect_or_torch(project: Project) -> None:
    code = "import sys, calotype.doctor.diagnosis as d; from calotype.project import Project;"
    code += "d.diagnose(Project.find()); print({'prefect', 'mlflow', 'dvc', 'torch'} & set(sys.modules))"
    given = os.environ | {"CALOTYPE_ROOT": str(project.root)}
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], env=given, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_command_ends_with_1_where_there_is_a_problem_and_prints_json(project: Project) -> None:
    given = os.environ | {"CALOTYPE_ROOT": str(project.root)}
    done = subprocess.run(
        [sys.executable, "-m", "calotype", "doctor", "--json"],
        env=given,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1  # prefect.yaml and DVC are missing
    found = json.loads(done.stdout)
    assert {"name", "verdict", "found", "advice"} == set(found[0])
    assert "DVC" in {check["name"] for check in found if check["verdict"] == "problem"}


def test_a_bucket_that_does_not_answer_is_a_problem(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(elsewhere.checks(project)) == []
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("CALOTYPE_LEDGER", "s3://line/ledger")
    found = one(elsewhere.checks(project), "problem", "S3").found
    assert "s3://line/ledger: the ledger cannot be read or written (Could not connect" in found
