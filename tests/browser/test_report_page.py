"""report.html in a real browser: legible on a desk and on a phone, in light and in dark, and harmless."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from calotype.pages import picture
from calotype.pages.report import Mistake, Report, render
from tests.browser.conftest import SCREENS, contrast, pixels
from tests.examples import make_findings

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"


def write_report(folder: Path, classes: list[str]) -> Path:
    images = max(60, 8 * len(classes))
    random = np.random.default_rng(2)
    buffer = io.BytesIO()
    Image.fromarray(random.integers(0, 255, (8, 8), dtype=np.uint8)).save(buffer, format="PNG")
    uri, is_small = picture(buffer.getvalue(), max_megapixels=1)
    rows: list[dict[str, Any]] = [
        {"epoch": epoch, "train_loss": 2 / epoch, "val_loss": 3 / epoch} for epoch in range(1, 9)
    ]
    page = Report(
        title="digits",
        findings=make_findings(classes, images),
        history=rows,
        facts={"Model digest": "0123456789abcdef" * 4},
        parameters={"train.lr": 0.003},
        mistakes=[Mistake(f"{classes[0]}/1.png", classes[0], classes[1], 0.9, uri, is_small)] * 3,
    )
    path = folder / "report.html"
    path.write_text(render(page), encoding="utf-8")
    return path


@pytest.mark.parametrize(("scheme", "width"), SCREENS)
@pytest.mark.parametrize("count", [2, 10, 30, 100])
def test_the_page_fits_the_screen_and_obeys_its_colours(
    tmp_path: Path, open_page: Any, scheme: str, width: int, count: int
) -> None:
    page, wrong = open_page(write_report(tmp_path, [f"class {number}" for number in range(count)]), scheme, width)
    assert wrong == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    brightness = np.median(pixels(page))
    assert brightness > 230 if scheme == "light" else brightness < 40


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(tmp_path: Path, open_page: Any, scheme: str) -> None:
    page, _ = open_page(write_report(tmp_path, ["cat", "dog", "eel"]), scheme)
    for selector in ("h1", "p.soft", "tbody th", "figcaption", ".card b", ".mistakes em", ".trust span", ".mark"):
        assert contrast(page, selector) >= 4.5, selector


def test_every_picture_and_every_chart_is_drawn(tmp_path: Path, open_page: Any) -> None:
    page, _ = open_page(write_report(tmp_path, ["cat", "dog", "eel"]))
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth === 8)")
    assert page.locator(".mistakes img").count() == 3
    assert page.locator(".curves svg").count() == 3
    assert page.locator(".multiples svg").count() == 6
    for box in page.locator("svg").all():
        assert (box.bounding_box() or {})["height"] > 100
    assert page.locator(".matrix rect").count() == 9


def test_a_click_on_a_heading_sorts_the_classes(tmp_path: Path, open_page: Any) -> None:
    page, wrong = open_page(write_report(tmp_path, [f"class {number}" for number in range(12)]))
    rows = page.locator("#classes tbody tr")
    assert rows.first.locator("th").inner_text() == "class 0"
    page.get_by_role("button", name="Recall").click()
    recalls = [float(cell.get_attribute("data-value") or "") for cell in page.locator("#classes td:nth-child(5)").all()]
    assert recalls == sorted(recalls, reverse=True)
    page.get_by_role("button", name="Recall").click()
    page.get_by_role("button", name="Class", exact=True).click()
    assert rows.first.locator("th").inner_text() == "class 11"
    assert wrong == []


def test_the_page_is_whole_without_scripts(tmp_path: Path, open_page: Any) -> None:
    page, _ = open_page(write_report(tmp_path, ["cat", "dog", "eel"]), java_script_enabled=False)
    assert page.locator("#classes tbody tr").count() == 3
    assert page.get_by_text("Most confident mistakes").is_visible()


def test_details_open_on_a_click(tmp_path: Path, open_page: Any) -> None:
    page, _ = open_page(write_report(tmp_path, ["cat", "dog"]))
    assert not page.get_by_text("train.lr").is_visible()
    page.get_by_text("What the model was trained with").click()
    assert page.get_by_text("train.lr").is_visible()


@pytest.mark.parametrize("count", [3, 40])
def test_a_class_named_like_a_script_is_read_and_not_run(tmp_path: Path, open_page: Any, count: int) -> None:
    classes = [HOSTILE, *(f"class {number}" for number in range(count - 1))]
    page, wrong = open_page(write_report(tmp_path, classes))
    assert wrong == []
    assert page.title().startswith("digits")
    assert page.locator("#classes tbody th").first.inner_text() == HOSTILE


def test_the_policy_of_the_page_stops_what_escaping_would_miss(tmp_path: Path, open_page: Any) -> None:
    path = write_report(tmp_path, ["cat", "dog"])
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("<h1>", f"{HOSTILE}<h1>"), encoding="utf-8")
    page, wrong = open_page(path)
    assert page.title().startswith("digits")
    assert any("Content Security Policy" in message for message in wrong)
