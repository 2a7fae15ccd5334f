from collections.abc import Callable
from pathlib import Path

import pytest

from calotype.errors import DataError
from calotype.sources import open_source

Plant = Callable[..., Path]

ARRANGEMENTS: dict[str, tuple[str, ...]] = {
    "loose images": ("1.jpg", "2.jpg"),
    "nothing": (),
    "splits without classes": ("train/1.jpg", "test/2.jpg"),
    "splits without train": ("val/cat/1.jpg", "test/cat/2.jpg"),
    "empty folders": ("cat/", "dog/"),
}


@pytest.mark.parametrize("names", ARRANGEMENTS.values(), ids=ARRANGEMENTS)
def test_an_unknown_arrangement_shows_what_was_found_beside_what_is_expected(
    plant: Plant, names: tuple[str, ...]
) -> None:
    with pytest.raises(DataError) as caught:
        open_source(plant(*names))
    first, *table = str(caught.value).splitlines()
    assert "no labelled images in a known arrangement" in first
    assert table[0].split() == ["found", "expected", "one", "of"]
    assert any("a folder per class" in line for line in table)


def test_the_tree_found_is_shown_in_a_dozen_lines(plant: Plant) -> None:
    folder = plant(*(f"val/class{index}/{image}.jpg" for index in range(20) for image in range(9)), "test/cat/1.jpg")
    with pytest.raises(DataError) as caught:
        open_source(folder)
    table = str(caught.value).splitlines()[1:]
    assert table[2].split()[0] == "test/"
    assert "    … 6 more" in str(caught.value)
    assert len(table) == 14


def test_names_that_move_the_cursor_are_shown_harmless(plant: Plant) -> None:
    with pytest.raises(DataError) as caught:
        open_source(plant("\x1b[2J.jpg"))
    assert "\x1b" not in str(caught.value)


def test_a_missing_source_names_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"calotype fetch digits"):
        open_source(tmp_path / "nothing")
