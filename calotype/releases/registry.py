"""The registry: a training becomes a version and the challenger; the champion is who the ledger says.

Aliases `champion` and `challenger`, never stages. The alias champion only follows the ledger (`projection`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from calotype import tracking
from calotype.data.split_digest import split_digest
from calotype.errors import CalotypeError, UsageError
from calotype.files import read_json, sha256_of
from calotype.learning import bundle as bundles
from calotype.learning.run_record import RunRecord
from calotype.params import Params
from calotype.project import Project
from calotype.provenance import versioning
from calotype.releases import model_card, projection, versions
from calotype.releases.local_bundles import Champion
from calotype.releases.versions import (
    BUNDLE_DIGEST,
    CHALLENGER,
    CHAMPION,
    GOLDEN,
    RUN_KEY,
    SPLIT_DIGEST,
    Registry,
)

__all__ = ["CHALLENGER", "CHAMPION", "Champion", "RegisteredVersion", "challenger", "champion", "register"]


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of the registered model, and what registering found or did."""

    name: str
    version: int
    run_id: str
    bundle_digest: str
    alias: str
    created: bool
    accuracy: float
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """The version in a line, then what else there is to know."""
        state = "made" if self.created else "exists already"
        first = f"{self.name} version {self.version} {state}: {self.alias}, test accuracy {self.accuracy:.4f}"
        return "\n".join([f"{first}, MLflow run {self.run_id}", *(f"  {note}" for note in self.notes)])


def register(project: Project, params: Params) -> RegisteredVersion:
    """Make the trained model a version with the alias challenger; the same training gives the same version.

    Raises
    ------
    UsageError
        If there is no trained and evaluated model, or its files do not belong together.
    CalotypeError
        If MLflow fails, or a configured DVC remote cannot be pushed to: then the version exists all the same.
    """
    record = _record_of_training(project)
    digest = record.bundle_digest
    metrics = _evaluation(project, digest)
    with versions.one_at_a_time(project, "registry"), versions.connected(project) as registry:
        standing = projection.reconcile(registry, params, prefix="register")
        run_id = tracking.ensure_run(project)
        _check_run(registry, run_id, digest)
        _complete_run(project, registry, run_id, digest)
        version, created = _ensure_version(project, registry, params.name, run_id, _tags(project, record, metrics))
        _describe(project, registry, version)
        alias = _challenge(registry, version, standing.champion)
    registered = RegisteredVersion(
        params.name, int(version.version), run_id, digest, alias, created, float(metrics["accuracy"])
    )
    return _shared(project, record, registered)


def champion(project: Project, params: Params, *, prefix: str = "predict") -> Champion:
    """Find the champion by the ledger and bring its bundle to this machine, digest compared.

    Parameters
    ----------
    project, params
        The project and its values.
    prefix
        The verb that speaks, should alias and ledger not agree.

    Raises
    ------
    UsageError
        If there is no champion, or it was deleted, or the alias names one that nobody recorded.
    DataError
        If what MLflow holds is not the bundle that was registered.
    """
    with versions.connected(project) as registry:
        number = projection.agree(registry, params, prefix=prefix).require()
        if number is None:
            raise UsageError(
                f"no version of {params.name!r} is the champion. Run `calotype register`, then `calotype promote`."
            )
        return versions.local(registry, versions.require(registry, params.name, number))


def challenger(project: Project, params: Params) -> Champion | None:
    """The version with the alias challenger, its bundle on this machine; None where there is none.

    Raises
    ------
    DataError
        If what MLflow holds is not the bundle that was registered.
    """
    with versions.connected(project) as registry:
        number = registry.alias(params.name, CHALLENGER)
        if number is None:
            return None
        return versions.local(registry, versions.require(registry, params.name, number))


def _evaluation(project: Project, digest: str) -> dict[str, Any]:
    """The figures of metrics.json, if they were measured on this bundle."""
    import polars as pl

    metrics, predictions = project.reports / "metrics.json", project.reports / "predictions.parquet"
    if not (metrics.is_file() and predictions.is_file()):
        missing = metrics if not metrics.is_file() else predictions
        raise UsageError(
            f"{project.relative(missing)}: no such file. Run `dvc repro evaluate` to score the model first."
        )
    figures: dict[str, Any] = read_json(metrics)
    scored = pl.read_parquet_metadata(predictions).get("bundle_digest", "")
    # metrics.json is in git, the rest is in DVC: a checkout of one alone leaves figures of another model.
    right = pl.scan_parquet(predictions).select((pl.col("label") == pl.col("predicted")).mean()).collect().item()
    if scored != digest or abs(right - figures.get("accuracy", -1)) > 1e-9:
        raise UsageError(
            f"{project.relative(metrics)}: holds figures of another model than {project.relative(project.bundle)} "
            f"({digest[:12]}…). Run `dvc repro evaluate`."
        )
    return figures


def _record_of_training(project: Project) -> RunRecord:
    """The record of the training whose bundle is in models/."""
    if not project.run_json.is_file():
        raise UsageError(f"{project.relative(project.run_json)}: no such file. Run `dvc repro` to train a model first.")
    record = RunRecord.read(project.run_json)
    bundles.load(project.bundle)
    found = bundles.digest(project.bundle)
    if found != record.bundle_digest:
        raise UsageError(
            f"{project.relative(project.bundle)} and {project.relative(project.run_json)} come from two trainings: "
            f"found the bundle {found[:12]}…, expected {record.bundle_digest[:12]}…. Run `dvc checkout` or `dvc repro`."
        )
    return record


def _check_run(registry: Registry, run_id: str, digest: str) -> None:
    with TemporaryDirectory() as folder:
        try:
            logged = sha256_of(Path(registry.client.download_artifacts(run_id, f"bundle/{bundles.DIGESTS}", folder)))
        except (MlflowException, OSError) as error:
            raise CalotypeError(
                f"MLflow run {run_id} holds no bundle ({versions.first_line(error)}). Run `dvc repro --force train`."
            ) from error
    if logged != digest:
        raise UsageError(
            f"MLflow run {run_id} holds the bundle {logged[:12]}…; expected {digest[:12]}…, the one that "
            "models/run.json names. Run `dvc repro --force train`."
        )


def _complete_run(project: Project, registry: Registry, run_id: str, digest: str) -> None:
    """Lay the golden images beside the bundle where evaluation could not: MLflow was away, or DVC brought the files."""
    import polars as pl

    golden = project.reports / "golden.parquet"
    if not golden.is_file() or registry.holds(run_id, GOLDEN):
        return
    if pl.read_parquet_metadata(golden).get("bundle_digest") == digest:
        registry.log_bytes(run_id, golden.read_bytes(), GOLDEN)


def _tags(project: Project, record: RunRecord, metrics: Mapping[str, Any]) -> dict[str, str]:
    parameters = json.dumps(record.params, sort_keys=True, default=str)
    tags = {
        RUN_KEY: record.key,
        BUNDLE_DIGEST: record.bundle_digest,
        SPLIT_DIGEST: _scored_split(project),
        "calotype.git_commit": str(record.environment.get("git_commit", "")),
        "calotype.git_dirty": str(record.environment.get("git_dirty", "")).lower(),
        "calotype.data_digest": str(record.dataset["digest"]),
        "calotype.params_digest": hashlib.sha256(parameters.encode()).hexdigest(),
    }
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return tags | {f"calotype.test.{name}": f"{value:.6g}" for name, value in numbers.items()}


def _scored_split(project: Project) -> str:
    """The test split that the figures were measured on; the gate compares it with today's."""
    import polars as pl

    # Counted anew, though the metadata of the file tell it: the gate compares what the rows are, not what they were.
    scored = pl.read_parquet(project.reports / "predictions.parquet", columns=["image_id", "label"])
    return split_digest(scored["image_id"].to_list(), scored["label"].to_list())


def _ensure_version(
    project: Project, registry: Registry, name: str, run_id: str, tags: Mapping[str, str]
) -> tuple[ModelVersion, bool]:
    """One version for a training: looked for first, because a retried request whose reply was lost makes two."""
    client = registry.client
    _ensure_model(registry, name)
    wanted = " and ".join(f"tag.`{key}` = '{tags[key]}'" for key in (RUN_KEY, BUNDLE_DIGEST))
    found = client.search_model_versions(f"name = '{name}' and {wanted}")
    if found:
        version = min(found, key=lambda version: int(version.version))
        # Evaluated anew, say because images were added: the gate must know on which split.
        registry.tag_version(version, tags)
        return version, False
    model_id = tracking.ensure_model(project, run_id)
    made = client.create_model_version(
        name, f"models:/{model_id}", run_id=run_id, tags=dict(tags), model_id=model_id, await_creation_for=60
    )
    return made, True


def _describe(project: Project, registry: Registry, version: ModelVersion) -> None:
    """Show the model card as the version's description, with the number that `evaluate` did not know."""
    card = project.reports / "card.md"
    if not card.is_file():
        return
    text = model_card.with_version(card.read_text(encoding="utf-8"), version.name, str(version.version))
    if text != version.description:
        registry.client.update_model_version(version.name, str(version.version), description=text)


def _ensure_model(registry: Registry, name: str) -> None:
    if registry.model(name) is None:
        registry.client.create_registered_model(
            name, description="Image classifier, trained and registered by calotype"
        )


def _challenge(registry: Registry, version: ModelVersion, current: int | None) -> str:
    """Make the version the challenger, unless it is the champion already."""
    number = int(version.version)
    if current == number:
        return CHAMPION
    registry.set_alias(version.name, CHALLENGER, number)
    return CHALLENGER


def _shared(project: Project, record: RunRecord, registered: RegisteredVersion) -> RegisteredVersion:
    from calotype.data import dataset

    notes = []
    if project.dataset.is_dir() and record.dataset["digest"] != dataset.digest(project.dataset):
        notes.append(f"trained on other data than {project.relative(project.dataset)} holds now. Run `dvc repro`")
    try:
        notes.append(versioning.push(project.root))
    except CalotypeError as error:
        raise CalotypeError(
            f"{registered.name} version {registered.version} is registered as {registered.alias}, but {error}. "
            "Mend the remote, then run `calotype register` again."
        ) from error
    return replace(registered, notes=tuple(notes))
