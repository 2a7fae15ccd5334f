"""Columns by which test images can be cut: those of the manifest, and the further ones of the source."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from calotype.errors import ParamsError

NONE = "(none)"
ATTRIBUTES = "attributes"
UNFIT = ("image_id", "path", "phash", "twins", ATTRIBUTES)
"""Columns of a manifest of which each image has a value of its own, or which hold no value."""


def check(images: pl.DataFrame, names: Sequence[str]) -> None:
    """Refuse names that are no column.

    Parameters
    ----------
    images
        Rows of the manifest, one for each test image.
    names
        Columns of the manifest, or keys of the JSON objects in its column ``attributes``.

    Raises
    ------
    ParamsError
        If a column is unknown, naming the known ones.
    """
    known = [name for name in images.columns if name not in UNFIT]
    known += sorted({key for found in _attributes(images) for key in found})
    for name in names:
        if name not in known:
            raise ParamsError(
                f"evaluate.slices: found {name!r}, which is no column of the manifest and no further column of the "
                f"source; expected some of {', '.join(known)}. Correct params.yaml."
            )


def values(images: pl.DataFrame, name: str) -> list[str]:
    """A known column's value of each image, as text."""
    if name in images.columns and name not in UNFIT:
        return [NONE if value is None else str(value) for value in images[name].to_list()]
    return [NONE if found.get(name) is None else str(found[name]) for found in _attributes(images)]


def _attributes(images: pl.DataFrame) -> list[dict[str, Any]]:
    if ATTRIBUTES not in images.columns:
        return [{} for _ in range(images.height)]
    return [json.loads(text) if text else {} for text in images[ATTRIBUTES].to_list()]
