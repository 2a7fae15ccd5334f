"""trace: from a prediction, an image, a version or a run back to everything that it was made of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from calotype import delta
from calotype.counted import counted
from calotype.data import dataset
from calotype.data.splitting import read_splits
from calotype.errors import DataError, UsageError
from calotype.files import sha256_of
from calotype.params import Params
from calotype.predictions.prediction_rows import PREDICTED, REJECTED
from calotype.predictions.reading import open_checked, open_tables
from calotype.predictions.summary import last_batches
from calotype.predictions.tables import FILES, PREDICTIONS
from calotype.project import Project
from calotype.provenance.chain import Chain, Follower
from calotype.releases.runs import Store, parse_version

RUN = re.compile(r"[0-9a-f]{32}")

Kind = Literal["prediction", "batch", "image", "version", "run"]

ROW = (
    "path",
    "image_id",
    "role",
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
"""What a trace repeats of a file and of the answer to its content."""


@dataclass(frozen=True)
class Trace:
    """What was asked for, the predictions that it stands for, and the chain of each model behind them.

    Attributes
    ----------
    kind, what
        What was asked for.
    rows
        Answers, and files that were rejected, with ``seen``: the split in which the model learned from that very image.
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
        An image file, a version (``3`` or ``digits/3``), an MLflow run id, or a scheduled batch.
    path
        With a batch: the path of one of its files.
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
        raise UsageError(f"{run_id}: no such run in MLflow at {project.tracking_shown}. Its page shows a run's id.")
    chain = Follower(project, store).follow(run_id, versions[0] if versions else None, with_images=images)
    return Trace("run", run_id, (), None, None, (chain,))


def _of_batch(project: Project, batch_id: str, images: bool) -> Trace:
    files, answers = _require_batch(project, batch_id)
    batch = {
        "batch_id": batch_id,
        "files": len(files),
        "rejected": sum(file["status"] == REJECTED for file in files),
        "answers": len(answers),
        "predicted_at": _moment(files[0]["seen_at"] if files else answers[0]["predicted_at"]),
    }
    _, chains = _chains(project, answers, images)
    return Trace("batch", batch_id, (), batch, None, chains)


def _of_row(project: Project, batch_id: str, path: str, images: bool) -> Trace:
    named = path if "://" in path else str(Path(path).absolute())
    below = named.removeprefix(f"{project.inbox.rstrip('/')}/")
    files, answers = _require_batch(project, batch_id)
    # The same path twice in a batch: its file changed in between. The last stands.
    chosen = [file for file in files if file["path"] in (path, below)][-1:]
    # A batch that asked a new champion again has answers to files that an earlier one saw.
    rows = _rows_of_files(project, chosen) if chosen else [row for row in answers if row["path"] in (path, below)]
    if not rows:
        paths = [row["path"] for row in files or answers]
        raise UsageError(
            f"{path}: no file of batch {batch_id} has this path, of {counted(len(paths), 'file')} such as {paths[0]!r}."
        )
    shown, chains = _chains(project, rows, images)
    return Trace("prediction", path, shown, None, None, chains)


def _of_image(project: Project, file: Path, images: bool) -> Trace:
    image_id = sha256_of(file)
    rows = _answers(project, image_id=image_id) or _rows_of_files(project, _files(project, image_id=image_id))
    shown, chains = _chains(project, rows, images)
    table = project.relative(project.table("predictions"))
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
        if row["status"] != PREDICTED:
            continue
        key = (row["model_name"], row["model_version"], row["run_id"])
        models[key] = min(models.get(key, row["predicted_at"]), row["predicted_at"])
    chains = {}
    for (name, number, run_id), at in models.items():
        version = next((one for one in store.versions(name) if one.version == number), None)
        chains[run_id] = follower.follow(run_id, version, named=(name, number), predicted_at=at, with_images=images)
    shown = []
    for row in rows:
        learned = chains[row["run_id"]].learned_from if row["status"] == PREDICTED else None
        seen = None if learned is None else learned.get(row["image_id"])
        shown.append(_plain(row) | {"seen": seen})
    return tuple(shown), tuple(chains.values())


def _rows_of_files(project: Project, files: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The answers to what files hold, under the files' own paths; a file that was rejected as it is."""
    rows: list[dict[str, Any]] = []
    for file in files:
        answers = _answers(project, image_id=file["image_id"]) if file["status"] == PREDICTED else []
        rows += [answer | {"path": file["path"]} for answer in answers]
        if not answers:
            rows.append(dict.fromkeys(ROW) | dict(file) | {"predicted_at": file["seen_at"]})
    return rows


def _answers(project: Project, **wanted: str) -> list[dict[str, Any]]:
    """Rows of the table of predictions where a column has a value, in order of their moment."""
    columns = [name for name in ROW if name in PREDICTIONS.schema.names]
    rows = _rows(project, "predictions", PREDICTIONS, columns, wanted)
    return [
        row | {"status": PREDICTED, "reason": None}
        for row in sorted(rows, key=lambda row: (row["predicted_at"], row["path"]))
    ]


def _files(project: Project, **wanted: str) -> list[dict[str, Any]]:
    """Rows of the table of files where a column has a value, in order of their moment."""
    columns = ["path", "image_id", "status", "reason", "batch_id", "seen_at"]
    rows = _rows(project, "files", FILES, columns, wanted)
    return sorted(rows, key=lambda row: (row["seen_at"], row["path"]))


def _rows(
    project: Project, name: str, kind: delta.Kind, columns: Sequence[str], wanted: Mapping[str, str]
) -> list[dict[str, Any]]:
    import pyarrow.compute as pc

    table = open_checked(project, name, kind)
    ((column, value),) = wanted.items()
    found = delta.batches(table, kind, columns, pc.field(column) == value)
    return [row for batch in found for row in batch.to_pylist()]


def _require_batch(project: Project, batch_id: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The files that a batch saw and the answers that it gave; there is one or the other."""
    files, answers = _files(project, batch_id=batch_id), _answers(project, batch_id=batch_id)
    if not files and not answers:
        raise UsageError(_unknown(project, batch_id))
    return files, answers


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) for name in ROW} | {"predicted_at": _moment(row["predicted_at"])}


def _moment(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _unknown(project: Project, what: str) -> str:
    last = list(last_batches(open_tables(project)))[:3]
    known = f"its last batches: {', '.join(reversed(last))}" if last else "it holds no batches"
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
