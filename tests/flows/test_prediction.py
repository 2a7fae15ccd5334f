"""The flow batch-prediction on a real Prefect server: what its run's page shows."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact, State

from calotype import params
from calotype.predictions.batch_summary import BatchSummary
from calotype.project import Project
from calotype.releases import promotion, registry
from calotype.sample import sample
from flows.prediction import batch_prediction

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.slow]


@pytest.fixture
def served(trained_project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a champion and six images in its inbox, one of them no image."""
    text = trained_project.params.read_text().replace("settle_s: 5", "settle_s: 0")
    trained_project.params.write_text(text)
    values = params.load(trained_project.params)
    registry.register(trained_project, values)
    promotion.promote(trained_project, values, force=True, reason="a test")
    sample(trained_project, 5, Path(trained_project.inbox))
    (Path(trained_project.inbox) / "bad.png").write_text("no image")
    monkeypatch.setenv("CALOTYPE_ROOT", str(trained_project.root))
    return trained_project


def test_a_batch_leaves_its_counts_its_progress_and_its_page(served: Project) -> None:
    state = batch_prediction(return_state=True)
    summary: BatchSummary = asyncio.run(result_of(state))
    assert (summary.new, summary.predicted, summary.appended) == (6, 5, 5)
    found = asyncio.run(artifacts_of(state))
    assert found["inbox"].data == 100.0
    text = str(found["predictions"].data)
    assert f"6 files, 6 new: {summary.counts}" in text
    assert "| unsupported-format | 1 |" in text
    label, count = max(summary.labels.items(), key=lambda pair: pair[1])
    assert f"| {label} | {count} | {count / 5:.1%} |" in text
    assert summary.page in text
    assert (served.root / summary.page).is_file()


@pytest.mark.usefixtures("served")
def test_a_batch_with_nothing_new_says_so() -> None:
    batch_prediction()
    state = batch_prediction(return_state=True)
    assert "6 files, 0 new: nothing to predict" in str(asyncio.run(artifacts_of(state))["predictions"].data)


async def result_of(state: State[BatchSummary]) -> BatchSummary:
    return await state.aresult()


async def artifacts_of(state: State[BatchSummary]) -> dict[str | None, Artifact]:
    run_id = state.state_details.flow_run_id
    assert run_id is not None
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
    async with get_client() as client:
        return {artifact.key: artifact for artifact in await client.read_artifacts(artifact_filter=wanted)}
