"""The page of a window: its verdict, its figures, and names that are text whatever they say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from calotype.pages import monitoring_charts, monitoring_page
from tests.windows import make_page


def test_a_window_with_drift_says_where_and_how_much() -> None:
    page = make_page(drift=True)
    html = monitoring_page.render(page)
    assert "Drift in brightness and contrast" in html
    assert "<title>m version 2: drift in brightness and contrast</title>" in html
    assert "2 of the last 3 windows" in html
    assert "−0.150 (−0.170 to −0.130)" in html
    assert html.count('class="alarm"') == 2
    assert html.count('class="drift" title=') == 2


def test_a_window_without_drift_says_so_and_asks_for_nothing() -> None:
    html = monitoring_page.render(make_page(drift=False))
    assert "No drift: these predictions look like those for the validation images" in html
    assert "asks for a new training" not in html
    assert 'class="alarm"' not in html


def test_names_are_text() -> None:
    page = make_page(drift=True, names=("<script>alert(1)</script>", "b&b"))
    html = monitoring_page.render(page)
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_a_sample_of_a_large_window_is_called_one() -> None:
    page = make_page(drift=False)
    large = replace(page, window=replace(page.window, images=1_000_000))
    assert "1,000,000 predictions, of which a sample of 300" in monitoring_page.render(large)
    assert "of which a sample" not in monitoring_page.render(page)


def test_of_many_classes_those_that_changed_most_are_drawn() -> None:
    page = make_page(drift=False, names=tuple(f"class {number:03}" for number in range(200)))
    html = monitoring_page.render(page)
    assert "The 30 of 200 classes whose share changed most." in html
    assert len(html) < 400_000


@pytest.mark.parametrize(
    ("p", "shown"), [(0.00001, "< 0.001"), (0.0042, "0.004"), (0.374, "0.37"), (0.996, "1"), (1.0, "1")]
)
def test_p_is_short(p: float, shown: str) -> None:
    assert monitoring_charts.short_p(p) == shown


def test_equal_windows_give_equal_pages() -> None:
    assert monitoring_page.render(make_page(drift=True)) == monitoring_page.render(make_page(drift=True))
