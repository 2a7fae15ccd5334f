"""Which labels are doubted: confident learning on out-of-fold probabilities.

Northcutt, Jiang & Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", Journal of Artificial
Intelligence Research 70 (2021), 1373–1411: the classes' thresholds, the confident joint and its calibration to the
counts of the labels say how many labels are in doubt; self-confidence, the probability of the given label, ranks them.

Each row of probabilities must come from a network that did not train on that image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Suspects:
    """Every image, the most doubted first.

    Attributes
    ----------
    order
        Positions of all images, int64 (N,).
    suggestion
        The class that the networks hold to be right, for each image in its own order, int64 (N,); never its label.
    score
        How improbable the label is, for each image in its own order, float64 (N,), in [0, 1]: 1 − self-confidence.
    is_suspect
        Whether the image falls off the diagonal of the confident joint, bool (N,).
    joint
        Estimated joint distribution of given (rows) and true labels (columns), float64 (K, K); sums to 1.
    """

    order: Ints
    suggestion: Ints
    score: Floats
    is_suspect: NDArray[np.bool_]
    joint: Floats

    @property
    def noise(self) -> float:
        """Estimated share of wrong labels, off the joint's diagonal; too high where the networks are weak."""
        return float(1 - np.trace(self.joint))


def find(labels: Ints, probabilities: Floats) -> Suspects:
    """Rank all images by how much their label is doubted: the least self-confident first.

    The diagonal of the confident joint plays no part in the order: with 2 % of random flips, suspects first found fewer
    of them among the first 4 % (docs/decisions/0004).

    Parameters
    ----------
    labels
        Given class of each image, int64 (N,), in [0, K). A class may lack images.
    probabilities
        Out-of-fold probabilities, (N, K); rows sum to 1.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    confident = confident_class(probabilities, thresholds(labels, probabilities))
    suggestion = _best_other(labels, probabilities)
    rows = np.arange(len(labels))
    score = 1 - probabilities[rows, labels]
    is_suspect = (confident >= 0) & (confident != labels)
    order = np.argsort(-score, kind="stable")
    return Suspects(order, suggestion, score, is_suspect, estimated_joint(labels, confident, probabilities.shape[1]))


def thresholds(labels: Ints, probabilities: Floats) -> Floats:
    """Expected self-confidence of each class: the mean probability of a class among images that carry its label, (K,).

    A class without images gets infinity: nothing is confidently of it.
    """
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    own = np.bincount(labels, weights=probabilities[np.arange(len(labels)), labels], minlength=classes)
    return np.where(counts > 0, own / np.maximum(counts, 1), np.inf)


def confident_class(probabilities: Floats, limits: Floats) -> Ints:
    """The most probable class among those that reach their threshold, int64 (N,); -1 where none does."""
    reached = probabilities >= limits
    best = np.where(reached, probabilities, -1.0).argmax(axis=1)
    return np.where(reached.any(axis=1), best, -1)


def estimated_joint(labels: Ints, confident: Ints, classes: int) -> Floats:
    """The confident joint, scaled so that its rows add up to the labels' counts, as shares of all images, (K, K)."""
    counted = confident >= 0
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[counted], confident[counted]), 1)
    counts = np.bincount(labels, minlength=classes)
    sums = joint.sum(axis=1)
    # A class of which no image is confidently of anything is taken at its word.
    joint[np.diag_indices(classes)] += np.where(sums == 0, 1, 0)
    shares: Floats = joint / np.maximum(sums, 1)[:, None] * counts[:, None] / max(1, len(labels))
    return shares


def _best_other(labels: Ints, probabilities: Floats) -> Ints:
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -1
    best: Ints = others.argmax(axis=1)
    return best
