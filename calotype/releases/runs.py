"""What MLflow holds of versions and runs, read only: plain values for those who follow a model back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from calotype import tracking
from calotype.errors import UsageError
from calotype.project import Project
from calotype.releases import versions

VERSION = re.compile(r"(?:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)/)?(?P<number>[0-9]{1,9})")


@dataclass(frozen=True)
class Version:
    """A version of a registered model."""

    name: str
    version: int
    run_id: str
    tags: Mapping[str, str]
    created_at: datetime

    @property
    def title(self) -> str:
        """``digits/3``."""
        return f"{self.name}/{self.version}"


@dataclass(frozen=True)
class KnownRun:
    """A run; ``is_deleted`` while MLflow only hides it."""

    run_id: str
    name: str
    experiment: str
    status: str
    is_deleted: bool
    started_at: datetime
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]


class Store:
    """A project's MLflow, opened once."""

    def __init__(self, project: Project) -> None:
        self._project = project
        with versions.answering(project):
            self._client: MlflowClient = tracking.connect(project)

    def version(self, name: str, number: int) -> Version:
        """Find a version.

        Raises
        ------
        UsageError
            If there is none, naming those that exist.
        """
        with versions.answering(self._project):
            found = versions.known(lambda: self._client.get_model_version(name, str(number)))
        if found is not None:
            return _version(found)
        others = ", ".join(str(one.version) for one in self.versions(name))
        raise UsageError(
            f"{name}/{number}: no such version in MLflow at {self._project.tracking_shown}; "
            + (f"known versions of {name}: {others}." if others else f"{name} has none. Run `calotype register`.")
        )

    def versions(self, name: str) -> list[Version]:
        """Every version of a model, by number; none where there is no such model."""
        return self._search(f"name = '{name}'")

    def versions_of(self, run_id: str) -> list[Version]:
        """Versions whose training a run is."""
        return self._search(f"run_id = '{run_id}'")

    def run(self, run_id: str) -> KnownRun | None:
        """Find a run, hidden ones included; None where MLflow does not know it."""
        with versions.answering(self._project):
            return versions.known(lambda: self._run(run_id))

    def artifact(self, run_id: str, path: str) -> bytes | None:
        """One file of a run; None where it is not there."""
        with TemporaryDirectory() as folder:
            try:
                return Path(self._client.download_artifacts(run_id, path, folder)).read_bytes()
            except (MlflowException, OSError):
                return None

    def folder(self, run_id: str, path: str, to: Path) -> Path | None:
        """Copy a folder of a run; None where it is not there."""
        try:
            return Path(self._client.download_artifacts(run_id, path, str(to)))
        except (MlflowException, OSError):
            return None

    def environment(self, run_id: str) -> dict[str, Any] | None:
        """What the training ran on; None where the run does not say."""
        data = self.artifact(run_id, "inputs/environment.json")
        return dict(json.loads(data)) if data else None

    def _run(self, run_id: str) -> KnownRun:
        run = self._client.get_run(run_id)
        return _known(run, self._client.get_experiment(run.info.experiment_id).name)

    def _search(self, wanted: str) -> list[Version]:
        found: list[Version] = []
        token: str | None = None
        with versions.answering(self._project):
            while True:
                page = self._client.search_model_versions(wanted, max_results=200, page_token=token)
                found += [_version(one) for one in page]
                token = page.token
                if not token:
                    return sorted(found, key=lambda one: one.version)


def parse_version(what: str, model: str) -> tuple[str, int] | None:
    """Name and number of ``digits/3``, or of ``3``, which means a version of ``model``; None if it is neither."""
    match = VERSION.fullmatch(what)
    return (match["name"] or model, int(match["number"])) if match else None


def _version(found: ModelVersion) -> Version:
    return Version(
        name=str(found.name),
        version=int(found.version),
        run_id=str(found.run_id or ""),
        tags=dict(found.tags or {}),
        created_at=_moment(found.creation_timestamp),
    )


def _known(run: Run, experiment: str) -> KnownRun:
    return KnownRun(
        run_id=str(run.info.run_id),
        name=str(run.info.run_name),
        experiment=experiment,
        status=str(run.info.status),
        is_deleted=run.info.lifecycle_stage == "deleted",
        started_at=_moment(run.info.start_time),
        tags=dict(run.data.tags),
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
    )


def _moment(milliseconds: float) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
