"""reports/batches/BATCH.html: what a scheduled batch answered, and the answers that it was least sure of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calotype import pages
from calotype.pages.gallery import Picture


@dataclass(frozen=True)
class Unsure:
    """One answer with its likeliest classes, and the picture."""

    path: str
    label: str
    abstained: bool
    likeliest: tuple[tuple[str, float], ...]
    picture: Picture


@dataclass(frozen=True)
class BatchPage:
    """All that the page shows; ``summary`` holds the fields of a batch's summary, and its rate."""

    summary: Mapping[str, Any]
    unsure: Sequence[Unsure]


def render(page: BatchPage) -> str:
    """The page, as HTML text."""
    labels = sorted(page.summary["labels"].items(), key=lambda pair: (-pair[1], pair[0]))
    return pages.render("batch.html.j2", page=page, batch=page.summary, labels=labels)
