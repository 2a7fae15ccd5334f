"""A real browser for the page tests: Debian's Chromium, headless, driven by playwright."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
SCREENS = [("light", 1200), ("dark", 1200), ("light", 390), ("dark", 390)]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A browser for all page tests; each makes its own pages, and closes them."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is absent: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Any]:
    pages: list[Page] = []

    def opened(path: Path, scheme: str = "light", width: int = 1200, **options: Any) -> tuple[Page, list[str]]:
        """The page, and what went wrong on it: errors, refusals, requests to anywhere but the file itself."""
        page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900}, **options)
        pages.append(page)
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("request", lambda request: None if _is_own(request.url, path) else wrong.append(request.url))
        page.goto(path.as_uri())
        return page, wrong

    yield opened
    for page in pages:
        page.close()


def _is_own(url: str, path: Path) -> bool:
    return url == path.as_uri() or url.startswith("data:")


def pixels(page: Page) -> np.ndarray:
    """Brightness of what the window shows, 0 to 255."""
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"), dtype=float)


def contrast(page: Page, selector: str) -> float:
    """Contrast ratio of text and background (WCAG 2.2, 1.4.3)."""
    colours = page.evaluate(
        """selector => {
          let element = document.querySelector(selector);
          const found = [getComputedStyle(element).color];
          const ground = () => getComputedStyle(element).backgroundColor;
          while (ground() === 'rgba(0, 0, 0, 0)') element = element.parentElement;
          return [...found, ground()];
        }""",
        selector,
    )
    light, dark = sorted((_luminance(colour) for colour in colours), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
