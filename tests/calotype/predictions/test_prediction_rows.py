"""Rows do not depend on batches or order, and no file is without one."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from calotype.learning.bundle import Bundle
from calotype.learning.inference import Classifier
from calotype.params import ImageParams
from calotype.predictions.incoming import Folder, Waiting, read_file
from calotype.predictions.prediction_rows import SCHEMA, Model, classify
from calotype.predictions.preparing import Form, in_order, prepare

MODEL = Model("digits", 3, "run")


def rows_of(
    bundle: Bundle, waiting: list[Waiting], batch_size: int, *, workers: int = 2, engine: str = "float32"
) -> list[dict[str, Any]]:
    classifier = Classifier(bundle, device="cpu", batch_size=batch_size, threads=1, engine=engine)
    form = Form((bundle.image,), max_megapixels=1)

    def work(batch: list[Waiting]) -> pa.RecordBatch:
        return classify(prepare(batch, form, read_file), classifier, MODEL, bundle.image)

    return [row for rows in in_order(waiting, work, batch_size=batch_size, workers=workers) for row in rows.to_pylist()]


def test_ten_good_and_five_bad_files_give_fifteen_rows_in_order(tiny_bundle: Bundle, fifteen_files: Path) -> None:
    rows = rows_of(tiny_bundle, list(Folder(fifteen_files)), 4)
    assert len(rows) == 15
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    assert {row["path"]: row["reason"].partition(":")[0] for row in rows if row["status"] == "rejected"} == {
        "bad-corrupt.png": "corrupt",
        "bad-empty.png": "empty",
        "bad-link.png": "broken-link",
        "bad-name-\\xe9.png": "bad-name",
        "bad-text.jpg": "unsupported-format",
    }
    right = [row["label"] == str(digit) for digit, row in enumerate(rows[5:])]
    assert sum(right) >= 8


def test_a_row_says_which_bytes_and_which_model(tiny_bundle: Bundle, fifteen_files: Path) -> None:
    (row,) = rows_of(tiny_bundle, [Waiting("here.png", fifteen_files / "digit-3.png")], 4)
    assert row["image_id"] == hashlib.sha256((fifteen_files / "digit-3.png").read_bytes()).hexdigest()
    assert (row["model_name"], row["model_version"], row["run_id"]) == ("digits", 3, "run")
    probabilities = dict(row["probabilities"])
    assert list(probabilities) == list(tiny_bundle.classes)
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert row["confidence"] == max(probabilities.values()) == probabilities[row["label"]]


def test_an_answer_below_the_threshold_says_that_it_abstains(tiny_bundle: Bundle, fifteen_files: Path) -> None:
    waiting = list(Folder(fifteen_files))
    plain = rows_of(tiny_bundle, waiting, 4)
    confidences = sorted(row["confidence"] for row in plain if row["status"] == "predicted")
    # The threshold is one of the confidences: that row is answered, those below are not.
    rows = rows_of(replace(tiny_bundle, abstain_below=confidences[4]), waiting, 4)
    told = [row["abstained"] for row in rows if row["status"] == "predicted"]
    assert told == [row["confidence"] < confidences[4] for row in plain if row["status"] == "predicted"]
    assert sum(told) == 4
    assert {row["abstained"] for row in rows if row["status"] == "rejected"} == {None}
    assert {row["abstained"] for row in plain} == {False, None}
    assert all(row["label"] for row in rows if row["abstained"])


def test_batched_gives_what_one_by_one_gives(tiny_bundle: Bundle, fifteen_files: Path) -> None:
    waiting = list(Folder(fifteen_files))
    single, batched = (rows_of(tiny_bundle, waiting, size) for size in (1, 7))
    for one, other in zip(single, batched, strict=True):
        numbers = [np.array([p for _, p in row.pop("probabilities") or []]) for row in (one, other)]
        np.testing.assert_allclose(*numbers, atol=1e-6)
        assert one.pop("confidence") == pytest.approx(other.pop("confidence"), abs=1e-6)
        assert one == other


def test_order_of_the_files_does_not_matter(tiny_bundle: Bundle, fifteen_files: Path) -> None:
    waiting = list(Folder(fifteen_files))
    forth = {row["path"]: row for row in rows_of(tiny_bundle, waiting, 15)}
    back = {row["path"]: row for row in rows_of(tiny_bundle, waiting[::-1], 15)}
    assert {path: row["label"] for path, row in forth.items()} == {path: row["label"] for path, row in back.items()}
    assert list(back) == list(forth)[::-1]


def test_workers_change_nothing(tiny_bundle: Bundle, fifteen_files: Path) -> None:
    waiting = list(Folder(fifteen_files)) * 4
    assert rows_of(tiny_bundle, waiting, 5, workers=1) == rows_of(tiny_bundle, waiting, 5, workers=4)


@pytest.mark.parametrize("engine", ["float32", "bf16", "onnx", "openvino"])
def test_a_row_says_which_engine_answered(tiny_bundle: Bundle, fifteen_files: Path, engine: str) -> None:
    rows = rows_of(tiny_bundle, list(Folder(fifteen_files)), 4, engine=engine)
    assert {row["engine"] for row in rows if row["status"] == "predicted"} == {engine}
    assert {row["engine"] for row in rows if row["status"] == "rejected"} == {None}
    right = [row["label"] == str(digit) for digit, row in enumerate(rows[5:])]
    assert sum(right) >= 8


class Broken:
    classes = ("a", "b")
    abstain_below = 0.0
    engine = "float32"

    def probabilities(self, images_nchw: NDArray[np.uint8]) -> NDArray[np.float32]:
        """No number for the first image, certain of the others."""
        answers = np.tile(np.array([0.25, 0.75], np.float32), (len(images_nchw), 1))
        answers[:1] = np.nan
        return answers

    def answers(self, images_nchw: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self.probabilities(images_nchw), np.empty((len(images_nchw), 0), np.float32)


def test_an_answer_that_is_no_number_becomes_a_rejected_row(fifteen_files: Path) -> None:
    image = ImageParams(size=8, channels=1, resize="stretch")
    names = ("bad-empty.png", "digit-0.png", "bad-text.jpg", "digit-1.png")
    found = prepare([Waiting(name, fifteen_files / name) for name in names], Form((image,), 1), read_file)
    rows = classify(found, Broken(), MODEL, image)
    assert rows.schema == SCHEMA
    rows.validate(full=True)
    assert [row["status"] for row in rows.to_pylist()] == ["rejected", "rejected", "rejected", "predicted"]
    assert [row["label"] for row in rows.to_pylist()] == [None, None, None, "b"]
    assert rows["reason"][1].as_py() == "not-finite: the model answers no number for this image"
    assert rows["probabilities"].to_pylist() == [None, None, None, [("a", 0.25), ("b", 0.75)]]
