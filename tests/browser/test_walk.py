"""A walk past the real pages, as a person would go who looks after a model; it leaves the documents' pictures.

`make screenshots` walks with ``CALOTYPE_PICTURES=docs/pictures``; without it the pictures go to a temporary folder.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from calotype.fetch import DEBIAN_FOLDER
from calotype.services import page as addresses
from calotype.services import web
from tests.browser.scene import GOOD, WITHOUT_IMAGES, WORDS, Scene, production

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason=WITHOUT_IMAGES),
]

WIDTH, HEIGHT = 1280, 860
SHARPNESS = 1.5
"""Pixels of a picture for each pixel of a page."""

QUALITY = 82
MOST_BYTES = 150_000
PATIENCE_MS = 60_000
LIGHT = "localStorage.setItem('color-scheme', '\"light\"')"
"""Prefect's pages are dark unless a person asks for light."""


@dataclass
class Eyes:
    """A browser's window in front of the scene, and the folder that receives what it shows."""

    scene: Scene
    page: Page
    folder: Path
    wrong: list[str] = field(default_factory=list)

    def open(self, address: str, *texts: str) -> Page:
        """Go to an address; wait until each text can be read there."""
        self.page.goto(address)
        for text in texts:
            expect(self.page.get_by_text(text).first).to_be_visible(timeout=PATIENCE_MS)
        return self.page

    def keep(self, name: str, height: int = HEIGHT, top: Locator | None = None) -> None:
        """Keep a picture of the window, or of the page from an element on, ``height`` pixels of it."""
        self.page.set_viewport_size({"width": WIDTH, "height": height})
        if top:
            top.evaluate("element => window.scrollTo(0, element.getBoundingClientRect().top + window.scrollY - 24)")
        # What still moves (charts that grow, a spinner) comes to rest.
        self.page.wait_for_timeout(1200)
        seen = Image.open(io.BytesIO(self.page.screenshot(animations="disabled", caret="hide")))
        path = self.folder / f"{name}.webp"
        seen.convert("RGB").save(path, quality=QUALITY, method=6)
        self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        assert path.stat().st_size <= MOST_BYTES, f"{path} holds {path.stat().st_size:,} bytes"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with production(tmp_path_factory.mktemp("walk") / "fashion") as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("CALOTYPE_PICTURES")
    made = Path(named) if named else tmp_path_factory.mktemp("pictures")
    made.mkdir(parents=True, exist_ok=True)
    return made


@pytest.fixture
def eyes(scene: Scene, folder: Path, browser: Browser) -> Iterator[Eyes]:
    """A window of its own for each test; it fails where a page of ours raised an error."""
    context = browser.new_context(
        color_scheme="light", viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=SHARPNESS
    )
    context.add_init_script(LIGHT)
    opened = Eyes(scene, context.new_page(), folder)
    opened.page.on("pageerror", lambda error: opened.wrong.append(str(error)))
    yield opened
    context.close()
    assert opened.wrong == []
