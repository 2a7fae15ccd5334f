"""The page of monitoring in a real browser: complete in itself, legible, in both colours, on desk and telephone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from calotype.pages import monitoring_page
from tests.browser.conftest import SCREENS, contrast
from tests.windows import make_page

pytestmark = pytest.mark.browser


@pytest.fixture
def page_file(tmp_path: Path) -> Path:
    path = tmp_path / "monitoring.html"
    path.write_text(monitoring_page.render(make_page(drift=True, names=("cat", "dog <b>", "horse"))), encoding="utf-8")
    return path


@pytest.mark.parametrize(("scheme", "width"), SCREENS)
def test_the_page_is_whole_and_fits_the_screen(page_file: Path, open_page: Any, scheme: str, width: int) -> None:
    page, wrong = open_page(page_file, scheme, width)
    assert wrong == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator("svg").count() == 7
    assert page.locator(".unusual img").count() == 8


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(page_file: Path, open_page: Any, scheme: str) -> None:
    page, _ = open_page(page_file, scheme)
    selectors = ["h1", "p.soft", ".holds", ".alarm td.p", ".card span", ".key", ".unusual b", ".unusual small", "code"]
    assert {selector: contrast(page, selector) for selector in selectors if contrast(page, selector) < 4.5} == {}


def test_the_newest_window_is_red_where_it_alarmed(page_file: Path, open_page: Any) -> None:
    page, _ = open_page(page_file)
    cells = page.locator("svg[aria-label^='Adjusted p'] rect.wrong")
    assert cells.count() == 4
    assert "Brightness" in str(cells.first.locator("xpath=..").text_content())
