"""production.html in a real browser: legible on a desk and on a phone, in light and in dark, and harmless."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calotype import params
from calotype.evaluation.metrics import Estimate
from calotype.pages import production_page
from calotype.production import labels_table
from calotype.production.accuracy import measure
from calotype.production.expectation import Expectations, Expected
from calotype.production.labels_file import Label, Row
from calotype.project import Project
from tests.browser.conftest import SCREENS, contrast, pixels
from tests.production_tables import NIGHT, answer, digest_of, write

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
LONG = "a-name-without-any-place-to-break-it-" * 3


@pytest.fixture
def write_page(project: Project) -> Callable[..., Path]:
    """Twelve weeks of two versions, most of them labelled."""

    def written(name: str = "cat") -> Path:
        values = params.load(project.params)
        classes = [name, "dog", LONG]
        answers, rows = [], []
        for number in range(240):
            path, week = f"{number}.png", number // 20
            said = classes[number % 3]
            given = classes[(number + (number % 11 == 0)) % 3]
            when = NIGHT + timedelta(days=7 * week)
            answers.append(answer(path, given, model_version=1 + week // 8, predicted_at=when))
            if week < 10:
                rows.append(Label(Row(2, "", path, said, ""), digest_of(path), said, date(2026, 11, 20)))
        write(project, answers=answers)
        labels_table.append(project, lambda _: rows, "labels.csv")
        expected = Expectations({2: Expected(350, 340, Estimate(0.971, 0.949, 0.985))}, "a note")
        path = project.root / "production.html"
        path.write_text(production_page.render(values, measure(project, values), expected, 2), encoding="utf-8")
        return path

    return written


@pytest.mark.parametrize(("scheme", "width"), SCREENS)
def test_the_page_fits_the_screen_and_obeys_its_colours(
    write_page: Any, open_page: Any, scheme: str, width: int
) -> None:
    page, wrong = open_page(write_page(), scheme, width)
    assert wrong == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    brightness = np.median(pixels(page))
    assert brightness > 230 if scheme == "light" else brightness < 40


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(write_page: Any, open_page: Any, scheme: str) -> None:
    page, _ = open_page(write_page(), scheme)
    selectors = [
        "h1",
        "p.soft",
        ".card span",
        ".card b",
        ".verdict p",
        ".verdict .soft",
        ".key",
        "tbody td",
        "tbody th",
    ]
    assert {selector: contrast(page, selector) for selector in selectors if contrast(page, selector) < 4.5} == {}


def test_a_name_like_a_script_is_read_and_not_run(write_page: Any, open_page: Any) -> None:
    page, wrong = open_page(write_page(HOSTILE))
    assert wrong == []
    assert "taken" not in page.title()
    assert HOSTILE in [cell.inner_text() for cell in page.locator("#classes tbody th").all()]


def test_each_labelled_window_has_its_point_and_each_window_its_bars(write_page: Any, open_page: Any) -> None:
    page, _ = open_page(write_page())
    assert page.locator("svg circle.dot").count() == 10
    assert page.locator("svg circle.dot.s2").count() == 2
    assert page.locator("svg rect.given").count() == 12
    assert page.locator("svg rect.band").count() == 1
