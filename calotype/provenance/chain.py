"""The links from a model back to its source: version, promotion, run, commit, data, parameters, flow run.

A link that cannot be found says so in its place, and what would bring it back; the links behind it are followed all
the same, as far as the version's own tags know them.
"""

from __future__ import annotations

import ast
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
from pydantic.fields import FieldInfo

from calotype.data import dataset
from calotype.errors import CalotypeError, DataError
from calotype.params import Params
from calotype.project import Project
from calotype.provenance import dvc_cache, git_state
from calotype.releases import ledger
from calotype.releases.runs import KnownRun, Store, Version
from calotype.releases.versions import BUNDLE_DIGEST, SPLITS

PLACES = ("version", "promotion", "run", "commit", "data", "parameters", "flow_run", "images")
"""Links in their order; also the keys of the JSON."""

LEARNED_FROM = ("train", "val")
"""Splits whose images shaped a model: its weights, or the choice of an epoch and of a threshold."""


@dataclass(frozen=True)
class Link:
    """One step back: what was found, and what of it is missing; both may be there, and neither where nothing is due."""

    value: dict[str, Any] | None = None
    missing: str = ""


@dataclass(frozen=True)
class Chain:
    """Every link of one model, by its name in `PLACES`."""

    links: Mapping[str, Link]
    learned_from: Mapping[str, str] | None = field(default=None, repr=False)

    @property
    def missing(self) -> dict[str, str]:
        """What each broken link lacks."""
        return {place: link.missing for place, link in self.links.items() if link.missing}

    def as_json(self) -> dict[str, Any]:
        """Plain values, with the same keys always."""
        found = {place: self.links.get(place, Link()).value for place in PLACES}
        return found | {"missing": self.missing}


class Follower:
    """Follows models back in one project; asks MLflow, git, DVC and the ledger once for each answer."""

    def __init__(self, project: Project, store: Store) -> None:
        self.project = project
        self.store = store

    @cached_property
    def cache(self) -> Path | None:
        """Folder of the DVC cache."""
        return dvc_cache.find(self.project.root)

    def follow(
        self,
        run_id: str,
        version: Version | None,
        *,
        named: tuple[str, int] | None = None,
        predicted_at: datetime | None = None,
        with_images: bool = False,
    ) -> Chain:
        """Collect a model's links.

        Parameters
        ----------
        run_id
            Its training.
        version
            What the registry knows of it; None where it is no version, or no longer.
        named
            Name and number under which a prediction knows it.
        predicted_at
            When it predicted: then a promotion must have come before.
        with_images
            Whether to list the images it learned from.
        """
        run = self.store.run(run_id) if run_id else None
        tags = dict(version.tags if version else {}) | dict(run.tags if run else {})
        splits = self._splits(run_id) if run else None
        links = {
            "version": _version(version, named),
            "promotion": self._promotion(version, named, predicted_at),
            "run": self._run(run_id, run),
            "commit": self._commit(run_id, tags, has_run=run is not None),
            "data": self._data(run_id, tags, has_run=run is not None),
            "parameters": Link(_typed(run.params)) if run else Link(None, "they are in the run alone"),
            "flow_run": _flow_run(tags),
        }
        if with_images:
            links["images"] = self._images(splits)
        return Chain(links, None if splits is None else dict(splits.select("image_id", "split").iter_rows()))

    def _promotion(self, version: Version | None, named: tuple[str, int] | None, at: datetime | None) -> Link:
        name, number = named or ((version.name, version.version) if version else ("", 0))
        if not name:
            return Link()
        try:
            entries = ledger.read(self.project.ledger, name).entries
        except CalotypeError as error:
            return Link(None, str(error))
        made = [one for one in entries if one.moves and one.to_version == number and (at is None or one.at <= at)]
        if made:
            return Link(made[-1].as_json())
        if at is None:
            return Link()
        return Link(None, f"the ledger holds no promotion of {name}/{number} before {at:%Y-%m-%d %H:%M:%S} UTC")

    def _run(self, run_id: str, run: KnownRun | None) -> Link:
        uri = self.project.tracking_shown
        if run is None:
            return Link(
                None, f"run {run_id or '(none)'} is not in MLflow at {uri}: deleted for good, or of another store"
            )
        value = {
            "run_id": run.run_id,
            "name": run.name,
            "experiment": run.experiment,
            "status": run.status,
            "started_at": run.started_at.isoformat(timespec="seconds"),
        }
        gone = f"run deleted in MLflow: `mlflow runs restore --run-id {run.run_id}` brings it back"
        return Link(value, gone if run.is_deleted else "")

    def _commit(self, run_id: str, tags: Mapping[str, str], *, has_run: bool) -> Link:
        sha = tags.get("mlflow.source.git.commit") or tags.get("calotype.git_commit")
        if not sha:
            return Link(None, "no commit was recorded: the training ran outside git, or the run is gone")
        subject = git_state.subject(self.project.root, sha)
        dirty = tags.get("calotype.git_dirty") == "true"
        diff = self.store.artifact(run_id, "inputs/git.diff") if dirty and has_run else None
        cut = (self.store.environment(run_id) or {}).get("git_diff_cut", "") if dirty and has_run else ""
        problems = [
            "" if subject is not None else f"commit {sha[:12]} is not in this repository: `git fetch`",
            "the diff to the commit is not in the run" if dirty and diff is None else "",
            f"the recorded diff was cut ({cut})" if cut else "",
        ]
        files = git_state.files_of(diff.decode(errors="replace")) if diff else []
        value = {"commit": sha, "subject": subject, "dirty": dirty, "changed_files": files}
        return Link(value, "; ".join(filter(None, problems)))

    def _data(self, run_id: str, tags: Mapping[str, str], *, has_run: bool) -> Link:
        digest, md5 = tags.get("calotype.data_digest"), tags.get("calotype.dvc_md5")
        if not digest:
            return Link(None, "no data digest was recorded")
        made = self.store.artifact(run_id, "bundle/model.json") if has_run else None
        trained_with = json.loads(made).get("trained_with", {}) if made else {}
        shards = self._shards(digest, md5)
        value = {
            "digest": digest,
            "dvc_md5": md5,
            "splits_sha256": trained_with.get("splits_sha256"),
            "counts": trained_with.get("counts"),
            "shards": shards,
        }
        lost = "the list of its shards is not in the DVC cache: `dvc fetch --all-commits` brings it from the remote"
        return Link(value, "" if shards else lost)

    def _shards(self, digest: str, md5: str | None) -> list[str]:
        """Names from DVC's list of the dataset's files, else from the dataset itself while it is the same."""
        members = dvc_cache.members(self.cache, md5) if self.cache and md5 else None
        names = [member.path for member in members or ()]
        if not names:
            try:
                same = dataset.digest(self.project.dataset) == digest
                names = list(dataset.read_digests(self.project.dataset)) if same else []
            except DataError:
                names = []
        return sorted(name for name in names if name.startswith("shard-"))

    def _splits(self, run_id: str) -> pl.DataFrame | None:
        data = self.store.artifact(run_id, SPLITS)
        return pl.read_parquet(io.BytesIO(data)) if data else None

    def _images(self, splits: pl.DataFrame | None) -> Link:
        if splits is None:
            return Link(None, "the run keeps no inputs/splits.parquet: its images are not known one by one")
        learned = splits.filter(pl.col("split").is_in(LEARNED_FROM)).select("image_id", "split")
        try:
            manifest = dataset.read_manifest(self.project.dataset).select("image_id", "path", "label")
        except DataError:
            manifest = pl.DataFrame(schema={"image_id": pl.String, "path": pl.String, "label": pl.String})
        rows = learned.join(manifest, on="image_id", how="left").sort("image_id")
        gone = int(rows["path"].null_count())
        missing = f"{gone:,} of {rows.height:,} images are no longer in data/dataset" if gone else ""
        return Link({"images": rows.select("image_id", "path", "label", "split").to_dicts()}, missing)


def _version(version: Version | None, named: tuple[str, int] | None) -> Link:
    if version is not None:
        value = {
            "name": version.name,
            "version": version.version,
            "created_at": version.created_at.isoformat(timespec="seconds"),
            "bundle_digest": version.tags.get(BUNDLE_DIGEST),
        }
        return Link(value)
    if named is None:
        return Link()
    return Link(
        {"name": named[0], "version": named[1]}, f"version {named[0]}/{named[1]} is not in MLflow: deleted there"
    )


def _typed(recorded: Mapping[str, str]) -> dict[str, Any]:
    """Parameters as params.yaml has them; MLflow keeps the text of each."""
    return {key: text if _is_text(key) else _value(text) for key, text in recorded.items()}


def _is_text(key: str) -> bool:
    """Whether a parameter takes any text, and so may say ``42`` and mean it."""
    section, _, name = key.rpartition(".")
    fields: Mapping[str, FieldInfo] = Params.model_fields
    if section:
        fields = getattr(fields[section].annotation, "model_fields", {}) if section in fields else {}
    return name in fields and fields[name].annotation is str


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _flow_run(tags: Mapping[str, str]) -> Link:
    flow_run_id = tags.get("calotype.flow_run_id")
    return Link({"id": flow_run_id, "name": tags.get("calotype.flow_run_name", "")} if flow_run_id else None)
