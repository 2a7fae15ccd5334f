"""`models/run.json`: what varies between equal trainings, and from which MLflow's run can be written anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from calotype.errors import DataError
from calotype.files import write_json

FORMAT_VERSION = 1


class RunRecord(BaseModel):
    """One training, as MLflow is to know it.

    Parameters
    ----------
    key
        Idempotency key, drawn once: a run is found by it, and never made twice.
    mlflow_run_id
        The run that the training wrote to.
    experiment
        Its experiment: ``name`` in params.yaml.
    started_at, ended_at
        Seconds since 1970, UTC.
    best_epoch
        The epoch whose weights the bundle holds, counted from 1.
    history
        One row an epoch: epoch (from 1), losses, accuracies, lr, images_per_second.
    params
        Every parameter in force, flattened.
    bundle_digest
        Digest of the bundle that came out.
    dataset
        Digests and counts of the data: ``dvc_md5``, ``digest``, ``splits_sha256``, ``train``, ``val``, ``test``.
    environment
        Git commit, dirty flag and diff, device, threads, processor flags, versions, the Prefect flow run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    key: str
    mlflow_run_id: str
    experiment: str
    started_at: float
    ended_at: float
    best_epoch: int
    history: list[dict[str, float]]
    params: dict[str, Any]
    bundle_digest: str
    dataset: dict[str, Any]
    environment: dict[str, Any]

    def write(self, path: Path) -> None:
        """Write the record atomically."""
        write_json(path, self.model_dump())

    @classmethod
    def read(cls, path: Path) -> RunRecord:
        """Read a record.

        Raises
        ------
        DataError
            If there is none, or it is of another format.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file. Run `dvc repro` to train, or `dvc pull` to fetch.") from error
        except ValidationError as error:
            raise DataError(f"{path}: not a record of this format. Run `dvc repro --force train`.") from error
