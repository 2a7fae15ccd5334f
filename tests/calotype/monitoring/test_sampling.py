"""What waits for a window, and a fair sample of it, read as it streams by."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from itertools import pairwise

import numpy as np
import pytest
from deltalake import DeltaTable

from calotype.errors import DataError
from calotype.monitoring import sampling

Night = Callable[..., DeltaTable]


def test_windows_lose_no_prediction_and_hold_none_twice(night: Night) -> None:
    ends: dict[int, datetime] = {}
    spans, seen = [], []
    for first, count in ((0, 10), (10, 7), (17, 3)):
        table = night(first, count)
        (span,) = sampling.waiting(table, "m", ends)
        assert span.images == count
        found = sampling.read(table, "m", span, ["a", "b"])
        assert found
        seen += found.paths
        spans.append(span)
        ends[1] = span.end
    assert all(one.end == other.start for one, other in pairwise(spans))
    assert sorted(seen) == sorted(f"{number}.png" for number in range(20))


def test_each_version_waits_by_itself_and_others_models_and_shadows_do_not(night: Night) -> None:
    night(0, 5)
    night(5, 6, role="shadow", version=3)
    (first,) = sampling.waiting(night(11, 7, name="other", version=4), "m", {})
    assert (first.model_version, first.images) == (1, 5)
    spans = sampling.waiting(night(30, 8, version=2), "m", {1: first.end})
    assert [(span.model_version, span.images) for span in spans] == [(2, 8)]
    spans = sampling.waiting(night(40, 2), "m", {1: first.end})
    assert [(span.model_version, span.images) for span in spans] == [(2, 8), (1, 2)]


def test_rows_become_arrays_in_the_order_of_their_ids(night: Night) -> None:
    table = night(0, 20)
    found = sampling.read(table, "m", sampling.waiting(table, "m", {})[0], ["b", "a"])
    assert found
    assert list(found.image_ids) == sorted(found.image_ids)
    numbers = np.array([int(path.removesuffix(".png")) for path in found.paths])
    assert (found.sample.embedding == numbers[:, None]).all()
    assert found.sample.embedding.shape == (20, 3)
    assert (found.sample.predicted == 1 - numbers % 2).all()
    assert found.sample.confidence == pytest.approx(numbers / 1e6)
    assert found.sample.appearance[0] == pytest.approx([0.1, 0.2, 0.3])


def test_a_large_window_is_sampled_by_the_smallest_ids(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "LARGEST", 50)
    night(0, 300)
    night(300, 300)
    table = night(600, 300)
    (span,) = sampling.waiting(table, "m", {})
    assert span.images == 900
    found = sampling.read(table, "m", span, ["a", "b"])
    everything = table.to_pyarrow_table(columns=["image_id"])["image_id"].to_pylist()
    assert found
    assert list(found.image_ids) == sorted(everything)[:50]


def test_predictions_without_embeddings_are_no_sample(night: Night) -> None:
    table = night(0, 5, dims=0)
    assert sampling.read(table, "m", sampling.waiting(table, "m", {})[0], ["a", "b"]) is None


def test_a_label_that_the_model_does_not_know_is_an_error(night: Night) -> None:
    table = night(0, 5)
    with pytest.raises(
        DataError, match="found the label 'b', which its model does not know; expected one of 1 classes"
    ):
        sampling.read(table, "m", sampling.waiting(table, "m", {})[0], ["a"])
