"""Charts of the report: every name is text, every number is in its place."""

from __future__ import annotations

import base64
import io
import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from calotype.pages import charts

SERIES = {"train_loss": "training", "val_loss": "validation"}


def history(epochs: int) -> list[dict[str, float]]:
    return [{"epoch": epoch, "train_loss": 1 / epoch, "val_loss": 1.5 / epoch} for epoch in range(1, epochs + 1)]


@pytest.mark.parametrize("epochs", [1, 2, 7, 200])
def test_any_number_of_epochs_is_drawn_inside_the_frame(epochs: int) -> None:
    drawing = ET.fromstring(charts.lines(history(epochs), SERIES, "Loss"))
    lines = drawing.findall("polyline")
    assert len(lines) == 2
    for line in lines:
        points = [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]
        assert len(points) == epochs
        assert all(0 <= x <= charts.WIDTH and 0 <= y <= charts.HEIGHT for x, y in points)


def test_a_larger_loss_is_drawn_higher() -> None:
    drawing = ET.fromstring(charts.lines(history(3), SERIES, "Loss"))
    training, validation = (line.get("points", "").split() for line in drawing.findall("polyline"))
    for low, high in zip(training, validation, strict=True):
        assert float(low.split(",")[1]) > float(high.split(",")[1])


def test_values_that_are_no_numbers_are_left_out() -> None:
    broken = [{"epoch": 1, "train_loss": math.nan}, {"epoch": 2, "train_loss": 0.5, "val_loss": math.inf}]
    points = [line.get("points") for line in ET.fromstring(charts.lines(broken, SERIES, "Loss")).findall("polyline")]
    assert [len(line.split()) for line in points if line] == [1]


def test_without_values_there_is_no_drawing() -> None:
    assert charts.lines([], SERIES, "Loss") == ""
    assert charts.lines([{"epoch": 1}], SERIES, "Loss") == ""


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_cover_the_values_in_even_steps(low: float, span: float) -> None:
    ticks = charts.nice_ticks(low, low + span)
    tolerance = 1e-6 * max(1.0, abs(low), span)
    assert ticks[0] <= low + tolerance
    assert ticks[-1] >= low + span - tolerance
    assert 2 <= len(ticks) <= 12
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0], rtol=1e-3)


def test_a_cell_says_both_classes_count_and_share() -> None:
    drawing = ET.fromstring(charts.confusion(np.array([[3, 1], [0, 4]]), ["cat", "dog"]))
    titles = [title.text for title in drawing.iter("title")]
    assert titles == [
        "cat → cat: 3 (75.0 %)",
        "cat → dog: 1 (25.0 %)",
        "dog → cat: 0 (0.0 %)",
        "dog → dog: 4 (100.0 %)",
    ]
    counts = [text.text for text in drawing.iter("text") if text.get("class", "").startswith("count")]
    assert counts == ["3", "1", "4"]


def test_names_of_a_matrix_are_escaped() -> None:
    names = ["</title><script>alert(1)</script>", "\"'&<>"]
    drawing = charts.confusion(np.eye(2, dtype=int), names)
    assert "<script" not in drawing
    assert names[1] in [text.text for text in ET.fromstring(drawing).iter("text")]


def test_a_picture_of_many_classes_has_a_pixel_for_each_pair() -> None:
    counts = np.eye(40, dtype=int) * 5
    counts[3, 7] = 5
    data = base64.b64decode(charts.confusion_picture(counts).removeprefix("data:image/png;base64,"))
    alpha = np.asarray(Image.open(io.BytesIO(data)))[..., 3]
    assert alpha.shape == (40, 40)
    assert np.array_equal(alpha > 0, counts > 0)
