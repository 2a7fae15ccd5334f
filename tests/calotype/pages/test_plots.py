"""Pictures of the confusion matrix: right in size, safe with odd names, for few classes and for many."""

from __future__ import annotations

import gc
import io

import numpy as np
import pytest
from PIL import Image

from calotype.pages.plots import confusion_png


def draw(confusion: np.ndarray, classes: list[str]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(confusion_png(confusion, classes))).convert("L"), dtype=float)


@pytest.mark.parametrize("count", [1, 2, 10, 21, 61, 150])
def test_any_number_of_classes_gives_a_square_picture(count: int) -> None:
    pixels = draw(np.eye(count, dtype=int) * 3, [f"class {number}" for number in range(count)])
    assert pixels.shape[0] == pixels.shape[1]
    assert 400 < pixels.shape[0] < 1500


def test_a_mistake_shows_where_it_was_made() -> None:
    clean = draw(np.eye(30, dtype=int) * 10, [""] * 30)
    mistaken = np.eye(30, dtype=int) * 10
    mistaken[0, 29] = 10
    changed = np.abs(draw(mistaken, [""] * 30) - clean) > 30
    # The title differs too: look below it.
    rows, columns = np.nonzero(changed[60:])
    assert rows.size
    assert np.median(columns) > 0.8 * clean.shape[1]
    assert np.median(rows) < 0.2 * clean.shape[0]


def test_counts_are_written_into_the_cells_of_up_to_twenty_classes() -> None:
    few = draw(np.eye(3, dtype=int) * 8, ["a", "b", "c"])
    middle = few.shape[0] // 2
    around = few[middle - 40 : middle + 40, middle - 20 : middle + 60]
    assert around.max() > 200 > 100 > around.min()


@pytest.mark.parametrize("name", ["$\\frac{1}{$", "a_b^c", "<script>", "x" * 300, "naïve", "50 %"])
def test_a_name_is_text_and_never_a_formula(name: str) -> None:
    assert draw(np.array([[2, 1], [0, 3]]), [name, "other"]).size


def test_a_class_without_images_draws_an_empty_row() -> None:
    assert draw(np.array([[0, 0], [1, 3]]), ["none", "some"]).size


def test_drawing_leaves_no_figure_behind() -> None:
    from matplotlib.figure import Figure

    confusion_png(np.eye(2, dtype=int), ["a", "b"])
    gc.collect()
    before = sum(type(item) is Figure for item in gc.get_objects())
    for _ in range(3):
        confusion_png(np.eye(2, dtype=int), ["a", "b"])
    gc.collect()
    assert sum(type(item) is Figure for item in gc.get_objects()) <= before


def test_equal_counts_give_equal_bytes() -> None:
    assert confusion_png(np.eye(4, dtype=int), list("abcd")) == confusion_png(np.eye(4, dtype=int), list("abcd"))
