"""What a run's page shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from calotype.files import write_json
from calotype.project import Project
from tasks import artifacts


def test_a_table_shows_text_first_then_numbers_a_person_can_read() -> None:
    assert artifacts.table(["class", "n", "share"], [("a|b", 12345, 0.123456)]).splitlines() == [
        "| class | n | share |",
        "|---|---:|---:|",
        r"| a\|b | 12,345 | 0.1235 |",
    ]


def test_figures_stand_beside_their_intervals() -> None:
    metrics = {"accuracy": 0.98, "accuracy_interval": {"low": 0.97, "high": 0.991}, "images": 350}
    assert artifacts.with_intervals(metrics) == [("accuracy", 0.98, "0.97 – 0.991"), ("images", 350, "")]


def test_evidence_becomes_rows_with_its_intervals() -> None:
    interval = {"value": 0.98, "low": 0.97, "high": 0.99}
    evidence = {"images": 350, "challenger": {"model": "m", "accuracy": interval}, "fell": ["a", "b"], "champion": None}
    assert list(artifacts.flattened(evidence)) == [
        ("images", 350),
        ("challenger.model", "m"),
        ("challenger.accuracy", "0.98 (0.97 – 0.99)"),
        ("fell", "a, b"),
        ("champion", ""),
    ]


def test_a_run_links_to_the_server_that_shows_it_and_else_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from calotype import tracking

    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path)
    assert artifacts.mlflow_link(project, "abc") == "`abc` (`calotype ui` shows it)"
    client = tracking.connect(project)
    experiment = client.create_experiment("digits")
    run = client.create_run(experiment).info.run_id
    write_json(project.services / "addresses.json", {"mlflow": "http://127.0.0.1:5003"})
    expected = f"[{run}](http://127.0.0.1:5003/#/experiments/{experiment}/runs/{run})"
    assert artifacts.mlflow_link(project, run) == expected
