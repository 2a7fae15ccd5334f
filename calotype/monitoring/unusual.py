"""Where a window's images lie among those of the reference: a flat view, and the images farthest from all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calotype.monitoring.two_sample import Floats, whitened

TYPICAL_OF = 1000
"""Reference images whose own neighbours tell which distance is usual."""

TYPICAL = 0.99
DISTANCES_MIB = 128
"""Memory for distances at once; sklearn would take 1 GiB."""


@dataclass(frozen=True)
class Surroundings:
    """A window seen from the reference.

    Parameters
    ----------
    reference_points, window_points
        float64 (M, 2) and (N, 2): across, the direction in which the two means differ most; up, that of the
        reference's largest remaining spread.
    distances
        float64 (N,): from each image of the window to the nearest of the reference, in spreads of the reference.
    usual
        Within this distance 99 % of the reference's images have a neighbour among themselves.
    order
        int64 (N,): the most distant image first.
    """

    reference_points: NDArray[np.float64]
    window_points: NDArray[np.float64]
    distances: NDArray[np.float64]
    usual: float
    order: NDArray[np.int64]


def look(reference: Floats, window: Floats) -> Surroundings:
    """Find where a window's embeddings, (N, D), lie among those of a reference, (M, D); M is at least 2."""
    import sklearn
    from sklearn.neighbors import NearestNeighbors

    before, now = (whitened(vectors, fitted_to=reference) for vectors in (reference, window))
    with sklearn.config_context(working_memory=DISTANCES_MIB):
        neighbours = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(before)
        distances = neighbours.kneighbors(now, n_neighbors=1)[0][:, 0]
        # The nearest of a reference image is itself.
        own = neighbours.kneighbors(before[:TYPICAL_OF])[0][:, 1]
    axes = _axes(before, now)
    return Surroundings(
        before @ axes,
        now @ axes,
        distances,
        float(np.quantile(own, TYPICAL)),
        np.argsort(-distances, kind="stable").astype(np.int64),
    )


def _axes(before: NDArray[np.float64], now: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two directions at right angles, shape (D, 2)."""
    across = now.mean(axis=0) - before.mean(axis=0)
    size = np.linalg.norm(across)
    first = np.eye(before.shape[1])[0]
    across = across / size if size > 0 else first
    # Whitened coordinates are sorted: the first is that of the largest spread.
    up = first - (first @ across) * across
    if np.linalg.norm(up) < 1e-6:
        up = np.eye(before.shape[1])[min(1, before.shape[1] - 1)]
    return np.stack([across, up / np.linalg.norm(up)], axis=1)
