"""Distinct pictures without a download: smooth random shapes, so that hashes spread as those of photographs do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIDE = 28
CLASSES = 10
_COARSE = 7
_AT_ONCE = 4096


def pictures(count: int, seed: int = 0) -> Iterator[NDArray[np.uint8]]:
    """Pictures, uint8, at most 4096 × ``SIDE`` × ``SIDE`` at once: smooth coarse noise, and a little fine noise."""
    random = np.random.default_rng(seed)
    across = _smooth()
    for start in range(0, count, _AT_ONCE):
        some = min(_AT_ONCE, count - start)
        coarse = random.standard_normal((some, _COARSE, _COARSE), np.float32)
        fine = random.standard_normal((some, SIDE, SIDE), np.float32)
        yield np.clip(128 + 48 * (across @ coarse @ across.T) + 4 * fine, 0, 255).astype(np.uint8)


def labels(count: int, seed: int = 1) -> NDArray[np.uint8]:
    """As many class numbers."""
    return np.random.default_rng(seed).integers(0, CLASSES, count, np.uint8)


def write_files(folder: Path, count: int, seed: int = 0) -> Path:
    """Write them as PGM files, a folder for each class."""
    for label in range(CLASSES):
        (folder / f"class-{label}").mkdir(parents=True)
    header = f"P5 {SIDE} {SIDE} 255\n".encode()
    number, names = 0, labels(count)
    for some in pictures(count, seed):
        for picture in some:
            (folder / f"class-{names[number]}" / f"{number:07d}.pgm").write_bytes(header + picture.tobytes())
            number += 1
    return folder


def _smooth() -> NDArray[np.float32]:
    """Weights that stretch ``_COARSE`` values over ``SIDE``, linearly."""
    place = np.linspace(0, _COARSE - 1, SIDE, dtype=np.float32)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(_COARSE, dtype=np.float32)))
