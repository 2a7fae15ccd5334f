"""reports/monitoring.html of the newest window, with the pictures that the inbox still holds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from calotype.data.decode import DecodeError
from calotype.errors import CalotypeError
from calotype.files import write_text
from calotype.monitoring import unusual
from calotype.monitoring.judging import Judged
from calotype.monitoring.unusual import Surroundings
from calotype.monitoring.windows import Window
from calotype.pages import monitoring_page, picture
from calotype.pages.gallery import Picture
from calotype.pages.monitoring_page import MonitoringPage, Unusual
from calotype.params import Params
from calotype.predictions.inbox import Inbox, open_place
from calotype.project import Project

NAME = "monitoring.html"
SHOWN_UNUSUAL = 12
SHOWN_WINDOWS = 14
LARGEST_FILE = 64 * 2**20
"""Larger files are not read a second time for a picture."""


def write(project: Project, params: Params, judged: Judged, windows: Sequence[Window]) -> Path:
    """Write the page of a window, the last of ``windows``; return its path."""
    window = windows[-1]
    found = unusual.look(judged.reference.embedding, judged.predictions.sample.embedding)
    own = [one for one in windows if (one.model_name, one.model_version) == (window.model_name, window.model_version)]
    page = MonitoringPage(
        window=window,
        last=own[-SHOWN_WINDOWS:],
        asked=(params.monitor.windows, params.monitor.of_last),
        shares=judged.comparison.shares,
        reference=judged.reference,
        sample=judged.predictions.sample,
        surroundings=found,
        unusual=_unusual(project, params, judged, found),
    )
    path = project.reports / NAME
    write_text(path, monitoring_page.render(page))
    return path


def _unusual(project: Project, params: Params, judged: Judged, found: Surroundings) -> list[Unusual]:
    inbox = _inbox(project)
    rows = judged.predictions
    return [
        Unusual(
            path=rows.paths[row],
            label=rows.labels[row],
            confidence=float(rows.sample.confidence[row]),
            distance=float(found.distances[row]),
            picture=_picture(inbox, params, rows.paths[row], rows.image_ids[row]),
        )
        for row in found.order[:SHOWN_UNUSUAL].tolist()
    ]


def _inbox(project: Project) -> Inbox | None:
    try:
        place = open_place(project.inbox, project.relative(project.inbox))
    except (CalotypeError, OSError):
        # A page without pictures is better than none: the inbox may be away.
        return None
    return None if place is None else Inbox(place, 0)


def _picture(inbox: Inbox | None, params: Params, path: str, image_id: str) -> Picture | None:
    """The image, if a file of this path still holds it."""
    data = inbox.again(path, LARGEST_FILE) if inbox else None
    if data is None or hashlib.sha256(data).hexdigest() != image_id:
        return None
    try:
        return Picture(*picture(data, max_megapixels=params.ingest.max_megapixels))
    except DecodeError:
        return None
