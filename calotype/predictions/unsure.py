"""The answers of a batch that the champion was least sure of, as a page of pictures."""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from calotype.data.decode import DecodeError
from calotype.files import write_text
from calotype.pages import batch_page, picture
from calotype.pages.batch_page import BatchPage
from calotype.pages.batch_page import Unsure as Shown
from calotype.pages.gallery import Picture
from calotype.params import Params
from calotype.predictions.batch_summary import BatchSummary
from calotype.predictions.inbox import Inbox
from calotype.project import Project

SHOWN = 60
"""Answers on the page."""

KEPT_PAGES = 60
"""Batches whose pages are kept."""

LARGEST_FILE = 64 * 2**20
"""Larger files are not read a second time for a picture."""


class Unsure:
    """The least confident answers of a batch, as its rows pass by."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def add(self, rows: pa.RecordBatch) -> None:
        """Look through rows of the table of predictions."""
        columns = ["image_id", "path", "label", "confidence", "abstained", "probabilities"]
        found = rows.select(columns).to_pylist() if rows.num_rows <= SHOWN else self._least(rows.select(columns))
        self._rows = heapq.nsmallest(SHOWN, [*self._rows, *found], key=lambda row: (row["confidence"], row["image_id"]))

    def _least(self, rows: pa.RecordBatch) -> list[dict[str, Any]]:
        order = rows["confidence"].to_numpy().argsort(kind="stable")[:SHOWN]
        least: list[dict[str, Any]] = rows.take(pa.array(order)).to_pylist()
        return least

    def write_page(self, project: Project, params: Params, inbox: Inbox, summary: BatchSummary) -> Path:
        """Write reports/batches/BATCH.html; older pages than the last `KEPT_PAGES` go."""
        folder = project.reports / "batches"
        path = folder / f"{summary.batch_id}.html"
        tiles = [tile for row in self._rows if (tile := _tile(inbox, params, row))]
        write_text(path, batch_page.render(BatchPage(summary=asdict(summary) | {"rate": summary.rate}, unsure=tiles)))
        for old in sorted(folder.glob("*.html"))[:-KEPT_PAGES]:
            old.unlink(missing_ok=True)
        return path


def _tile(inbox: Inbox, params: Params, row: dict[str, Any]) -> Shown | None:
    """The answer with its picture, if the file is still what was answered."""
    data = inbox.again(row["path"], LARGEST_FILE)
    if data is None or hashlib.sha256(data).hexdigest() != row["image_id"]:
        return None
    try:
        shown = Picture(*picture(data, max_megapixels=params.ingest.max_megapixels))
    except DecodeError:
        return None
    best = heapq.nlargest(3, row["probabilities"], key=lambda pair: pair[1])
    return Shown(row["path"], row["label"], row["abstained"], tuple(best), shown)
