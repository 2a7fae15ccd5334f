"""Servers without starting Prefect or MLflow: ports, environment, what `up` and `down` refuse or say."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from calotype import servers
from calotype.errors import CalotypeError, UsageError
from calotype.project import Project


def test_the_worker_finds_this_project_this_interpreter_and_no_telemetry(project: Project) -> None:
    values = servers.environment_for(project, "http://127.0.0.1:4200/api")
    assert values["CALOTYPE_ROOT"] == str(project.root)
    assert values["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    assert values["PREFECT_HOME"] == str(project.root / ".prefect")
    assert values["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert values["PYTHONPATH"].split(os.pathsep)[0] == str(project.root)
    assert values["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert values["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert values["DO_NOT_TRACK"] == values["DVC_NO_ANALYTICS"] == "1"


def test_the_servers_start_after_each_other_and_listen_on_this_machine_alone() -> None:
    programs = servers._programs({"prefect": "http://127.0.0.1:4207", "mlflow": "http://127.0.0.1:5003"})
    assert list(programs) == ["prefect", "mlflow", "worker", "watch"]
    assert "--host 127.0.0.1 --port 4207" in programs["prefect"]
    assert "--host 127.0.0.1 --port 5003" in programs["mlflow"]


def test_servers_that_the_environment_names_are_used_and_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere:4200/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    with servers._addresses() as addresses:
        pass
    assert addresses == {"prefect": "http://elsewhere:4200", "mlflow": "http://elsewhere:5000"}
    assert list(servers._programs(addresses)) == ["worker", "watch"]


def test_mlflows_server_gets_the_places_that_the_environment_names_and_no_command_line_shows_them(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = servers.environment_for(project)
    assert values["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{project.mlruns / 'mlflow.db'}"
    assert values["MLFLOW_DEFAULT_ARTIFACT_ROOT"] == (project.mlruns / "artifacts").as_uri()
    monkeypatch.setenv("CALOTYPE_MLFLOW_STORE", "postgresql://ann:secret@db/mlflow")
    monkeypatch.setenv("CALOTYPE_MLFLOW_ARTIFACTS", "s3://line/mlflow/")
    values = servers.environment_for(project)
    assert values["MLFLOW_BACKEND_STORE_URI"] == project.tracking_uri == "postgresql://ann:secret@db/mlflow"
    assert values["MLFLOW_DEFAULT_ARTIFACT_ROOT"] == "s3://line/mlflow"
    assert project.tracking_shown == "postgresql://ann:***@db/mlflow"
    programs = servers._programs({"prefect": "http://127.0.0.1:4200", "mlflow": "http://127.0.0.1:5000"})
    assert "secret" not in str(programs)


def test_a_tracking_store_that_is_no_server_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    with pytest.raises(UsageError, match=r"MLFLOW_TRACKING_URI is sqlite:///other\.db: expected a server"):
        servers._require_named()


def test_a_prefect_toml_of_the_user_is_never_overwritten_or_removed(project: Project) -> None:
    (project.root / "prefect.yaml").write_text("deployments: []")
    own = project.root / "prefect.toml"
    own.write_text("[api]\nurl = 'http://mine/api'\n")
    with pytest.raises(UsageError, match=r"prefect\.toml: exists, and `calotype up` did not write it"):
        servers.up(project)
    servers.down(project)
    assert own.read_text() == "[api]\nurl = 'http://mine/api'\n"


def test_the_prefect_toml_written_is_valid_for_any_path(tmp_path: Path) -> None:
    project = Project(tmp_path / 'a "quoted" \\ folder')
    text = servers._prefect_toml(project, {"prefect": "http://127.0.0.1:4200"})
    assert tomllib.loads(text) == {
        "home": str(project.root / ".prefect"),
        "api": {"url": "http://127.0.0.1:4200/api"},
    }


def test_down_says_when_nothing_was_running(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    servers.down(project)
    assert capsys.readouterr().err == "down: nothing was running\n"


def test_a_schedule_that_cannot_work_is_refused_before_anything_starts(project: Project) -> None:
    text = "deployments: [{name: n, entrypoint: e, schedules: [{cron: '0 2 * * *', timezone: Mars/Crater}]}]"
    (project.root / "prefect.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"^prefect\.yaml: n: found the time zone 'Mars/Crater', which does not exist"):
        servers.up(project)
    assert not (project.services / "supervisord.conf").exists()


def test_a_second_up_or_down_at_the_same_time_is_refused(project: Project) -> None:
    with servers._alone(project), pytest.raises(CalotypeError, match="another `calotype up` or `calotype down`"):
        servers.down(project)


def test_mlflows_address_is_the_environments_then_that_of_up(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert servers.mlflow_address(project) is None
    project.services.mkdir()
    (project.services / "addresses.json").write_text('{"mlflow": "http://127.0.0.1:5001"}')
    assert servers.mlflow_address(project) == "http://127.0.0.1:5001"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere/")
    assert servers.mlflow_address(project) == "http://elsewhere"


def test_servers_imports_neither_prefect_nor_mlflow_nor_dvc() -> None:
    code = "import sys, calotype.servers; print({'prefect', 'mlflow', 'dvc', 'torch'} & set(sys.modules))"
    repository = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
