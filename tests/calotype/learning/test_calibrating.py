"""The end of a training: the reference is what the finished model answers for validation images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from calotype.data.appearance import appearance
from calotype.learning import bundle, calibrating
from calotype.learning.bundle import Bundle
from calotype.learning.inference import Classifier
from calotype.learning.training import Labelled
from calotype.params import Params


@pytest.fixture
def validation() -> Labelled:
    digits = load_digits()
    images = (digits.images[:500] * 255 / 16).round().astype("uint8")[:, None]
    return Labelled(torch.from_numpy(images), torch.from_numpy(digits.target[:500]))


@pytest.fixture
def alone(values: Params) -> Params:
    return values.model_copy(update={"train": values.train.model_copy(update={"threads": 1})})


def test_the_reference_is_what_the_calibrated_model_answers(
    tiny_bundle: Bundle, validation: Labelled, alone: Params
) -> None:
    made, reference = calibrating.calibrated(replace(tiny_bundle, embedding_size=0), validation, alone)
    images = validation.images.numpy()
    probabilities, embedding = Classifier(made, device="cpu", batch_size=64).answers(images)
    assert made.temperature != 1
    np.testing.assert_allclose(reference.probabilities, probabilities, atol=1e-6)
    np.testing.assert_allclose(reference.embedding, embedding, rtol=2e-3, atol=1e-3)
    np.testing.assert_array_equal(reference.appearance, appearance(images))
    np.testing.assert_array_equal(reference.labels, validation.labels.numpy())
    assert [values.dtype.name for values in vars(reference).values()] == ["float16", "float32", "float32", "int64"]


def test_the_reference_holds_the_first_images_and_no_more_than_it_may(
    tiny_bundle: Bundle, validation: Labelled, alone: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = calibrating.calibrated(tiny_bundle, validation, alone)
    monkeypatch.setattr(calibrating, "MOST_IMAGES", 100)
    _, part = calibrating.calibrated(tiny_bundle, validation, alone)
    for name, found in vars(part).items():
        np.testing.assert_array_equal(found, getattr(whole, name)[:100])


def test_the_same_calibration_again_gives_the_same_bytes(
    tiny_bundle: Bundle, validation: Labelled, alone: Params, tmp_path: Path
) -> None:
    for name in ("one", "other"):
        made, reference = calibrating.calibrated(tiny_bundle, validation, alone)
        bundle.save(made, tmp_path / name, reference)
    assert bundle.digest(tmp_path / "one") == bundle.digest(tmp_path / "other")
