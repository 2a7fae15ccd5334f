"""Postgres: its address without the password, what is wrong with it in one line, and a store made once."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from calotype import databases
from calotype.errors import CalotypeError, UsageError
from calotype.project import Project
from tests.conftest import environment
from tests.real_servers import POSTGRES, WITHOUT_POSTGRES, Postgres, postgres

CONNECT = "from calotype import tracking; from calotype.project import Project; tracking.connect(Project.find())"

needs_postgres = pytest.mark.skipif(not POSTGRES, reason=WITHOUT_POSTGRES)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with postgres(tmp_path_factory.mktemp("postgres"), "mlflow") as started:
        yield started


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://ann:se:cr%40et@db:5432/mlflow", "postgresql://ann:***@db:5432/mlflow"),
        ("postgresql+asyncpg://ann:secret@db/prefect?ssl=1", "postgresql+asyncpg://ann:***@db/prefect?ssl=1"),
        ("https://ann:secret@mlflow.example.org/x", "https://ann:***@mlflow.example.org/x"),
        ("postgresql://ann@db/mlflow", "postgresql://ann@db/mlflow"),
        ("sqlite:////home/a:b@c/mlflow.db", "sqlite:////home/a:b@c/mlflow.db"),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, shown: str) -> None:
    assert databases.without_password(address) == shown


def test_other_databases_are_not_asked() -> None:
    databases.require("sqlite:///nowhere/mlflow.db", "CALOTYPE_MLFLOW_STORE")
    databases.require("", "PREFECT_SERVER_DATABASE_CONNECTION_URL")


def test_prefects_address_needs_the_driver_that_prefect_takes() -> None:
    with pytest.raises(UsageError, match=r"_URL is postgresql://ann:\*\*\*@db/prefect: expected postgresql\+asyncpg:"):
        databases.require("postgresql://ann:secret@db/prefect", "PREFECT_SERVER_DATABASE_CONNECTION_URL")


def refused(url: str) -> str:
    started = time.monotonic()
    with pytest.raises(CalotypeError) as raised:
        databases.require(url, "CALOTYPE_MLFLOW_STORE")
    assert time.monotonic() - started < 50
    assert "\n" not in str(raised.value)
    assert str(raised.value).endswith(". Start Postgres, or correct CALOTYPE_MLFLOW_STORE.")
    return str(raised.value)


def test_a_server_that_is_gone_or_silent_is_one_line() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"postgresql://ann:secret@127.0.0.1:{silent.getsockname()[1]}/mlflow"
        assert "timeout expired" in refused(url)
    assert "Connection refused" in refused(url)


@needs_postgres
@pytest.mark.slow
def test_a_wrong_password_and_a_missing_database_are_one_line(server: Postgres) -> None:
    databases.require(server.url("mlflow"), "CALOTYPE_MLFLOW_STORE")
    assert 'database "nowhere" does not exist' in refused(server.url("nowhere"))
    wrong = Postgres(server.port, server.user, "wrong")
    said = refused(wrong.url("mlflow"))
    assert 'password authentication failed for user "line"' in said
    assert "wrong" not in said.replace("or correct", "")


@needs_postgres
@pytest.mark.slow
def test_processes_that_meet_a_new_database_make_one_store(server: Postgres, project: Project) -> None:
    own = environment(project, CALOTYPE_MLFLOW_STORE=server.url("mlflow"), PYTHONPATH=str(Path(__file__).parents[2]))
    started = [
        subprocess.Popen([sys.executable, "-c", CONNECT], cwd=project.root, env=own, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=240)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said
    assert server.query("mlflow", "SELECT count(*) FROM alembic_version") == [(1,)]
    assert not (project.mlruns / "mlflow.db").exists()
