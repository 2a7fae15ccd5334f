"""data.html and audit.html in a real browser: legible on a desk and on a phone, in light and in dark, and harmless."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from playwright.sync_api import Page

from calotype import params
from calotype.pages import audit_page, data_page, picture
from calotype.pages.audit_page import AuditPage, ClassDoubt, Doubt, Pair
from calotype.pages.gallery import Picture
from calotype.project import Project
from tests.browser.conftest import SCREENS, contrast, pixels

pytestmark = pytest.mark.browser

WriteDataset = Callable[[list[dict[str, object]]], pl.DataFrame]
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
LONG = "a-name-without-any-place-to-break-it-" * 3


def ppm(number: int, width: int = 12, height: int = 8) -> bytes:
    return f"P6\n{width} {height}\n255\n".encode() + np.random.default_rng(number).bytes(width * height * 3)


def write_data_page(project: Project, write_dataset: WriteDataset, name: str = "cat") -> Path:
    """Every section of the page: leaks, bridges, moved images, twins, rejects, corrections."""
    images: list[dict[str, object]] = [
        {"data": ppm(number), "label": (name, "dog", LONG)[number % 3], "path": f"{name}/{number}.ppm"}
        for number in range(60)
    ]
    manifest = write_dataset(images)
    leader = manifest["image_id"][0]
    place = pl.int_range(pl.len())
    twins = pl.when(place.is_between(1, 9)).then([leader]).otherwise(pl.lit([], pl.List(pl.String)))
    manifest = manifest.with_columns(twins.alias("twins"))
    status = pl.when(place < 4).then(pl.lit("leak")).when(place < 6).then(pl.lit("bridge")).when(place < 8)
    columns = {
        "split": pl.when(~place.is_between(4, 5)).then(pl.lit(["train", "val", "test"]).list.get(place % 3)),
        "group": pl.lit(None, pl.String),
        "status": status.then(pl.lit("moved")).otherwise(pl.lit("kept")),
    }
    for table, names in (("rejects", ("path", "code", "reason")), ("corrections", ("image_id", "path", "from", "to"))):
        pl.DataFrame({key: [name, LONG] for key in names}).write_parquet(project.dataset / f"{table}.parquet")
    data_page.write(project, params.load(project.params), manifest, manifest.select("image_id", **columns))
    return project.reports / "data.html"


def write_audit_page(folder: Path, name: str = "cat") -> Path:
    drawn = Picture(*picture(ppm(1), max_megapixels=1))
    labels = (name, "dog", LONG)
    doubts = [
        Doubt(rank, f"{name}/{rank}.ppm", labels[rank % 3], labels[(rank + 1) % 3], 1 - rank / 40, "train", drawn)
        for rank in range(1, 50)
    ]
    page = AuditPage(
        title="animals",
        images=1234,
        suspects=49,
        noise=0.021,
        accuracy=0.934,
        folds=4,
        epochs=5,
        rows=100,
        doubts=doubts,
        pairs=[Pair(name, "dog", 12, 0.1), Pair("dog", LONG, 3, 0.02)],
        classes=[ClassDoubt(label, 400, 10 * place) for place, label in enumerate(labels)],
        class_count=3,
    )
    path = folder / "audit.html"
    path.write_text(audit_page.render(page), encoding="utf-8")
    return path


@pytest.fixture
def write_page(project: Project, write_dataset: WriteDataset) -> Callable[..., Path]:
    def write(kind: str, name: str = "cat") -> Path:
        return write_data_page(project, write_dataset, name) if kind == "data" else write_audit_page(project.root, name)

    return write


@pytest.mark.parametrize(("scheme", "width"), SCREENS)
@pytest.mark.parametrize("kind", ["data", "audit"])
def test_the_page_fits_the_screen_and_obeys_its_colours(
    write_page: Any, open_page: Any, kind: str, scheme: str, width: int
) -> None:
    page, wrong = open_page(write_page(kind), scheme, width)
    assert wrong == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    brightness = np.median(pixels(page))
    assert brightness > 230 if scheme == "light" else brightness < 40
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth === 12)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("kind", "selectors"),
    [
        ("data", ["h1", "p.soft", ".legend span", ".look a", ".tile b", ".split", ".flag", "dd", "dt", ".strip h3"]),
        ("audit", ["h1", "p.soft", "code", ".tiles b", ".tiles em", ".rank", ".tiles small", "tbody th"]),
    ],
)
def test_text_stands_out_from_its_background(
    write_page: Any, open_page: Any, kind: str, selectors: list[str], scheme: str
) -> None:
    page, _ = open_page(write_page(kind), scheme)
    assert {selector: contrast(page, selector) for selector in selectors if contrast(page, selector) < 4.5} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_splits_differ_in_colour_and_stand_out_from_the_page(write_page: Any, open_page: Any, scheme: str) -> None:
    page, _ = open_page(write_page("data"), scheme)
    colours = page.evaluate(
        "[...document.querySelectorAll('.card > .stack i')].map(bar => getComputedStyle(bar).backgroundColor)"
    )
    assert len(set(colours)) == 4
    paper = np.array(_channels(page, "body"))
    for colour in colours:
        assert np.abs(np.array([int(part) for part in colour[4:-1].split(",")]) - paper).max() > 80


@pytest.mark.parametrize("kind", ["data", "audit"])
def test_a_name_like_a_script_is_read_and_not_run(write_page: Any, open_page: Any, kind: str) -> None:
    page, wrong = open_page(write_page(kind, HOSTILE))
    assert wrong == []
    assert "taken" not in page.title()
    assert HOSTILE in [cell.inner_text() for cell in page.locator("#classes tbody th").all()]


@pytest.mark.parametrize("kind", ["data", "audit"])
def test_classes_can_be_sorted(write_page: Any, open_page: Any, kind: str) -> None:
    page, wrong = open_page(write_page(kind))
    page.get_by_role("button", name="Test" if kind == "data" else "Share", exact=True).click()
    column = 5 if kind == "data" else 4
    cells = page.locator(f"#classes td:nth-child({column})").all()
    values = [float(cell.get_attribute("data-value")) for cell in cells]
    assert len(values) == 3
    assert values == sorted(values, reverse=True)
    assert wrong == []


def test_what_to_look_at_leads_there(write_page: Any, open_page: Any) -> None:
    page, _ = open_page(write_page("data"))
    for link in page.locator(".look a").all():
        target = link.get_attribute("href")
        assert page.locator(f"h2{target}").count() == 1, target
    page.get_by_role("link", name="Labels corrected").click()
    assert page.locator("#corrections").bounding_box()["y"] < 900


def test_twins_stand_in_one_row_on_a_desk(write_page: Any, open_page: Any) -> None:
    page, _ = open_page(write_page("data"))
    tiles = page.locator("#twins ~ .families .family").last.locator(".tile").all()
    assert len({(tile.bounding_box() or {})["y"] for tile in tiles}) == 1
    assert len(tiles) == 5


def _channels(page: Page, selector: str) -> list[int]:
    colour = page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).backgroundColor")
    return [int(part) for part in colour[4:-1].split(",")]
