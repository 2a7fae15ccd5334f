"""audit.html: the images whose label is doubted most, and what to do with those that are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calotype import pages
from calotype.evaluation.suspects import Ints, Suspects
from calotype.pages.gallery import Picture

MOST_PICTURES = 160
MOST_PICTURE_CHARACTERS = 1_500_000
MOST_PAIRS = 12
MOST_CLASSES = 1_000


@dataclass(frozen=True)
class Doubt:
    """One doubted image."""

    rank: int
    path: str
    label: str
    suggestion: str
    score: float
    split: str
    picture: Picture


@dataclass(frozen=True)
class Pair:
    """Images of a label of which another class is confidently held to be right."""

    label: str
    suggestion: str
    images: int
    share: float


@dataclass(frozen=True)
class ClassDoubt:
    """How many labels of a class are doubted."""

    name: str
    images: int
    suspects: int

    @property
    def share(self) -> float:
        return self.suspects / self.images if self.images else 0.0


@dataclass(frozen=True)
class AuditPage:
    """All that the page shows."""

    title: str
    images: int
    suspects: int
    noise: float
    accuracy: float
    folds: int
    epochs: int
    rows: int
    doubts: Sequence[Doubt]
    pairs: Sequence[Pair]
    classes: Sequence[ClassDoubt]
    class_count: int


def render(page: AuditPage) -> str:
    """The page, as HTML text."""
    return pages.render("audit.html.j2", page=page)


def pairs(labels: Ints, found: Suspects, classes: Sequence[str]) -> list[Pair]:
    """The labels most often doubted in favour of one other class: most images first, then class order."""
    size = len(classes)
    doubted = np.bincount(labels[found.is_suspect] * size + found.suggestion[found.is_suspect], minlength=size * size)
    counts = np.bincount(labels, minlength=size)
    order = np.argsort(-doubted, kind="stable")[:MOST_PAIRS]
    return [
        Pair(
            classes[place // size],
            classes[place % size],
            int(doubted[place]),
            float(doubted[place] / counts[place // size]),
        )
        for place in order.tolist()
        if doubted[place]
    ]


def by_class(labels: Ints, found: Suspects, classes: Sequence[str]) -> list[ClassDoubt]:
    """Doubted labels of each class, in class order; of more than the page shows, those with the largest share."""
    images = np.bincount(labels, minlength=len(classes))
    doubted = np.bincount(labels[found.is_suspect], minlength=len(classes))
    rows = [ClassDoubt(*row) for row in zip(classes, images.tolist(), doubted.tolist(), strict=True)]
    most = sorted(rows, key=lambda row: (-row.share, row.name))[:MOST_CLASSES]
    return sorted(most, key=lambda row: row.name)
