"""Slices: counted right, honest about small ones, and unable to invent a column."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.errors import ParamsError
from calotype.evaluation.metrics import wilson
from calotype.evaluation.slices import MOST_VALUES, OTHER, Dimension, Slicing, difference, measure, smallest_sample


def images(count: int, **columns: Any) -> pl.DataFrame:
    rows = {"image_id": [f"{number:064x}" for number in range(count)], "width": [8] * count, "height": [8] * count}
    return pl.DataFrame(rows | columns)


def cut(frame: pl.DataFrame, correct: np.ndarray, columns: list[str], brightness: np.ndarray | None = None) -> Slicing:
    return measure(frame, np.zeros(len(frame)) if brightness is None else brightness, correct, columns)


def only(slicing: Slicing, name: str) -> Dimension:
    (found,) = [dimension for dimension in slicing.dimensions if dimension.name == name]
    return found


def test_a_column_is_cut_into_its_values_with_counts_and_accuracies() -> None:
    sources = ["line A"] * 6 + ["line B"] * 3 + [None]
    correct = np.array([True] * 6 + [True, False, False] + [True])
    slices = only(cut(images(10, camera=sources), correct, ["camera"]), "camera").slices
    assert [(part.value, part.images, part.accuracy.value) for part in slices] == [
        ("line A", 6, 1.0),
        ("line B", 3, pytest.approx(1 / 3)),
        ("(none)", 1, 1.0),
    ]
    assert slices[0].accuracy == wilson(6, 6)
    assert slices[0].difference.value == pytest.approx(1 - 2 / 4)


def test_sizes_and_brightness_are_cut_into_three_equal_parts() -> None:
    frame = images(90).with_columns(width=pl.Series([8 + number for number in range(90)]))
    found = cut(frame, np.ones(90, dtype=bool), [], np.arange(90.0))
    assert [(part.value, part.images) for part in only(found, "size").slices] == [
        ("small", 30),
        ("middle", 30),
        ("large", 30),
    ]
    assert [part.detail for part in only(found, "brightness").slices] == [
        "mean grey 0–29",
        "mean grey 30–59",
        "mean grey 60–89",
    ]


def test_images_of_one_size_are_not_cut_by_it_and_that_is_said() -> None:
    found = cut(images(9, drop=[1] * 9), np.ones(9, dtype=bool), ["drop"], np.arange(9.0))
    assert found.single == ("size", "drop")
    assert [dimension.name for dimension in found.dimensions] == ["brightness"]


@given(st.lists(st.integers(1, 5), min_size=2, max_size=40))
def test_every_image_is_in_one_slice_of_each_dimension(widths: list[int]) -> None:
    frame = images(len(widths)).with_columns(width=pl.Series(widths))
    correct = np.arange(len(widths)) % 3 > 0
    found = cut(frame, correct, ["width"], np.array(widths, dtype=float))
    for dimension in found.dimensions:
        assert sum(part.images for part in dimension.slices) == len(widths)
        assert sum(part.images * part.accuracy.value for part in dimension.slices) == pytest.approx(correct.sum())
        assert all(part.images for part in dimension.slices)


def test_two_sizes_make_two_slices_and_no_empty_one() -> None:
    frame = images(10).with_columns(width=pl.Series([8] * 7 + [20] * 3))
    sizes = only(cut(frame, np.ones(10, dtype=bool), []), "size").slices
    assert [(part.value, part.images) for part in sizes] == [("small", 7), ("large", 3)]


def test_of_many_values_the_commonest_are_kept_and_the_rest_become_one() -> None:
    names = [f"v{number:02}" for number in range(30) for _ in range(31 - number)]
    slices = only(cut(images(len(names), lot=names), np.ones(len(names), dtype=bool), ["lot"]), "lot").slices
    assert len(slices) == MOST_VALUES
    assert [part.value for part in slices[:2]] == ["v00", "v01"]
    assert (slices[-1].value, slices[-1].detail) == (OTHER, "19 more values")
    assert sum(part.images for part in slices) == len(names)


def test_numbers_stand_in_their_order() -> None:
    drops = [10] * 5 + [2] * 3 + [1] * 4
    slices = only(cut(images(12, drop=drops), np.ones(12, dtype=bool), ["drop"]), "drop").slices
    assert [(part.value, part.images) for part in slices] == [("1", 4), ("2", 3), ("10", 5)]


def test_a_key_of_the_source_s_further_columns_is_a_slice_too() -> None:
    frame = images(
        4, attributes=['{"camera": "left"}', '{"camera": "right"}', None, '{"camera": "left", "shift": "2"}']
    )
    found = only(cut(frame, np.array([True, False, True, True]), ["camera"]), "camera")
    assert {part.value: part.images for part in found.slices} == {"left": 2, "right": 1, "(none)": 1}


@pytest.mark.parametrize("name", ["camrea", "image_id", "attributes"])
def test_an_unknown_column_is_an_error_that_names_the_known_ones(name: str) -> None:
    frame = images(3, drop=[1, 1, 2], attributes=['{"camera": "left"}'] * 3)
    with pytest.raises(ParamsError, match=rf"found '{name}'.*expected some of width, height, drop, camera\."):
        cut(frame, np.ones(3, dtype=bool), [name])


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 0.8, 0.99, 1.0])
def test_the_smallest_sample_is_the_fewest_whose_interval_is_narrow(accuracy: float) -> None:
    fewest = smallest_sample(accuracy)

    def half(count: int) -> float:
        # Wilson's interval for a share that need not be whole images.
        z = 1.959963984540054
        return float(z * np.sqrt(accuracy * (1 - accuracy) / count + z**2 / (4 * count**2)) / (1 + z**2 / count))

    assert half(fewest) <= 0.05 < half(fewest - 1)
    if accuracy == 0.5:
        assert 375 < fewest < 400


def test_a_small_slice_is_shown_and_says_nothing() -> None:
    correct = np.array([True] * 400 + [False] * 5)
    lots = ["a"] * 400 + ["b"] * 5
    large, small = only(cut(images(405, lot=lots), correct, ["lot"]), "lot").slices
    assert small.difference.high < 0
    assert not small.is_enough
    assert not small.stands_out
    assert large.is_enough


def test_newcombe_s_example_is_met() -> None:
    # Newcombe 1998, table II, method 10: 56/70 against 48/80 gives 0.2000 (0.0524 to 0.3339).
    found = difference(56, 70, 48, 80)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


def test_a_slice_and_its_rest_differ_by_the_same_amount_with_the_other_sign() -> None:
    correct = np.random.default_rng(0).random(300) < 0.8
    one, other = only(cut(images(300, lot=["a"] * 100 + ["b"] * 200), correct, ["lot"]), "lot").slices
    assert one.difference.value == pytest.approx(-other.difference.value)
    assert one.difference.low == pytest.approx(-other.difference.high)
