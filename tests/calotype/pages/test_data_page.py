"""data.html: every count is shown, every name is text, and the page stays small whatever the size of the data."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

import polars as pl
import pytest

from calotype.pages import data_page
from calotype.params import Params
from calotype.project import Project

WriteDataset = Callable[[list[dict[str, object]]], pl.DataFrame]
HOSTILE = "</title><script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """Elements and words of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.words = re.sub(r"\s+", " ", self.words.replace("\xa0", " "))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.words += "" if tag == "a" else " "

    def handle_data(self, data: str) -> None:
        self.words += data


def pgm(number: int, side: int = 4) -> bytes:
    pixels = number.to_bytes(4, "big") * (side * side // 4)
    return f"P5\n{side} {side}\n255\n".encode() + pixels


def split_all(manifest: pl.DataFrame, **statuses: str) -> pl.DataFrame:
    """Splits by turns, with the status of some images, named by their number in the manifest: ``_3="leak"``."""
    names = [("train", "val", "test")[number % 3] for number in range(manifest.height)]
    status = ["kept"] * manifest.height
    for place, word in statuses.items():
        status[int(place[1:])] = word
    splits = [None if word == "bridge" else name for name, word in zip(names, status, strict=True)]
    columns = {"image_id": manifest["image_id"], "split": splits, "group": None, "status": status}
    return pl.DataFrame(columns, schema_overrides={"group": pl.String, "split": pl.String})


def page_of(project: Project, values: Params, manifest: pl.DataFrame, splits: pl.DataFrame) -> tuple[str, Page]:
    data_page.write(project, values, manifest, splits)
    text = (project.reports / "data.html").read_text(encoding="utf-8")
    return text, Page(text)


def digits(count: int = 30, **columns: object) -> list[dict[str, object]]:
    return [
        {"data": pgm(number), "label": "abc"[number % 3], "path": f"{number}.pgm"} | columns for number in range(count)
    ]


def test_the_page_counts_what_the_tables_hold(project: Project, values: Params, write_dataset: WriteDataset) -> None:
    manifest = write_dataset(digits())
    splits = split_all(manifest, _3="bridge", _6="leak", _9="moved")
    pl.DataFrame({"path": ["x/1.jpg"], "code": ["truncated"], "reason": ["ends early"]}).write_parquet(
        project.dataset / "rejects.parquet"
    )
    pl.DataFrame({"image_id": ["0"], "path": ["7.pgm"], "from": ["old name"], "to": ["new name"]}).write_parquet(
        project.dataset / "corrections.parquet"
    )
    _, page = page_of(project, values, manifest, splits)
    for words in (
        "30 images of 3 classes",
        "train 9",
        "val 10",
        "test 10",
        "left out 1",
        "Leaks between splits: 1 image",
        "bridges between splits: 1 image",
        "Moved to another split: 1 image",
        "truncated the file ends before its image does 1 x/1.jpg ends early",
        "7.pgm old name new name",
        "4 × 4 30",
        "PPM 30",
    ):
        assert words in page.words, words
    assert "No image has a near-duplicate" not in page.words


def test_data_without_a_fault_is_said_to_have_none(
    project: Project, values: Params, write_dataset: WriteDataset
) -> None:
    manifest = write_dataset(digits())
    _, page = page_of(project, values, manifest, split_all(manifest))
    assert "No image has a near-duplicate or a group mate in another split" in page.words
    for words in ("Set aside:", "Labels corrected", "Leaks", "Moved", "bridges", "Left out", "Near-duplicates with"):
        assert words not in page.words


def test_twins_stand_side_by_side_and_differing_labels_are_named(
    project: Project, values: Params, write_dataset: WriteDataset
) -> None:
    manifest = write_dataset(digits())
    leader = manifest.row(0, named=True)
    others = manifest.filter(pl.col("label") != leader["label"])["image_id"].head(1)
    twins = (
        pl.when(pl.col("image_id").is_in(others.implode()))
        .then([leader["image_id"]])
        .otherwise(pl.lit([], pl.List(pl.String)))
    )
    manifest = manifest.with_columns(twins.alias("twins"))
    _, page = page_of(project, values, manifest, split_all(manifest))
    assert "Near-duplicates with different labels: 1 group" in page.words
    assert "2 in 1 group" in page.words
    assert next(attributes["alt"] for tag, attributes in page.elements if tag == "img") == leader["path"]


@pytest.mark.parametrize("column", ["label", "path"])
def test_a_hostile_name_is_text(project: Project, values: Params, write_dataset: WriteDataset, column: str) -> None:
    manifest = write_dataset(digits(**{column: HOSTILE}))
    for table, columns in (
        ("rejects", ("path", "code", "reason")),
        ("corrections", ("image_id", "path", "from", "to")),
    ):
        pl.DataFrame(dict.fromkeys(columns, HOSTILE)).write_parquet(project.dataset / f"{table}.parquet")
    text, page = page_of(project, values, manifest, split_all(manifest, _3="bridge", _6="leak", _9="moved"))
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert {attributes["src"][:5] for tag, attributes in page.elements if tag == "img"} == {"data:"}  # type: ignore[index]
    assert not re.search(r"https?://|//cdn|@import|url\(", text)
    assert "alert(1)" in page.words


def test_equal_data_give_equal_bytes(project: Project, values: Params, write_dataset: WriteDataset) -> None:
    manifest = write_dataset(digits())
    splits = split_all(manifest, _6="leak")
    first, _ = page_of(project, values, manifest, splits)
    assert page_of(project, values, manifest.reverse(), splits.sample(fraction=1, shuffle=True, seed=1))[0] == first


def test_a_thousand_classes_and_a_hundred_thousand_images_stay_below_three_megabytes(
    project: Project, values: Params, write_dataset: WriteDataset
) -> None:
    """Pictures of noise hardly compress; the names are as long as a file system allows."""
    noise = [
        {
            "data": b"P6\n64 64\n255\n" + random_bytes(number),
            "label": f"{number % 1100:0250}",
            "path": f"{number}" + "/x" * 500,
        }
        for number in range(4400)
    ]
    few = write_dataset(noise)
    ids = few["image_id"]
    copies = [
        few.with_columns(pl.format("z{}{}", pl.lit(number), "image_id").alias("image_id")) for number in range(23)
    ]
    # The copies have ids that sort behind every real one, so that the page draws real pictures.
    manifest = pl.concat([few, *copies])
    twins = pl.Series("twins", [[ids[0]]] * manifest.height, dtype=pl.List(pl.String))
    manifest = manifest.with_columns(
        twins=pl.when(pl.int_range(pl.len()) % 2 == 1).then(twins).otherwise(twins.list.head(0))
    )
    splits = split_all(manifest).with_columns(status=pl.lit("leak"))
    text, page = page_of(project, values, manifest, splits)
    assert manifest.height > 100_000
    assert 500_000 < len(text.encode()) < 3_000_000
    assert "500 of 1,100 classes" in page.words
    assert "60 of 1,100 classes" in page.words
    assert "had no room" in page.words


def random_bytes(seed: int) -> bytes:
    import random

    return random.Random(seed).randbytes(64 * 64 * 3)
