"""The images farthest from the reference come first, and the flat view shows what differs."""

from __future__ import annotations

import numpy as np
import pytest

from calotype.monitoring import unusual


def test_strange_images_come_first_and_lie_beyond_what_is_usual() -> None:
    random = np.random.default_rng(0)
    reference, window = random.normal(size=(2000, 5)), random.normal(size=(100, 5))
    window[[7, 42]] += 20
    found = unusual.look(reference, window)
    assert set(found.order[:2]) == {7, 42}
    assert found.distances[42] > found.usual
    ordinary = np.delete(found.distances, [7, 42])
    assert (ordinary > found.usual).mean() == pytest.approx(0.01, abs=0.04)


def test_the_view_spreads_the_samples_along_their_difference() -> None:
    random = np.random.default_rng(1)
    reference, window = random.normal(size=(500, 5)), random.normal(size=(200, 5))
    window[:, 3] += 3
    found = unusual.look(reference, window)
    across, up = found.window_points.mean(axis=0) - found.reference_points.mean(axis=0)
    assert across > 2.5
    assert abs(up) < 0.3


def test_a_sample_that_equals_its_reference_has_a_view() -> None:
    same = np.random.default_rng(2).normal(size=(50, 1))
    found = unusual.look(same, same)
    assert (found.distances < 1e-6).all()
    assert np.isfinite(found.window_points).all()
