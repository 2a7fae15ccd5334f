"""reproduce: train a registered version again from what its run recorded, and compare.

Its commit with the recorded diff, its data from DVC's cache or remote, its parameters, in the present environment.
Equal weights are expected of the same device, threads, processor flags and torch: bit for bit. Elsewhere the figures
on the same test images are compared instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from calotype.console import say
from calotype.errors import CalotypeError, DataError, UsageError
from calotype.files import read_json
from calotype.params import Params
from calotype.project import Project
from calotype.provenance import git_state, packages
from calotype.provenance.worktree import Worktree, worktree
from calotype.releases.runs import KnownRun, Store, Version, parse_version
from calotype.releases.versions import BUNDLE_DIGEST

DATA = ["data/dataset", "data/splits.parquet"]
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"

COMPARED = {"accuracy": "test/accuracy", "f1_macro": "test/f1_macro"}
"""Figures that are compared where weights cannot be: in metrics.json, and in the run."""

TOLERANCE = 0.01
"""By which a figure may differ, or by half its recorded 95 % interval, if that is wider."""

MOST_PACKAGES = 12


@dataclass(frozen=True)
class Recipe:
    """What a run recorded of a training: enough to train again.

    Attributes
    ----------
    version, run
        Which training.
    commit, diff
        Its code.
    lock
        Its dvc.lock, which names its data.
    environment
        Device, threads, processor flags and versions.
    packages
        Its requirements.lock; may be empty.
    digests
        SHA-256 of the bundle's files.
    data_digest, splits_sha256
        Of the dataset, and of the table of splits.
    """

    version: Version
    run: KnownRun
    commit: str
    diff: bytes
    lock: bytes
    environment: Mapping[str, Any]
    packages: str
    digests: Mapping[str, str]
    data_digest: str
    splits_sha256: str


@dataclass(frozen=True)
class Verdict:
    """Whether a training came out again."""

    agrees: bool
    lines: tuple[str, ...]

    def summary(self) -> str:
        """The verdict, then what it rests on."""
        return "\n".join([self.lines[0], *(f"  {line}" for line in self.lines[1:])])


def reproduce(project: Project, params: Params, which: str) -> Verdict:
    """Train a version again in a scratch worktree and compare.

    Parameters
    ----------
    project
        Whose registry, repository and cache.
    params
        ``name`` is the model that a bare number means.
    which
        ``3`` or ``digits/3``.

    Raises
    ------
    UsageError
        If there is no such version.
    CalotypeError, DataError
        If something that the training was made of is gone: the run, the commit, its diff, or its data.
    """
    named = parse_version(which, params.name)
    if named is None:
        raise UsageError(f"{which}: found no version; expected a number such as 3, or a name and a number: digits/3.")
    store = Store(project)
    version = store.version(*named)
    try:
        recipe = read_recipe(project, store, version)
        _tell(recipe)
        with worktree(project, f"{version.name}-{version.version}", recipe.commit) as copy:
            return _reproduce(copy, recipe)
    except CalotypeError as error:
        raise type(error)(f"{version.title} cannot be reproduced: {error}") from error


def read_recipe(project: Project, store: Store, version: Version) -> Recipe:
    """Collect what a version's run recorded.

    Raises
    ------
    CalotypeError, DataError
        Naming what is missing.
    """
    run = store.run(version.run_id)
    if run is None:
        raise CalotypeError(
            f"its MLflow run {version.run_id} is not at {project.tracking_shown}: deleted for good, or of another "
            "store. Set MLFLOW_TRACKING_URI to the one that has it."
        )
    if run.is_deleted:
        back = f"`mlflow runs restore --run-id {run.run_id}` brings it back"
        raise CalotypeError(f"its MLflow run {run.run_id} is deleted; {back}.")
    environment = store.environment(run.run_id)
    if environment is None:
        raise CalotypeError(f"its MLflow run {run.run_id} holds no inputs/environment.json. Bring its artifacts back.")
    commit = run.tags.get("mlflow.source.git.commit", "")
    lock = _artifact(store, run, "inputs/dvc.lock")
    digests = _artifact(store, run, "bundle/digests.json")
    described = json.loads(_artifact(store, run, f"bundle/{DESCRIPTION}"))["trained_with"]
    if hashlib.sha256(digests).hexdigest() != version.tags.get(BUNDLE_DIGEST):
        raise DataError(f"the bundle in its MLflow run {run.run_id} is not the registered one. Run `calotype verify`.")
    return Recipe(
        version=version,
        run=run,
        commit=_checked_commit(project, commit),
        diff=_diff(store, run, environment),
        lock=_checked_lock(lock, run),
        environment=environment,
        packages=(store.artifact(run.run_id, "inputs/requirements.lock") or b"").decode(),
        digests=json.loads(digests),
        data_digest=described["dataset_digest"],
        splits_sha256=described["splits_sha256"],
    )


def compare(recipe: Recipe, made: Path, environment: Mapping[str, Any], evaluate: Callable[[], Any]) -> Verdict:
    """Compare a new bundle with the recorded one.

    Parameters
    ----------
    recipe
        What was recorded.
    made
        Folder of the new bundle.
    environment
        What the new training ran on.
    evaluate
        Gives metrics.json of the new bundle; called only where weights differ and may.
    """
    title, digests = recipe.version.title, read_json(made / "digests.json")
    if digests == recipe.digests:
        whole = recipe.version.tags[BUNDLE_DIGEST]
        return Verdict(True, (f"{title}: reproduced, bit for bit", f"bundle {whole}"))
    if digests[WEIGHTS] == recipe.digests[WEIGHTS]:
        names = sorted({*recipe.digests, *digests})
        another = " and ".join(name for name in names if recipe.digests.get(name) != digests.get(name))
        return Verdict(False, (f"{title}: not reproduced: equal weights, but another {another}",))
    others = _differences(recipe.environment, environment)
    if not others:
        return Verdict(
            False,
            (
                f"{title}: not reproduced: other weights on the same device, threads, processor flags and torch",
                f"{WEIGHTS} was {recipe.digests[WEIGHTS]}",
                f"{WEIGHTS} is  {digests[WEIGHTS]}",
            ),
        )
    return _by_figures(recipe, evaluate(), others)


def _reproduce(copy: Worktree, recipe: Recipe) -> Verdict:
    say("reproduce", f"worktree of {recipe.commit[:12]} at {copy.origin.relative(copy.top)}")
    if recipe.diff:
        copy.apply(recipe.diff)
        say("reproduce", f"applied its diff: {', '.join(git_state.files_of(recipe.diff.decode(errors='replace')))}")
    _check_params(copy.project, recipe.run)
    copy.bring(recipe.lock, DATA)
    _check_data(copy.project, recipe)
    say("reproduce", f"data {recipe.data_digest[:12]}… is there; training")
    copy.run_stage("train")
    environment = read_json(copy.project.run_json)["environment"]

    def evaluate() -> Any:
        say("reproduce", "other weights, as another machine may give; scoring them")
        copy.run_stage("evaluate")
        return read_json(copy.project.reports / "metrics.json")

    verdict = compare(recipe, copy.project.bundle, environment, evaluate)
    if not verdict.agrees:
        copy.keep = True
        return Verdict(
            False, (*verdict.lines, f"the new training is kept in {copy.origin.relative(copy.project.root)}")
        )
    return verdict


def _tell(recipe: Recipe) -> None:
    """Say what will be done again, and which packages are others than they were."""
    changed = " with its changes" if recipe.diff else ""
    say("reproduce", f"{recipe.version.title}: run {recipe.run.run_id}, commit {recipe.commit[:12]}{changed}")
    versions = dict(recipe.environment.get("versions", {}))
    versions.pop("calotype", None)  # the worktree brings its own
    others = packages.differing(recipe.packages, versions, packages.installed())
    more = f" and {len(others) - MOST_PACKAGES} more" if len(others) > MOST_PACKAGES else ""
    say("reproduce", f"packages that differ: {', '.join(others[:MOST_PACKAGES]) or 'none'}{more}")


def _artifact(store: Store, run: KnownRun, path: str) -> bytes:
    data = store.artifact(run.run_id, path)
    if data is None:
        raise CalotypeError(f"its MLflow run {run.run_id} holds no {path}. Bring its artifacts back.")
    return data


def _checked_commit(project: Project, commit: str) -> str:
    if not commit:
        raise CalotypeError("no git commit was recorded: the training ran outside git. Commit, then train again.")
    if git_state.subject(project.root, commit) is None:
        raise CalotypeError(
            f"git commit {commit} is not in this repository. Run `git fetch`; perhaps it exists no more."
        )
    return commit


def _diff(store: Store, run: KnownRun, environment: Mapping[str, Any]) -> bytes:
    if run.tags.get("calotype.git_dirty") != "true":
        return b""
    if environment.get("git_diff_cut"):
        raise CalotypeError(
            f"the diff to its commit was cut when it was recorded: {environment['git_diff_cut']}. Commit before you "
            "train, or let git ignore what is large: then nothing is cut."
        )
    return _artifact(store, run, "inputs/git.diff")


def _checked_lock(lock: bytes, run: KnownRun) -> bytes:
    """Refuse the dvc.lock of other data: a run that was written anew holds what lay there at that time."""
    recorded = run.tags.get("calotype.dvc_md5", "")
    if not recorded or recorded.encode() not in lock:
        raise DataError(
            f"the dvc.lock of its run is of other data than the training's "
            f"({recorded or 'no MD5 recorded'}). Train again, in one `dvc repro`."
        )
    return lock


def _check_params(copy: Project, run: KnownRun) -> None:
    values = YAML(typ="safe").load(copy.params)
    sections = {key: value if isinstance(value, dict) else {"": value} for key, value in values.items()}
    flat = {f"{name}.{key}".rstrip("."): value for name, inner in sections.items() for key, value in inner.items()}
    others = [
        f"{key} is {flat[key]}, was {recorded}"
        for key, recorded in run.params.items()
        if key in flat and not _is_same(flat[key], recorded)
    ]
    if others:
        raise CalotypeError(
            f"params.yaml of its commit is not what it was trained with: {'; '.join(others[:3])}. Train again, in one "
            "`dvc repro`."
        )


def _is_same(value: Any, recorded: str) -> bool:
    # A whole number is logged as the fraction that it means: 1 as 1.0.
    same = str(value)[: len(recorded)] == recorded if len(recorded) >= 6000 else str(value) == recorded
    return same or (isinstance(value, int) and str(float(value)) == recorded)


def _check_data(copy: Project, recipe: Recipe) -> None:
    found = read_json(copy.dataset / "digests.json")["digest"]
    splits = hashlib.sha256(copy.splits.read_bytes()).hexdigest()
    if (found, splits) != (recipe.data_digest, recipe.splits_sha256):
        raise DataError("the data that DVC brought are not those of the training. Run `calotype verify`.")


def _differences(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """What makes other weights legitimate."""
    words = {"device": "device", "threads": "threads", "processor_flags": "processor flags"}
    others = [word for key, word in words.items() if recorded.get(key) != present.get(key)]
    before, now = (one.get("versions", {}).get("torch") for one in (recorded, present))
    return [*others, *([f"torch ({before}, now {now})"] if before != now else [])]


def _by_figures(recipe: Recipe, metrics: Mapping[str, Any], others: list[str]) -> Verdict:
    lines, agrees = [], True
    for name, logged in COMPARED.items():
        was, now = recipe.run.metrics.get(logged), float(metrics[name])
        if was is None:
            return Verdict(False, (f"{recipe.version.title}: other weights, and its run holds no {logged} to compare",))
        low, high = (recipe.run.metrics.get(f"{logged}_{end}", was) for end in ("low", "high"))
        allowed = max(TOLERANCE, (high - low) / 2)
        agrees = agrees and abs(now - was) <= allowed
        lines.append(f"{name} {now:.4f}, was {was:.4f}; allowed ± {allowed:.4f}")
    word = "reproduced within the tolerance" if agrees else "not reproduced"
    return Verdict(agrees, (f"{recipe.version.title}: {word}; other weights, with other {', '.join(others)}", *lines))
