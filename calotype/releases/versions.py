"""MLflow's registered model as it stands: its aliases, tags and versions, and a version's files on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from calotype import tracking
from calotype.errors import CalotypeError, DataError, UsageError
from calotype.files import replacing
from calotype.project import Project
from calotype.releases import local_bundles
from calotype.releases.local_bundles import Champion

CHAMPION, CHALLENGER = "champion", "challenger"
RUN_KEY, BUNDLE_DIGEST, SPLIT_DIGEST = "calotype.run_key", "calotype.bundle_digest", "calotype.split_digest"
ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
"""What MLflow answers for an unknown model, and for an unknown alias."""

GOLDEN, SPLITS = "golden/golden.parquet", "inputs/splits.parquet"
"""Artifacts of a version's run: golden images with their probabilities, and the splits it was trained on."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Registry:
    """A project's registry, connected."""

    project: Project
    client: MlflowClient

    def model(self, name: str) -> RegisteredModel | None:
        """The registered model with its tags and aliases; None if there is none."""
        return known(lambda: self.client.get_registered_model(name))

    def by_alias(self, name: str, alias: str) -> ModelVersion | None:
        """The version that an alias names."""
        return known(lambda: self.client.get_model_version_by_alias(name, alias))

    def version(self, name: str, number: int) -> ModelVersion | None:
        """One version by its number; None if there is none, or it was deleted."""
        return known(lambda: self.client.get_model_version(name, str(number)))

    def alias(self, name: str, alias: str) -> int | None:
        """The number of the version that an alias names."""
        found = self.by_alias(name, alias)
        return None if found is None else int(found.version)

    def set_alias(self, name: str, alias: str, number: int | None) -> None:
        """Let an alias name a version, or none."""
        if number is None:
            self.client.delete_registered_model_alias(name, alias)
        else:
            over_again(lambda: self.client.set_registered_model_alias(name, alias, str(number)))

    def tag_model(self, name: str, tags: Mapping[str, str]) -> None:
        """Write tags of the registered model."""
        for key, value in tags.items():
            over_again(partial(self.client.set_registered_model_tag, name, key, value))

    def tag_version(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Write those tags of a version that it lacks or has otherwise."""
        for key, value in tags.items():
            if version.tags.get(key) != value:
                self.client.set_model_version_tag(version.name, str(version.version), key, value)

    def log_bytes(self, run_id: str, data: bytes, path: str) -> None:
        """Write a file of exactly these bytes into a run."""
        folder, _, name = path.rpartition("/")
        with TemporaryDirectory() as temporary:
            (Path(temporary) / name).write_bytes(data)
            self.client.log_artifact(run_id, str(Path(temporary) / name), folder)

    def holds(self, run_id: str, path: str) -> bool:
        """Whether a run has this file."""
        return path in {item.path for item in self.client.list_artifacts(run_id, path.rpartition("/")[0])}

    def numbers(self, name: str) -> list[int]:
        """The numbers of all versions, rising."""
        return sorted(int(found.version) for found in self.client.search_model_versions(f"name = '{name}'"))


def over_again(write: Callable[[], object]) -> None:
    """Write an alias or a tag; once more if another process inserted the same row in between.

    MLflow looks for the row, then inserts it: of two at the same moment one meets the table's unique key.
    """
    try:
        write()
    except MlflowException as error:
        if "IntegrityError" not in str(error):
            raise
        write()


@contextmanager
def connected(project: Project) -> Iterator[Registry]:
    """Connect; MLflow's errors become ours.

    Raises
    ------
    CalotypeError
        If the registry cannot be reached, or refuses.
    """
    with answering(project):
        yield Registry(project, tracking.connect(project))


@contextmanager
def answering(project: Project) -> Iterator[None]:
    """Turn MLflow's errors into ours.

    Raises
    ------
    CalotypeError
        If MLflow refuses.
    """
    try:
        yield
    except MlflowException as error:
        raise CalotypeError(f"MLflow at {project.tracking_shown} refuses: {first_line(error)}") from error


def known(ask: Callable[[], Answer]) -> Answer | None:
    """What MLflow answers; None where it knows no such thing."""
    try:
        return ask()
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise


def require(registry: Registry, name: str, number: int) -> ModelVersion:
    """Find a version.

    Raises
    ------
    UsageError
        If there is none of that number; the message lists those that there are.
    """
    found = registry.version(name, number)
    if found is not None:
        return found
    numbers = registry.numbers(name)
    last = ", ".join(map(str, numbers[-20:]))
    several = f"there are the versions {last}" if len(numbers) > 1 else f"there is version {last} alone"
    there = several if numbers else "there is no version yet"
    raise UsageError(f"{name} has no version {number}; {there}. Name one of them, or run `calotype register`.")


def local(registry: Registry, version: ModelVersion) -> Champion:
    """A version with its bundle under .cache/models, downloaded unless a sound copy is there.

    Raises
    ------
    UsageError
        If calotype did not make the version.
    CalotypeError
        If its run, or the bundle in it, is gone.
    DataError
        If what MLflow holds is not the bundle that was registered.
    """
    title = f"{version.name} version {version.version}"
    digest = version.tags.get(BUNDLE_DIGEST)
    if not digest or not version.run_id:
        raise UsageError(f"{title}: was not made by `calotype register` (no tag {BUNDLE_DIGEST}). Name one that was.")
    folder = local_bundles.folder_of(registry.project, digest)
    with one_at_a_time(registry.project, "models"):
        if not local_bundles.is_sound(folder, digest):
            _download(registry, version, digest, folder)
    split = version.tags.get(SPLIT_DIGEST)
    return Champion(version.name, int(version.version), version.run_id, digest, folder, split)


def require_run(registry: Registry, version: ModelVersion) -> None:
    """Make sure that the run behind a version is there: its evidence is to be written into it.

    Raises
    ------
    CalotypeError
        If it was deleted.
    """
    title = f"{version.name} version {version.version}"
    run = known(lambda: registry.client.get_run(str(version.run_id)))
    if run is None:
        raise CalotypeError(
            f"{title}: its MLflow run {version.run_id} is gone. Train and register again, or name another version."
        )
    if run.info.lifecycle_stage == "deleted":
        raise CalotypeError(
            f"{title}: its MLflow run {version.run_id} is deleted. Run `mlflow runs restore --run-id "
            f"{version.run_id}`, or name another version."
        )


@contextmanager
def artifact(registry: Registry, version: Champion, path: str) -> Iterator[Path | None]:
    """Yield a copy of one file of a version's run, or None where the run holds no such file."""
    if not registry.holds(version.run_id, path):
        yield None
        return
    folder = registry.project.cache / "models"
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="artifact-", dir=folder) as temporary:
        yield Path(registry.client.download_artifacts(version.run_id, path, temporary))


def one_at_a_time(project: Project, name: str) -> FileLock:
    """Keep the processes of this machine apart."""
    path = project.cache / "locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def first_line(error: Exception) -> str:
    """What an exception says, without its trace."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _download(registry: Registry, version: ModelVersion, digest: str, folder: Path) -> None:
    title = f"{version.name} version {version.version}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="download-", dir=folder.parent) as temporary:
        try:
            fetched = Path(registry.client.download_artifacts(str(version.run_id), "bundle", temporary))
        except (MlflowException, OSError) as error:
            raise CalotypeError(
                f"{title}: MLflow run {version.run_id} has no bundle to download ({first_line(error)}). Bring its "
                "artifacts back, or train and register again."
            ) from error
        if not local_bundles.is_sound(fetched, digest):
            raise DataError(
                f"{title}: the bundle in MLflow run {version.run_id} is not the one registered ({digest[:12]}…): "
                "damaged or changed. Train and register again."
            )
        with replacing(folder) as place:
            fetched.rename(place)
