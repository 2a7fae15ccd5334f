"""The registry: versions of the model, which one is champion, and the promotion that moves the title.

Aliases `champion` and `challenger`, never stages. MLflow's alias is one value that is replaced at once, so at every
instant there is a valid champion or none was ever promoted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from calotype import bundle as bundles
from calotype import gate, tracking, versioning
from calotype.bundle import Bundle
from calotype.errors import CalotypeError, DataError, UsageError
from calotype.files import read_json, replacing, sha256_of
from calotype.gate import Answers, Decision, Rules
from calotype.params import Params
from calotype.project import Project
from calotype.run_record import RunRecord

CHAMPION, CHALLENGER = "champion", "challenger"
RUN_KEY, BUNDLE_DIGEST = "calotype.run_key", "calotype.bundle_digest"
ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
"""What MLflow answers for an unknown model, and for an unknown alias."""


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


@dataclass(frozen=True)
class Champion:
    """The version that predicts, with its bundle on this machine."""

    name: str
    version: int
    run_id: str
    bundle_digest: str
    bundle_folder: Path

    def summary(self) -> str:
        """One line for a person."""
        return f"{self.name} version {self.version} (bundle {self.bundle_digest[:12]}, MLflow run {self.run_id})"


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
    with _one_at_a_time(project, "registry"), _registry(project) as client:
        run_id = tracking.ensure_run(project)
        _check_run(client, run_id, digest)
        version, created = _ensure_version(client, params.name, run_id, _tags(record, metrics))
        alias = _challenge(client, version)
    registered = RegisteredVersion(
        params.name, int(version.version), run_id, digest, alias, created, float(metrics["accuracy"])
    )
    return _shared(project, record, registered)


def champion(project: Project, params: Params) -> Champion:
    """Find the champion and bring its bundle to this machine, digest compared.

    Raises
    ------
    UsageError
        If there is no champion.
    DataError
        If what MLflow holds is not the bundle that was registered.
    """
    with _registry(project) as client:
        version = _by_alias(client, params.name, CHAMPION)
        if version is None:
            raise UsageError(
                f"no version of {params.name!r} is the champion. Run `calotype register`, then `calotype promote`."
            )
        return _local(project, client, version)


def promote(project: Project, params: Params) -> Decision:
    """Score challenger and champion now, on the same test images; the better one is the champion after that.

    Raises
    ------
    DataError
        If the two know different classes, or the data set has others.
    """
    with _one_at_a_time(project, "registry"), _registry(project) as client:
        challenger = _by_alias(client, params.name, CHALLENGER)
        current = _by_alias(client, params.name, CHAMPION)
        if challenger is None:
            stays = f"; version {current.version} stays the champion" if current else ""
            return gate.nothing_to_promote(
                f"no version of {params.name!r} is the challenger{stays}. Run `calotype register`."
            )
        if current is not None and current.version == challenger.version:
            # A promotion was cut off after the champion was named.
            client.delete_registered_model_alias(params.name, CHALLENGER)
            return gate.nothing_to_promote(f"{params.name} version {current.version} is the champion already")
        rival = _local(project, client, current) if current is not None else None
        decision = _contest(project, params, _local(project, client, challenger), rival)
        _record(client, challenger, decision)
        if decision.promoted:
            # In this order: cut off in between, there is a champion, and the next promotion removes the other alias.
            client.set_registered_model_alias(params.name, CHAMPION, str(challenger.version))
            client.delete_registered_model_alias(params.name, CHALLENGER)
        return decision


@contextmanager
def _registry(project: Project) -> Iterator[MlflowClient]:
    """Connect; MLflow's errors become ours."""
    try:
        yield tracking.connect(project)
    except MlflowException as error:
        raise CalotypeError(f"MLflow at {project.tracking_uri} refuses: {_first_line(error)}") from error


def _one_at_a_time(project: Project, name: str) -> FileLock:
    """Keep the processes of this machine apart."""
    path = project.cache / "locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def _by_alias(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise


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


def _check_run(client: MlflowClient, run_id: str, digest: str) -> None:
    with TemporaryDirectory() as folder:
        try:
            logged = sha256_of(Path(client.download_artifacts(run_id, f"bundle/{bundles.DIGESTS}", folder)))
        except (MlflowException, OSError) as error:
            raise CalotypeError(
                f"MLflow run {run_id} holds no bundle ({_first_line(error)}). Run `dvc repro --force train`."
            ) from error
    if logged != digest:
        raise UsageError(
            f"MLflow run {run_id} holds the bundle {logged[:12]}…; expected {digest[:12]}…, the one that "
            "models/run.json names. Run `dvc repro --force train`."
        )


def _tags(record: RunRecord, metrics: Mapping[str, Any]) -> dict[str, str]:
    parameters = json.dumps(record.params, sort_keys=True, default=str)
    tags = {
        RUN_KEY: record.key,
        BUNDLE_DIGEST: record.bundle_digest,
        "calotype.git_commit": str(record.environment.get("git_commit", "")),
        "calotype.git_dirty": str(record.environment.get("git_dirty", "")).lower(),
        "calotype.data_digest": str(record.dataset["digest"]),
        "calotype.params_digest": hashlib.sha256(parameters.encode()).hexdigest(),
    }
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return tags | {f"calotype.test.{name}": f"{value:.6g}" for name, value in numbers.items()}


def _ensure_version(client: MlflowClient, name: str, run_id: str, tags: Mapping[str, str]) -> tuple[ModelVersion, bool]:
    """One version for a training: looked for first, because a retried request whose reply was lost makes two."""
    _ensure_model(client, name)
    wanted = " and ".join(f"tag.`{key}` = '{tags[key]}'" for key in (RUN_KEY, BUNDLE_DIGEST))
    found = client.search_model_versions(f"name = '{name}' and {wanted}")
    if found:
        return min(found, key=lambda version: int(version.version)), False
    model_id = _logged_model(client, run_id)
    made = client.create_model_version(
        name, f"models:/{model_id}", run_id=run_id, tags=dict(tags), model_id=model_id, await_creation_for=60
    )
    return made, True


def _ensure_model(client: MlflowClient, name: str) -> None:
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        client.create_registered_model(name, description="Image classifier, trained and registered by calotype")


def _logged_model(client: MlflowClient, run_id: str) -> str:
    outputs = client.get_run(run_id).outputs
    model_ids = [output.model_id for output in outputs.model_outputs] if outputs else []
    if not model_ids:
        raise CalotypeError(f"MLflow run {run_id} holds no logged model. Run `dvc repro --force train`.")
    return str(model_ids[-1])


def _challenge(client: MlflowClient, version: ModelVersion) -> str:
    """Make the version the challenger, unless it is the champion already."""
    current = _by_alias(client, version.name, CHAMPION)
    if current is not None and current.version == version.version:
        return CHAMPION
    client.set_registered_model_alias(version.name, CHALLENGER, str(version.version))
    return CHALLENGER


def _shared(project: Project, record: RunRecord, registered: RegisteredVersion) -> RegisteredVersion:
    from calotype import dataset

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


def _local(project: Project, client: MlflowClient, version: ModelVersion) -> Champion:
    """The version with its bundle under .cache/models, downloaded unless a sound copy is there."""
    title = f"{version.name} version {version.version}"
    digest = version.tags.get(BUNDLE_DIGEST)
    if not digest or not version.run_id:
        raise UsageError(
            f"{title}: was not made by `calotype register` (no tag {BUNDLE_DIGEST}). Give the alias to one that was."
        )
    folder = project.cache / "models" / digest
    with _one_at_a_time(project, "models"):
        if not _is_sound(folder, digest):
            _download(client, version, digest, folder)
    return Champion(version.name, int(version.version), version.run_id, digest, folder)


def _is_sound(folder: Path, digest: str) -> bool:
    try:
        bundles.load(folder)
        return bundles.digest(folder) == digest
    except DataError:
        return False


def _download(client: MlflowClient, version: ModelVersion, digest: str, folder: Path) -> None:
    title = f"{version.name} version {version.version}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="download-", dir=folder.parent) as temporary:
        try:
            fetched = Path(client.download_artifacts(str(version.run_id), "bundle", temporary))
        except (MlflowException, OSError) as error:
            raise CalotypeError(
                f"{title}: MLflow run {version.run_id} has no bundle to download ({_first_line(error)}). Bring its "
                "artifacts back, or train and register again."
            ) from error
        if not _is_sound(fetched, digest):
            raise DataError(
                f"{title}: the bundle in MLflow run {version.run_id} is not the one registered ({digest[:12]}…): "
                "damaged or changed. Train and register again."
            )
        with replacing(folder) as place:
            fetched.rename(place)


def _contest(project: Project, params: Params, challenger: Champion, current: Champion | None) -> Decision:
    from calotype.stages import evaluate

    bundle = bundles.load(challenger.bundle_folder)
    rival_bundle = bundles.load(current.bundle_folder) if current else None
    if current and rival_bundle:
        _check_classes(challenger, bundle, current, rival_bundle)
    test = evaluate.test_images(project, bundle)
    if test.is_empty():
        raise DataError(f"{project.relative(project.splits)}: no image is in the test split. Run `dvc repro split`.")
    labels = evaluate.label_indices(test["label"].to_list(), bundle.classes)
    ids = test["image_id"].to_list()

    def answers(version: Champion, model: Bundle) -> Answers:
        return Answers(f"{version.name} version {version.version}", evaluate.classify(params, project, model, ids))

    rival = answers(current, rival_bundle) if current and rival_bundle else None
    return gate.decide(answers(challenger, bundle), rival, labels, Rules(params.promote.min_margin))


def _check_classes(challenger: Champion, ours: Bundle, current: Champion, theirs: Bundle) -> None:
    if ours.classes == theirs.classes:
        return
    added = [name for name in ours.classes if name not in theirs.classes]
    gone = [name for name in theirs.classes if name not in ours.classes]
    parts = [f"{word} {', '.join(map(repr, names))}" for word, names in (("adds", added), ("lacks", gone)) if names]
    difference = " and ".join(parts) or "lists the same classes in another order"
    raise DataError(
        f"{challenger.name} version {challenger.version} cannot be compared with the champion, version "
        f"{current.version}: it {difference}. Expected equal class lists. For other classes, set another `name` in "
        "params.yaml and train."
    )


def _record(client: MlflowClient, challenger: ModelVersion, decision: Decision) -> None:
    """Keep verdict and evidence, whatever they are: in the challenger's run, and as tags of the version."""
    client.log_dict(str(challenger.run_id), decision.as_json(), "gate/decision.json")
    evidence = decision.evidence
    tags = {"verdict": decision.verdict, "reason": decision.reasons[0]}
    if evidence is not None:
        tags |= {"images": str(evidence.images), "accuracy": f"{evidence.challenger.accuracy:.6g}"}
        if evidence.champion is not None:
            tags |= {"against": evidence.champion.model, "against_accuracy": f"{evidence.champion.accuracy:.6g}"}
    for key, value in tags.items():
        client.set_model_version_tag(challenger.name, str(challenger.version), f"calotype.gate.{key}", value)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
