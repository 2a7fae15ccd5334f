"""Charts of trust: every point on the drawing, every name escaped, nothing outside the frame."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from calotype.evaluation import abstention, calibration
from calotype.evaluation.metrics import Estimate, wilson
from calotype.evaluation.robustness import Outcome
from calotype.pages import trust_charts


def shapes(svg: str, tag: str) -> list[dict[str, str]]:
    return [element.attrib for element in ElementTree.fromstring(svg).iter() if element.tag == tag]


def inside(svg: str) -> bool:
    width, height = (float(part) for part in re.search(r'viewBox="0 0 (\d+) (\d+)"', svg).groups())  # type: ignore[union-attr]
    across = [float(value) for at in shapes(svg, "line") for value in (at["x1"], at["x2"])]
    down = [float(value) for at in shapes(svg, "line") for value in (at["y1"], at["y2"])]
    across += [float(at["cx"]) for at in shapes(svg, "circle")]
    down += [float(at["cy"]) for at in shapes(svg, "circle")]
    return 0 <= min(across) <= max(across) <= width and 0 <= min(down) <= max(down) <= height


@pytest.mark.parametrize("kind", ["spread", "sure", "one"])
def test_reliability_has_a_point_for_each_bin(kind: str) -> None:
    random = np.random.default_rng(0)
    confidence = {"spread": random.uniform(0.1, 1, 500), "sure": np.ones(50), "one": np.array([0.3])}[kind]
    found = calibration.calibrate(confidence, random.random(len(confidence)) < confidence, resamples=50)
    svg = trust_charts.reliability(found)
    assert len(shapes(svg, "circle")) == len(found.bins)
    assert inside(svg)


@pytest.mark.parametrize("threshold", [0.0, 0.7, abstention.NEVER])
def test_coverage_marks_the_threshold_where_anything_is_answered(threshold: float) -> None:
    random = np.random.default_rng(1)
    confidence = random.uniform(0.2, 1, 300)
    found = abstention.judge(confidence, random.random(300) < confidence, threshold=threshold, target=0.9)
    svg = trust_charts.coverage(found)
    assert len(shapes(svg, "circle")) == (1 if found.precision else 0)
    assert inside(svg)


@pytest.mark.parametrize("accuracies", [(0.9, 0.8, 0.3), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)])
def test_a_change_is_drawn_from_unchanged_to_the_strongest(accuracies: tuple[float, ...]) -> None:
    drop = Estimate(0.1, 0.0, 0.2)
    outcomes = [
        Outcome("blur", f"s{n}", f"{n} <px>", wilson(round(100 * a), 100), drop) for n, a in enumerate(accuracies)
    ]
    svg = trust_charts.change(outcomes, 0.95, 0.0, "Blur")
    points = [(float(at["cx"]), float(at["cy"])) for at in shapes(svg, "circle")]
    assert len(points) == 4
    assert points == sorted(points)
    heights = [-height for _, height in points]
    assert [heights[place] >= heights[place + 1] for place in range(1, 3)] == [True, True]
    assert "&lt;px&gt;" in svg
    assert inside(svg)


def test_equal_outcomes_give_equal_bytes() -> None:
    one = Outcome("blur", "s", "1", wilson(90, 100), Estimate(0.05, 0.0, 0.1))
    assert trust_charts.change([one], 0.95, 0.5, "Blur") == trust_charts.change([replace(one)], 0.95, 0.5, "Blur")
