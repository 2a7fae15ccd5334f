"""The tables of production as batches would have left them: real Delta tables, with rows that a test names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from calotype import delta
from calotype.delta import Kind
from calotype.predictions.tables import FILES, PREDICTIONS
from calotype.project import Project

NIGHT = datetime(2026, 11, 2, 2, tzinfo=UTC)
"""A Monday."""


def digest_of(path: str) -> str:
    """The image_id that `answer` and `file` give a path."""
    return hashlib.sha256(path.encode()).hexdigest()


def answer(path: str, label: str = "cat", **changes: Any) -> dict[str, Any]:
    """A row of the table of predictions."""
    row = {
        "image_id": digest_of(path),
        "role": "champion",
        "path": path,
        "label": label,
        "confidence": 0.9,
        "abstained": False,
        "probabilities": [("cat", 0.9), ("dog", 0.1)],
        "model_name": "digits",
        "model_version": 1,
        "run_id": "run-1",
        "engine": "float32",
        "embedding": [0.5, -1.25],
        "mean": 0.5,
        "contrast": 0.25,
        "sharpness": 0.125,
        "batch_id": "night-1",
        "predicted_at": NIGHT,
    }
    assert set(changes) <= set(row)
    return row | changes


def file(path: str, **changes: Any) -> dict[str, Any]:
    """A row of the table of files."""
    row = {
        "path": path,
        "size": 100,
        "mtime": NIGHT,
        "image_id": digest_of(path),
        "status": "predicted",
        "reason": None,
        "batch_id": "night-1",
        "seen_at": NIGHT,
    }
    assert set(changes) <= set(row)
    return row | changes


def rejected(path: str, reason: str = "corrupt: the data end too soon", **changes: Any) -> dict[str, Any]:
    """A row of the table of files for what could not be read."""
    return file(path, image_id=None, status="rejected", reason=reason, **changes)


def write(
    project: Project, *, answers: Iterable[Mapping[str, Any]] = (), files: Iterable[Mapping[str, Any]] = ()
) -> None:
    """Append rows to both tables, each in one commit."""
    for name, kind, rows in (("predictions", PREDICTIONS, list(answers)), ("files", FILES, list(files))):
        if rows:
            append(project.table(name), kind, pa.Table.from_pylist(rows, kind.schema))


def append(place: str, kind: Kind, rows: pa.Table) -> None:
    """One commit; the table is made if absent."""
    table = delta.made(place, kind, kind.application, kind.title)
    assert delta.append(table, kind, rows)
