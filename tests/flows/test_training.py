"""The flow training on a real Prefect server: states, logs, artifacts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, LogFilter, LogFilterFlowRunId

from calotype.project import Project
from calotype.releases import ledger
from flows.training import training
from tasks import artifacts
from tasks.stages import StageError, run_stage

pytestmark = pytest.mark.usefixtures("prefect_server")

FAILING = """\
stages:
  scan:
    cmd: echo the stage speaks && env | grep ^CALOTYPE_FLOW_RUN_NAME && echo made > scan.txt
    outs: [scan.txt]
  ingest:
    cmd: echo 'ingest speaks last' >&2; exit 3
    outs: [ingest.txt]
"""


@flow(name="two-stages")
def two_stages() -> None:
    run_stage("scan")
    run_stage("ingest")


@flow(name="failures")
def publish_failures(root: Path, since: float) -> None:
    artifacts.publish_schema_failures("ingest", Project(root), since=since)


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    from dvc.repo import Repo

    (tmp_path / "dvc.yaml").write_text(FAILING)
    (tmp_path / "params.yaml").write_text("name: line\n")
    Repo.init(str(tmp_path), no_scm=True)
    monkeypatch.setenv("CALOTYPE_ROOT", str(tmp_path))
    return Project(tmp_path)


def test_a_failed_stage_fails_the_flow_once_and_its_lines_are_in_the_log(failing: Project) -> None:
    state = two_stages(return_state=True)
    assert state.is_failed()
    assert "ingest speaks last" in state.message
    assert isinstance(asyncio.run(error_of(state)), StageError)
    run_id = state.state_details.flow_run_id
    lines = asyncio.run(log_of(run_id))
    assert "the stage speaks" in lines
    assert "ingest speaks last" in lines
    assert lines.count("> echo 'ingest speaks last' >&2; exit 3") == 1  # bad data is not tried again
    name = asyncio.run(name_of(run_id))
    assert f"CALOTYPE_FLOW_RUN_NAME={name}" in lines
    assert not (failing.root / "ingest.txt").exists()


def test_rows_that_break_a_schema_become_a_table_unless_they_are_old(tmp_path: Path) -> None:
    import polars as pl

    path = tmp_path / "reports" / "schema_failures.parquet"
    path.parent.mkdir()
    pl.DataFrame({"column": ["label"], "failure_case": ["catt"]}).write_parquet(path)
    written = path.stat().st_mtime
    fresh = publish_failures(tmp_path, written - 1, return_state=True)
    found = asyncio.run(artifacts_of(fresh.state_details.flow_run_id))
    assert list(found) == ["ingest-schema-failures"]
    assert "catt" in found["ingest-schema-failures"]
    old = publish_failures(tmp_path, written + 1, return_state=True)
    assert asyncio.run(artifacts_of(old.state_details.flow_run_id)) == {}


@pytest.mark.slow
def test_a_training_registers_promotes_and_shows_counts_metrics_and_the_confusion_matrix(
    trained_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALOTYPE_ROOT", str(trained_project.root))
    state = training(return_state=True)
    report = asyncio.run(error_of(state))
    assert state.is_completed(), state.message
    assert [stage.outcome for stage in report.stages][1:] == ["unchanged"] * 4
    found = asyncio.run(artifacts_of(state.state_details.flow_run_id))
    assert sorted(found) == [
        "confusion-matrix",
        "ingest-counts",
        "metrics",
        "promotion",
        "registered-version",
        "split-counts",
        "training",
    ]
    assert "data:image/png;base64,iVBOR" in found["confusion-matrix"]
    assert "300 images of 10 classes" in found["ingest-counts"]
    assert "Best epoch" in found["training"]
    (entry,) = ledger.read(trained_project.ledger, "digits").entries
    assert entry.who == asyncio.run(name_of(state.state_details.flow_run_id))
    assert entry == report.promotion.entry
    assert f"## {entry.verdict}: {entry.reason}" in found["promotion"]
    assert "| load_check.images | 32 |" in found["promotion"]
    assert "| class | images | recall |" in found["promotion"]


@pytest.mark.slow
def test_a_training_without_promotion_leaves_the_version_a_challenger(
    trained_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALOTYPE_ROOT", str(trained_project.root))
    state = training(promote=False, return_state=True)
    assert state.is_completed(), state.message
    assert asyncio.run(error_of(state)).promotion is None


async def error_of(state: Any) -> Any:
    return await state.aresult(raise_on_failure=False)


async def name_of(run_id: Any) -> str:
    async with get_client() as client:
        return (await client.read_flow_run(run_id)).name


async def log_of(run_id: Any, *, limit_s: float = 20) -> list[str]:
    """Lines of a run's log, once its last one has arrived: Prefect sends them in batches."""
    async with get_client() as client:
        for _ in range(int(limit_s * 2)):
            only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))
            lines = [entry.message for entry in await client.read_logs(log_filter=only, limit=200)]
            if any("Encountered exception" in line for line in lines):
                return lines
            await asyncio.sleep(0.5)
    return lines


async def artifacts_of(run_id: Any) -> dict[str, str]:
    async with get_client() as client:
        only = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
        return {entry.key: str(entry.data) for entry in await client.read_artifacts(artifact_filter=only)}
