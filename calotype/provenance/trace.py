"""trace: from a prediction, an image, a version or a run back to everything that it was made of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from calotype.data import dataset
from calotype.data.splitting import read_splits
from calotype.errors import DataError, UsageError
from calotype.files import sha256_of
from calotype.params import Params
from calotype.predictions import prediction_table
from calotype.project import Project
from calotype.provenance.chain import Chain, Follower
from calotype.releases.runs import Store, parse_version

RUN = re.compile(r"[0-9a-f]{32}")

Kind = Literal["prediction", "batch", "image", "version", "run"]

ROW = (
    "path",
    "image_id",
    "status",
    "reason",
    "label",
    "confidence",
    "abstained",
    "model_name",
    "model_version",
    "run_id",
    "engine",
    "batch_id",
    "predicted_at",
)
"""Columns of a prediction that a trace repeats, where the table has them."""


@dataclass(frozen=True)
class Trace:
    """What was asked for, the predictions that it stands for, and the chain of each model behind them.

    Attributes
    ----------
    kind, what
        What was asked for.
    rows
        Rows of the predictions table, with ``seen``: the split in which the model learned from that very image.
    batch
        Counts of a batch.
    image
        What the dataset holds of an image.
    chains
        One for each model.
    missing
        What is missing before any chain begins, by its key in the JSON, as in a chain.
    """

    kind: Kind
    what: str
    rows: tuple[dict[str, Any], ...]
    batch: dict[str, Any] | None
    image: dict[str, Any] | None
    chains: tuple[Chain, ...]
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether every link was found."""
        return not self.missing and not any(chain.missing for chain in self.chains)

    def as_json(self) -> dict[str, Any]:
        """Plain values, with the same keys always."""
        return {
            "kind": self.kind,
            "what": self.what,
            "predictions": list(self.rows),
            "batch": self.batch,
            "image": self.image,
            "chains": [chain.as_json() for chain in self.chains],
            "missing": dict(self.missing),
            "is_whole": self.is_whole,
        }


def trace(project: Project, params: Params, what: str, path: str | None = None, *, images: bool = False) -> Trace:
    """Follow something back to its source.

    Parameters
    ----------
    project
        Whose predictions, models and data.
    params
        ``name`` is the model whose version a bare number means.
    what
        An image file, a version (``3`` or ``digits/3``), an MLflow run id, or a batch of the predictions table.
    path
        With a batch: the path of one of its rows.
    images
        Whether to list the images that each model learned from.

    Raises
    ------
    UsageError
        If nothing of that name is known.
    CalotypeError
        If MLflow cannot be reached.
    """
    if path is not None:
        return _of_row(project, what, path, images)
    if Path(what).is_file():
        return _of_image(project, Path(what), images)
    if version := parse_version(what, params.name):
        return _of_version(project, *version, images)
    if RUN.fullmatch(what):
        return _of_run(project, what, images)
    return _of_batch(project, what, images)


def _of_version(project: Project, name: str, number: int, images: bool) -> Trace:
    store = Store(project)
    version = store.version(name, number)
    chain = Follower(project, store).follow(version.run_id, version, with_images=images)
    return Trace("version", version.title, (), None, None, (chain,))


def _of_run(project: Project, run_id: str, images: bool) -> Trace:
    store = Store(project)
    versions = store.versions_of(run_id)
    if store.run(run_id) is None and not versions:
        raise UsageError(f"{run_id}: no such run in MLflow at {project.tracking_uri}. Its page shows a run's id.")
    chain = Follower(project, store).follow(run_id, versions[0] if versions else None, with_images=images)
    return Trace("run", run_id, (), None, None, (chain,))


def _of_batch(project: Project, batch_id: str, images: bool) -> Trace:
    rows = _rows(project, batch_id=batch_id)
    if not rows:
        raise UsageError(_unknown(project, batch_id))
    batch = {
        "batch_id": batch_id,
        "rows": len(rows),
        "predicted": sum(row["status"] == "predicted" for row in rows),
        "predicted_at": _plain(rows[0])["predicted_at"],
    }
    _, chains = _chains(project, rows, images)
    return Trace("batch", batch_id, (), batch, None, chains)


def _of_row(project: Project, batch_id: str, path: str, images: bool) -> Trace:
    inbox = Path(path).absolute()
    below = inbox.relative_to(project.inbox).as_posix() if inbox.is_relative_to(project.inbox) else path
    rows = _rows(project, batch_id=batch_id)
    if not rows:
        raise UsageError(_unknown(project, batch_id))
    # The same path twice in a batch: its file changed in between. The last stands.
    chosen = [row for row in rows if row["path"] in (path, below)][-1:]
    if not chosen:
        raise UsageError(
            f"{path}: no row of batch {batch_id} has this path, of {len(rows):,} rows such as {rows[0]['path']!r}."
        )
    shown, chains = _chains(project, chosen, images)
    return Trace("prediction", path, shown, None, None, chains)


def _of_image(project: Project, file: Path, images: bool) -> Trace:
    image_id = sha256_of(file)
    rows = _rows(project, image_id=image_id)
    shown, chains = _chains(project, rows, images)
    table = project.relative(project.predictions)
    never = f"{file} is in no scheduled prediction: no row of {table} has its SHA-256 (files of --to are not read)"
    missing = {} if rows else {"predictions": never}
    return Trace("image", str(file), shown, None, _in_dataset(project, image_id), chains, missing)


def _chains(
    project: Project, rows: Sequence[Mapping[str, Any]], images: bool
) -> tuple[tuple[dict[str, Any], ...], tuple[Chain, ...]]:
    """Rows for a person, and the chain of each model that made them."""
    if not rows:
        return (), ()
    store = Store(project)
    follower = Follower(project, store)
    models: dict[tuple[str, int, str], datetime] = {}
    for row in rows:
        key = (row["model_name"], row["model_version"], row["run_id"])
        models[key] = min(models.get(key, row["predicted_at"]), row["predicted_at"])
    chains = {}
    for (name, number, run_id), at in models.items():
        version = next((one for one in store.versions(name) if one.version == number), None)
        chains[run_id] = follower.follow(run_id, version, named=(name, number), predicted_at=at, with_images=images)
    shown = []
    for row in rows:
        learned = chains[row["run_id"]].learned_from
        seen = None if learned is None else learned.get(row["image_id"])
        shown.append(_plain(row) | {"seen": seen})
    return tuple(shown), tuple(chains.values())


def _rows(project: Project, **wanted: str) -> list[dict[str, Any]]:
    """Rows of the predictions table where a column has a value, in order of their moment."""
    import pyarrow.dataset as ds

    table = prediction_table.open_table(project.predictions)
    if table is None:
        return []
    ((column, value),) = wanted.items()
    source = table.to_pyarrow_dataset()
    columns = [name for name in ROW if name in source.schema.names]
    rows: list[dict[str, Any]] = source.to_table(columns=columns, filter=ds.field(column) == value).to_pylist()
    return sorted(rows, key=lambda row: (row["predicted_at"], row["path"]))


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) for name in ROW} | {"predicted_at": row["predicted_at"].isoformat(timespec="seconds")}


def _unknown(project: Project, what: str) -> str:
    table = prediction_table.open_table(project.predictions)
    ids = set() if table is None else set(table.to_pyarrow_dataset().to_table(["batch_id"])["batch_id"].to_pylist())
    known = f"its last batches: {', '.join(sorted(ids)[-3:])}" if ids else "it holds no batches"
    return (
        f"{what}: no file, no version, no MLflow run, and no batch of {project.relative(project.predictions)} has this "
        f"name ({known}). Give one of them."
    )


def _in_dataset(project: Project, image_id: str) -> dict[str, Any] | None:
    """What the present dataset says of an image; None where it is not in it."""
    import polars as pl

    try:
        found = dataset.read_manifest(project.dataset).filter(pl.col("image_id") == image_id)
        splits = read_splits(project.splits).filter(pl.col("image_id") == image_id)
    except DataError:
        return None
    if found.is_empty():
        return None
    row = found.select("image_id", "path", "label", "drop", "shard").row(0, named=True)
    return row | {"split": splits["split"][0] if len(splits) else None}
