"""verify: hash again what digests stand for, from the dataset to the registered bundles, and name what differs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from calotype.console import track
from calotype.counted import counted
from calotype.data import dataset
from calotype.errors import DataError
from calotype.files import read_json, sha256_of
from calotype.params import Params
from calotype.project import Project
from calotype.provenance import dvc_cache

PIPELINES = ("dvc.yaml", "audit/dvc.yaml")
BUNDLE_FILES = ("model.json", "model.safetensors")


@dataclass(frozen=True)
class Findings:
    """What was hashed, and what differs.

    Attributes
    ----------
    checked
        A line for each part that was there.
    problems
        A line for each thing that differs, or is missing.
    """

    checked: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing differs."""
        return not self.problems

    def summary(self) -> str:
        """What differs, a line each; else what was checked."""
        if self.problems:
            return "\n".join(self.problems)
        return "\n".join(["all right", *(f"  {line}" for line in self.checked)])


def verify(project: Project, params: Params) -> Findings:
    """Hash dataset, model, the objects of the DVC cache that dvc.lock names, and the registered bundles.

    Parameters
    ----------
    project
        Whose files, cache and registry.
    params
        ``name`` is the registered model.

    Raises
    ------
    CalotypeError
        If MLflow cannot be reached.
    """
    expected = {out.path for out in _locked(project)}
    checked: list[str] = []
    problems: list[str] = []
    for part in (
        _dataset(project, "data/dataset" in expected, checked),
        _model(project, "models/model" in expected, checked),
        _cache(project, checked),
        _registry(project, params, checked),
    ):
        problems += part
    return Findings(tuple(checked), tuple(problems))


def _dataset(project: Project, is_expected: bool, checked: list[str]) -> Iterator[str]:
    folder, name = project.dataset, project.relative(project.dataset)
    if not folder.is_dir():
        if is_expected:
            yield f"{name}: absent, though dvc.lock names it. Run `dvc checkout`, or `dvc pull`."
        return
    try:
        digests = dataset.read_digests(folder)
    except DataError as error:
        yield str(error)
        return
    for file, digest in track(
        sorted(digests.items()), prefix="verify", unit="files of the dataset", total=len(digests)
    ):
        yield from _compare(folder / file, digest, f"{name}/{file}", "Run `dvc checkout --force`, or `dvc pull`.")
    for path in sorted(folder.iterdir()):
        if path.name not in digests and path.name != dataset.DIGESTS:
            yield f"{name}/{path.name}: is not listed in {dataset.DIGESTS}: ingest did not write it. Move it away."
    checked.append(f"{name}: {counted(len(digests), 'file')}")


def _model(project: Project, is_expected: bool, checked: list[str]) -> Iterator[str]:
    name = project.relative(project.bundle)
    if not (project.bundle / "digests.json").is_file():
        if is_expected:
            yield f"{name}: absent, though dvc.lock names it. Run `dvc checkout`, or `dvc pull`."
        return
    yield from _bundle(project.bundle, name, "Run `dvc checkout --force`, or `dvc pull`.")
    found = sha256_of(project.bundle / "digests.json")
    recorded = read_json(project.run_json).get("bundle_digest") if project.run_json.is_file() else None
    if found != recorded:
        yield (
            f"{project.relative(project.run_json)}: tells of the bundle {_short(recorded)}, found {_short(found)} in "
            f"{name}: of two trainings. Run `dvc checkout`."
        )
    checked.append(
        f"{name}: {len(BUNDLE_FILES)} files, and the bundle's digest in {project.relative(project.run_json)}"
    )


def _cache(project: Project, checked: list[str]) -> Iterator[str]:
    outputs = _locked(project)
    cache = dvc_cache.find(project.root) if outputs else None
    if cache is None:
        return
    objects = _objects(cache, outputs)
    for md5, path in track(sorted(objects.items()), prefix="verify", unit="DVC objects", total=len(objects)):
        place = dvc_cache.object_path(cache, md5)
        if not place.is_file():
            yield f"{path}: its object {md5} is not in the DVC cache. Run `dvc fetch`; else make it anew: `dvc repro`."
        elif _md5_of(place) != md5.removesuffix(dvc_cache.FOLDER):
            yield f"{path}: its object {place} differs from its MD5: damaged or changed. Delete it; run `dvc fetch`."
    checked.append(f"DVC cache: {len(objects):,} objects")


def _registry(project: Project, params: Params, checked: list[str]) -> Iterator[str]:
    local = project.tracking_uri == f"sqlite:///{project.mlruns / 'mlflow.db'}"
    if local and not (project.mlruns / "mlflow.db").exists():
        return
    from calotype.releases.runs import Store, Version
    from calotype.releases.versions import BUNDLE_DIGEST

    store = Store(project)
    versions = store.versions(params.name)

    def artifacts(version: Version) -> Iterator[str]:
        name, expected = f"{version.title}: its bundle in MLflow run {version.run_id}", version.tags.get(BUNDLE_DIGEST)
        if expected is None:
            yield f"{version.title}: has no tag {BUNDLE_DIGEST}: not made by `calotype register`, nothing to compare."
            return
        with TemporaryDirectory() as scratch:
            folder = store.folder(version.run_id, "bundle", Path(scratch))
            if folder is None or not (folder / "digests.json").is_file():
                yield f"{name} is not there: the run or its artifacts were deleted. Train and register again."
                return
            again = "Train and register again, or restore the artifacts."
            yield from _compare(folder / "digests.json", expected, f"{name}: digests.json", again)
            yield from _bundle(folder, name, again)

    for version in track(versions, prefix="verify", unit="registered versions", total=len(versions)):
        yield from artifacts(version)
    checked.append(f"registry: {counted(len(versions), 'version')} of {params.name}")


def _locked(project: Project) -> list[dvc_cache.Output]:
    """Outputs that dvc.lock names and DVC caches; figures that git keeps have no object."""
    found: list[dvc_cache.Output] = []
    for pipeline in PIPELINES:
        lock = (project.root / pipeline).with_suffix(".lock")
        if lock.is_file():
            outputs = dvc_cache.locked(lock.read_text(encoding="utf-8"), where=project.relative(lock))
            uncached = dvc_cache.uncached((project.root / pipeline).read_text(encoding="utf-8"))
            found += [out for out in outputs if out.path not in uncached]
    return found


def _objects(cache: Path, outputs: list[dvc_cache.Output]) -> dict[str, str]:
    """MD5 → path in the project, of every object that some outputs need."""
    objects: dict[str, str] = {}
    for output in outputs:
        objects.setdefault(output.md5, output.path)
        if output.md5.endswith(dvc_cache.FOLDER):
            for member in dvc_cache.members(cache, output.md5) or ():
                objects.setdefault(member.md5, f"{output.path}/{member.path}")
    return objects


def _bundle(folder: Path, name: str, what_to_do: str) -> Iterator[str]:
    try:
        digests = dict(read_json(folder / "digests.json"))
    except ValueError as error:
        yield f"{name}: digests.json cannot be read ({error}). {what_to_do}"
        return
    # A bundle with a reference lists it as well.
    for file in sorted({*BUNDLE_FILES, *digests}):
        yield from _compare(folder / file, digests.get(file), f"{name}: {file}", what_to_do)


def _compare(path: Path, expected: str | None, name: str, what_to_do: str) -> Iterator[str]:
    if not path.is_file():
        yield f"{name}: no such file. {what_to_do}"
    elif (found := sha256_of(path)) != expected:
        yield f"{name}: its SHA-256 is {_short(found)}, expected {_short(expected)}: damaged or changed. {what_to_do}"


def _md5_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _short(digest: str | None) -> str:
    return f"{digest[:12]}…" if digest else "(none)"
