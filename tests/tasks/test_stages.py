"""A stage as a task: what it returns, what it says when it fails, when it is tried again."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.states import Failed

from calotype.project import Project
from tasks.child import members
from tasks.stages import STAGES, StageError, StageResult, environment, may_pass, reproduce, run_stage

Line = Callable[..., Project]
pytestmark = pytest.mark.usefixtures("_no_run_logger")


def test_a_stage_runs_in_the_project_whatever_the_current_folder(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = line(scan="pwd > where.txt")
    monkeypatch.chdir(tmp_path)
    result = run_stage.fn("scan")
    assert result == StageResult("scan", "ran", result.seconds)
    assert (project.root / "where.txt").read_text().strip() == str(project.root)


def test_a_stage_is_told_apart_as_run_unchanged_or_restored(line: Line) -> None:
    project = line(split="true")
    outcomes = [reproduce("split", project), reproduce("split", project)]
    (project.root / "split.txt").unlink()
    (project.root / "dvc.lock").unlink()
    assert [*outcomes, reproduce("split", project)] == ["ran", "unchanged", "restored"]


def test_only_the_named_stage_runs(line: Line) -> None:
    project = line(scan="true", ingest="true")
    reproduce("ingest", project)
    assert not (project.root / "scan.txt").exists()


def test_a_failed_stage_ends_the_task_with_its_exit_code_and_last_lines(line: Line) -> None:
    project = line(ingest="for i in $(seq 40); do echo line $i; done; echo 'ingest: 3 bad files' >&2; exit 3")
    with pytest.raises(StageError, match="ingest: failed with exit code 3") as caught:
        reproduce("ingest", project)
    assert caught.value.exit_code == 3
    assert "ingest: 3 bad files" in str(caught.value)
    assert "line 40" in str(caught.value)
    assert "line 5\n" not in str(caught.value)


def test_a_stage_that_dvc_does_not_know_is_an_error(line: Line) -> None:
    with pytest.raises(StageError, match="'train'") as caught:
        reproduce("train", line(scan="true"))
    assert caught.value.exit_code == 1


def test_a_stage_that_is_killed_is_tried_again_and_bad_data_is_not(line: Line) -> None:
    project = line(ingest="exit 3", train="kill -9 $$")
    claims = {}
    for name in ("ingest", "train"):
        with pytest.raises(StageError) as caught:
            reproduce(name, project)
        claims[name] = may_pass(None, None, Failed(data=caught.value))  # type: ignore[arg-type]
    assert claims == {"ingest": False, "train": True}


def test_a_stage_that_another_dvc_runs_is_tried_again(line: Line) -> None:
    project = line(train="sleep 5")
    other = threading.Thread(target=reproduce, args=("train", project))
    other.start()
    time.sleep(2.5)
    with pytest.raises(StageError) as caught:
        reproduce("train", project)
    other.join()
    assert caught.value.busy
    assert may_pass(None, None, Failed(data=caught.value))  # type: ignore[arg-type]


def test_an_error_of_ours_is_not_tried_again() -> None:
    assert not may_pass(None, None, Failed(data=ValueError("a bug")))  # type: ignore[arg-type]


def test_a_stage_runs_with_this_interpreter_and_reports_nothing_home() -> None:
    values = environment()
    assert values["DVC_NO_ANALYTICS"] == "1"
    if sys.prefix != sys.base_prefix:
        assert values["VIRTUAL_ENV"] == sys.prefix
    assert "CALOTYPE_FLOW_RUN_ID" not in values


def test_the_stages_are_those_of_dvc_yaml_in_its_order() -> None:
    from ruamel.yaml import YAML

    definition = YAML(typ="safe").load(Path(__file__).parents[2] / "dvc.yaml")
    assert tuple(definition["stages"]) == STAGES


def test_nothing_of_a_stage_is_left_when_the_task_is_interrupted(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    project = line(train="echo $$ > pid; sleep 60")
    sessions: list[int] = []

    class Log:
        def info(self, _format: str, text: str) -> None:
            pid = project.root / "pid"
            if text.startswith("> ") and not sessions:
                while not pid.exists() or not pid.read_text().strip():
                    time.sleep(0.05)
                sessions.append(os.getsid(int(pid.read_text())))
                raise KeyboardInterrupt

    monkeypatch.setattr("tasks.stages.get_run_logger", Log)
    with pytest.raises(KeyboardInterrupt):
        reproduce("train", project)
    assert sessions
    assert members(sessions[0]) == []
