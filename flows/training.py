"""From the source to a registered model, and to the champion if it earns it.

The deployment form in Prefect's pages shows parameters as a flow's docstring explains them under "Args".
"""

from __future__ import annotations

from dataclasses import dataclass

from prefect import flow

from calotype.releases.promotion import Promotion
from calotype.releases.registry import RegisteredVersion
from tasks.registry import promote_model, register_model
from tasks.stages import STAGES, StageResult, run_stage, tag_run


@dataclass(frozen=True)
class TrainingReport:
    """What a training did: each stage, the version it registered, and what came of its promotion if it was tried."""

    stages: tuple[StageResult, ...]
    version: RegisteredVersion
    promotion: Promotion | None


@flow(name="training")
def training(promote: bool = True, reason: str = "") -> TrainingReport:
    """Reproduce the DVC pipeline, register the model, promote it if it earns it.

    Args:
        promote: Let the new version become champion if it earns it.
        reason: Why it runs, as an event of production says; kept in the tags of the flow run and of the MLflow run.
    """
    if reason:
        tag_run(reason)
    stages = tuple(run_stage(stage) for stage in STAGES)
    version = register_model()
    promotion = promote_model() if promote else None
    return TrainingReport(stages, version, promotion)


if __name__ == "__main__":
    training()
