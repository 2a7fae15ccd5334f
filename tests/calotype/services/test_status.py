"""Status and page of parts that are given, and of nothing at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from calotype.project import Project
from calotype.services import page, status, status_text
from calotype.services.status import DeploymentState, Part, Status
from calotype.services.supervisor import Supervisor

NIGHTLY = DeploymentState(
    name="batch-prediction/nightly",
    entrypoint="flows.prediction.batch_prediction",
    url="http://127.0.0.1:4200/deployments/deployment/1",
    is_paused=False,
    next_run=datetime(2026, 11, 24, 2, tzinfo=UTC),
    last_run=datetime(2026, 11, 23, 2, tzinfo=UTC),
    last_state="Completed",
    last_url="http://127.0.0.1:4200/runs/flow-run/2",
    is_last_ill=False,
)
PREFECT = Part("prefect", "running", 4711, 3725, "http://127.0.0.1:4200", True)
WELL = Status((PREFECT,), (NIGHTLY,), (), ())


@pytest.fixture
def running(project: Project) -> Iterator[Project]:
    """A project whose supervisord runs, with a ledger of its own, and says where its servers are."""
    (project.root / "logs").mkdir()
    supervisor = Supervisor(project.services)
    given = {"CALOTYPE_ROOT": str(project.root), "CALOTYPE_LEDGER": "s3://team/ledger"}
    supervisor.start({"worker": "http.server 0"}, dict(os.environ) | given)
    addresses = '{"prefect": "http://127.0.0.1:4200", "mlflow": "http://127.0.0.1:5000"}'
    (project.services / "addresses.json").write_text(addresses)
    yield project
    supervisor.stop("worker")


def test_nothing_that_runs_is_said_and_is_not_well(project: Project) -> None:
    found = status.read(project)
    assert status_text.text(found) == "nothing runs here. Start it with `make up`."
    assert not found.is_well


def test_the_text_shows_each_part_and_each_deployment_on_a_line() -> None:
    lines = status_text.text(WELL).splitlines()
    assert lines[1].split() == ["prefect", "running", "well", "4711", "1", "h", "2", "min", "http://127.0.0.1:4200"]
    assert "batch-prediction/nightly  2026-11-24 02:00 UTC  Completed  2026-11-23 02:00 UTC" in lines
    assert lines[-1] == "all is well"


def test_a_last_run_that_failed_is_a_warning_and_the_servers_are_well_all_the_same() -> None:
    warning = "the last run of training/local ended Failed. Its log: http://127.0.0.1:4200/runs/flow-run/3"
    found = replace(WELL, warnings=(warning,))
    assert found.is_well
    assert status_text.text(found).endswith(f"\n\nservers and worker are well\nWARNING: {warning}")
    assert "all is well" not in status_text.text(found)


@pytest.mark.parametrize(
    ("variable", "value", "shown"),
    [
        ("PREFECT_API_URL", "http://elsewhere:4200/api", "uses http://127.0.0.1:4200."),
        ("MLFLOW_TRACKING_URI", "http://elsewhere:5000", "uses http://127.0.0.1:5000."),
        ("CALOTYPE_MLFLOW_STORE", "postgresql://line:secret@db/mlflow", "uses sqlite under mlruns/."),
        ("CALOTYPE_LEDGER", "s3://line/ledger", "uses s3://team/ledger."),
    ],
)
def test_a_variable_that_what_runs_was_not_started_with_is_named(
    running: Project, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, shown: str
) -> None:
    monkeypatch.setenv(variable, value)
    (line,) = status.not_heeded(running)
    assert line.startswith(f"{variable} is set, but what runs here {shown} `calotype down`, then")
    assert "secret" not in line


def test_a_variable_that_names_what_runs_is_no_matter(running: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000/")
    monkeypatch.setenv("CALOTYPE_LEDGER", "s3://team/ledger")
    assert status.not_heeded(running) == []


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, ""), (59, "59 s"), (60, "1 min"), (3725, "1 h 2 min"), (200_000, "2 d 7 h")]
)
def test_a_span_of_time_has_two_units_at_most(seconds: int, shown: str) -> None:
    assert status_text.age(seconds) == shown


def test_the_page_links_to_both_servers_the_reports_and_the_logs(project: Project) -> None:
    project.reports.mkdir()
    (project.reports / "report.html").write_text("<p>A report")
    (project.root / "logs").mkdir()
    (project.root / "logs" / "mlflow.log").write_text("")
    project.services.mkdir()
    addresses = '{"prefect": "http://127.0.0.1:4200", "mlflow": "http://127.0.0.1:5000"}'
    (project.services / "addresses.json").write_text(addresses)
    text = page.write(project, WELL).read_text()
    for href in (
        "http://127.0.0.1:4200/deployments",
        "http://127.0.0.1:5000/#/experiments",
        "http://127.0.0.1:5000/#/models",
        "../reports/report.html",
        "../logs/mlflow.log",
        NIGHTLY.url,
    ):
        assert f'href="{href}"' in text
    assert "All is well." in text


def test_a_name_is_text_on_the_page_whatever_it_holds(project: Project) -> None:
    project.services.mkdir()
    nasty = Status((), (), ("<script>alert(1)</script>",), ("<script>alert(2)</script>",))
    assert "<script>alert" not in page.write(project, nasty).read_text()
