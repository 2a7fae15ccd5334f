"""Look at a source and write fitting values into params.yaml: nobody starts from an empty file."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from calotype import params as parameters
from calotype.errors import DataError
from calotype.fetch import SETS, fetch
from calotype.files import write_text
from calotype.params_edit import edit
from calotype.project import Project
from calotype.sources import open_source
from calotype.sources.listing import TABLE_SUFFIXES
from calotype.sources.probe import Facts, describe, look

LARGEST_THREADS = 16
"""Threads of a training on a CPU: more than this rarely pay, and tiny images do not pay for more than two."""

NATIVE = (8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64)
"""Sizes in which small images are used as they are."""


FAST_FROM = 20
"""From so many pixels on `fast` takes small images; three blocks would leave nothing of smaller ones."""


def use(project: Project, source: str) -> None:
    """Fit params.yaml to a source; print what was seen and the difference.

    Parameters
    ----------
    project
        The project whose params.yaml is changed.
    source
        ``digits``, ``fashion-mnist`` (fetched where absent), or a path.

    Raises
    ------
    CalotypeError
        If the set cannot be fetched, the source not be used, or params.yaml not be read.
    """
    in_force = parameters.load(project.params)
    path = fetch(project, source) if source in SETS else Path(os.path.abspath(Path(source).expanduser()))  # noqa: PTH100
    facts = _look(path, project, in_force)
    print(f"{project.relative(path)}:")
    for what, value in describe(facts):
        print(f"  {what:10} {value}")
    values = {"name": slug(path), "ingest.source": project.relative(path)} | recipe(facts, in_force)
    if values["ingest.source"] != in_force.ingest.source:
        # A table of corrected labels belongs to the source that it was made for.
        values["ingest.corrections"] = "none"
    before = project.params.read_text(encoding="utf-8")
    after = edit(before, values)
    if after == before:
        print("params.yaml fits already")
        return
    write_text(project.params, after)
    parameters.load(project.params)
    _print_difference(before, after)


def recipe(facts: Facts, in_force: parameters.Params) -> dict[str, Any]:
    """Choose values for what was seen; keys not named here stay as they are.

    The choice aims at minutes on two cores: a network that grows with the image, passes that shrink with their number.
    """
    size = _size(facts)
    training = facts.splits.get("train") or round(facts.count * (1 - in_force.split.val - in_force.split.test))
    smallest, largest = min(facts.classes.values()), max(facts.classes.values())
    is_photographs = facts.side > NATIVE[-1]
    is_writing = facts.is_grey and all(len(name) == 1 for name in facts.classes)  # a mirrored 2 is no 2
    return {
        "ingest.min_per_class": max(3, min(10, smallest)),
        "image.size": size,
        "image.channels": 1 if facts.is_grey else 3,
        "image.resize": "stretch" if facts.is_one_shape else "crop",
        "network.weights": "random",
        "network.convs": 2,
        "network.hidden": [128],
        **(_cnn(size, training, is_photographs) if is_photographs or size < FAST_FROM else _fast(training)),
        "card.intended_use": f"Tell {name_some(facts.classes)} apart, on images like those it was trained on.",
        "train.threads": 2 if size <= 16 else max(2, min(LARGEST_THREADS, psutil.cpu_count(logical=False) or 2)),
        "train.class_weights": "balanced" if largest > 4 * smallest else "none",
        "augment.flip": 0.0 if is_writing else 0.5,
        "augment.crop_scale": 0.6 if is_photographs else 1.0,
        "augment.erase": 0.0,
        "evaluate.top_k": max(1, min(5 if len(facts.classes) >= 50 else 3, len(facts.classes) - 1)),
    }


def _cnn(size: int, training: int, is_photographs: bool) -> dict[str, Any]:
    return {
        "network.name": "cnn",
        "network.widths": _widths(size),
        "network.dropout": 0.2,
        "train.epochs": max(10, min(60 if is_photographs else 30, 840_000 // max(training, 1))),
        "audit.epochs": max(5, min(20, 400_000 // max(training, 1))),
        "train.batch_size": 64 if training < 5_000 else 128 if training < 20_000 else 256,
        "train.optimizer": "adamw",
        "train.lr": 0.003,
        "train.momentum": 0.9,
        "train.weight_decay": 0.01,
        "train.schedule": "cosine",
        "train.warmup_epochs": 1,
        "train.label_smoothing": 0.05,
        "augment.translate": 0.1,
    }


def _fast(training: int) -> dict[str, Any]:
    """More is learnt of small images, and sooner, than by `cnn` (docs/decisions/0003)."""
    is_tiny_set = training < 1_000
    return {
        "network.name": "fast",
        "network.widths": [48, 128, 128],
        "network.dropout": 0.0,
        "train.epochs": max(8, min(30, 400_000 // max(training, 1))),
        "audit.epochs": max(4, min(10, 150_000 // max(training, 1))),
        "train.batch_size": 64 if is_tiny_set else 125 if training < 20_000 else 250,
        "train.optimizer": "muon",
        "train.lr": 0.12 if is_tiny_set else 0.17,
        "train.momentum": 0.6,
        "train.weight_decay": 0.0015,
        "train.schedule": "linear",
        "train.warmup_epochs": 0,
        "train.label_smoothing": 0.2,
        "augment.translate": 0.0625,
    }


def name_some(classes: Iterable[str], shown: int = 4) -> str:
    """``cat, dog and bird``; ``a, b, c, d and 6 more``."""
    names = sorted(classes)
    if len(names) > shown + 1:
        return f"{', '.join(names[:shown])} and {len(names) - shown} more"
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def slug(path: Path) -> str:
    """A name for MLflow: ``/data/My Leaves.tar.gz`` and ``/data/my-leaves/labels.csv`` give ``my-leaves``."""
    named = path.parent if path.suffix.lower() in TABLE_SUFFIXES else path
    stem = re.sub(r"\.(tar(\.\w+)?|tgz|tbz2?|txz|zip)$", "", named.name.lower())
    return re.sub(r"[^a-z0-9._]+", "-", stem).strip("-._")[:100] or "images"


def _look(path: Path, project: Project, in_force: parameters.Params) -> Facts:
    source = open_source(path, cache=project.cache / "sources")
    try:
        return look(source, max_megapixels=in_force.ingest.max_megapixels)
    except DataError as error:
        raise DataError(f"{project.relative(path)}: {error}") from error


def _size(facts: Facts) -> int:
    """Small images keep their size; of photographs a few may be larger than many, for the same patience."""
    if facts.side <= NATIVE[-1]:
        return min(NATIVE, key=lambda size: (abs(size - facts.side), -size))
    return 128 if facts.count < 1_500 else 64


def _widths(size: int) -> list[int]:
    """One block for each halving of the image down to about 4 pixels a side; two at least.

    The first block sees every pixel and costs most of the time; a narrow one loses little (docs/decisions/0003).
    """
    if size <= 16:
        return [32, 64]
    if size <= 40:
        return [16, 64, 128]
    return [16, 32, 64, 128, 256][: 4 if size <= 64 else 5]


def _print_difference(before: str, after: str) -> None:
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), "params.yaml", "params.yaml", lineterm="", n=0
    )
    is_coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    colours = {"+": "\x1b[32m", "-": "\x1b[31m", "@": "\x1b[36m"}
    for line in lines:
        colour = colours.get(line[:1]) if is_coloured else None
        print(f"{colour}{line}\x1b[0m" if colour else line)
