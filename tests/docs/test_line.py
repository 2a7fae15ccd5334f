"""The picture of the line is what its program draws."""

from __future__ import annotations

import runpy
import xml.etree.ElementTree as ET
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
DRAWN = runpy.run_path(str(DOCS / "draw_line.py"))["draw"]()


def test_the_committed_picture_is_what_the_program_draws() -> None:
    assert (DOCS / "line.svg").read_text(encoding="utf-8") == DRAWN


def test_the_picture_shows_every_stage_and_who_keeps_what() -> None:
    words = {"".join(text.itertext()) for text in ET.fromstring(DRAWN).iter("{http://www.w3.org/2000/svg}text")}
    assert {"scan", "ingest", "split", "train", "evaluate", "register", "promote", "predict"} <= words
    assert {"DVC", "MLflow", "Delta table"} <= words


def test_nothing_is_drawn_outside_the_picture() -> None:
    picture = ET.fromstring(DRAWN)
    width, height = (float(side) for side in picture.get("viewBox", "").split()[2:])
    for box in picture.iter("{http://www.w3.org/2000/svg}rect"):
        right = float(box.get("x", 0)) + float(box.get("width", 0))
        bottom = float(box.get("y", 0)) + float(box.get("height", 0))
        assert right <= width
        assert bottom <= height
