"""From answers to rows: one for each image of a batch, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from calotype.evaluation.abstention import is_answered
from calotype.params import ImageParams
from calotype.predictions.preparing import Prepared

PREDICTED, REJECTED = "predicted", "rejected"

NOT_FINITE = "not-finite: the model answers no number for this image"

SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("image_id", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("label", pa.string()),
        pa.field("confidence", pa.float32()),
        # The answer is given for the record, but its confidence is below what the model was to keep.
        pa.field("abstained", pa.bool_()),
        # A map, so that models with other classes share one table.
        pa.field("probabilities", pa.map_(pa.string(), pa.float32())),
        pa.field("model_name", pa.string(), nullable=False),
        pa.field("model_version", pa.int64(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        # How the network was run: a key of `learning.engine_names.TOLERANCES`; null where it was not.
        pa.field("engine", pa.string()),
    ]
)
"""The columns of every prediction, wherever it is written."""


@dataclass(frozen=True)
class Model:
    """Which registered version answers, as it is written into each row."""

    name: str
    version: int
    run_id: str


class Classifies(Protocol):
    """What is needed of a classifier: classes, threshold, engine, and answers for uint8 images (N, C, S, S).

    Probabilities are (N, K); `answers` gives them with embeddings (N, D), D = 0 where the bundle has no projection.
    """

    classes: tuple[str, ...]
    abstain_below: float
    engine: str

    def probabilities(self, images_nchw: NDArray[np.uint8], /) -> NDArray[np.float32]: ...

    def answers(self, images_nchw: NDArray[np.uint8], /) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...


def classify(batch: Prepared, classifier: Classifies, model: Model, image: ImageParams) -> pa.RecordBatch:
    """Answer one batch: a row for each image, predicted or rejected, in its order."""
    count = len(batch.waiting)
    reasons = list(batch.reasons)
    is_predicted = batch.is_decoded
    pixels = batch.pixels[image]
    answers = classifier.probabilities(pixels) if len(pixels) else nothing(classifier)
    is_finite = np.isfinite(answers).all(axis=1)
    for place in np.flatnonzero(is_predicted)[~is_finite]:
        reasons[place] = NOT_FINITE
        is_predicted[place] = False
    columns = {
        "path": pa.array([waiting.path for waiting in batch.waiting], pa.string()),
        "image_id": pa.array(batch.image_ids, pa.string()),
        "status": statuses(is_predicted),
        "reason": pa.array(reasons, pa.string()),
        **{
            name: _spread(column, is_predicted)
            for name, column in answer_columns(answers[is_finite], classifier).items()
        },
        **model_columns(model, count),
        "engine": _spread(pa.repeat(classifier.engine, is_predicted.sum()), is_predicted),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def statuses(is_predicted: NDArray[np.bool_]) -> pa.Array:
    """The words for it."""
    return pa.array([REJECTED, PREDICTED]).take(pa.array(is_predicted.astype(np.int8)))


def model_columns(model: Model, count: int) -> dict[str, pa.Array]:
    """Name, version and run, so many times."""
    return {
        "model_name": pa.repeat(model.name, count),
        "model_version": pa.repeat(pa.scalar(model.version, pa.int64()), count),
        "run_id": pa.repeat(model.run_id, count),
    }


def answer_columns(answers: NDArray[np.float32], classifier: Classifies) -> dict[str, pa.Array]:
    """Label, confidence, abstention and probabilities of answers (N, K)."""
    classes = pa.array(classifier.classes, pa.string())
    best = answers.argmax(axis=1)
    confidence = answers[np.arange(len(answers)), best]
    ends = np.arange(len(answers) + 1, dtype=np.int32) * len(classes)
    names = classes.take(pa.array(np.tile(np.arange(len(classes), dtype=np.int32), len(answers))))
    return {
        "label": classes.take(pa.array(best)),
        "confidence": pa.array(confidence),
        "abstained": pa.array(~is_answered(confidence, classifier.abstain_below)),
        "probabilities": pa.MapArray.from_arrays(pa.array(ends), names, pa.array(answers.ravel())),
    }


def nothing(classifier: Classifies) -> NDArray[np.float32]:
    """No answers, (0, K)."""
    return np.empty((0, len(classifier.classes)), dtype=np.float32)


def _spread(values: pa.Array, is_predicted: NDArray[np.bool_]) -> pa.Array:
    """Values of the predicted rows among all rows, the others null."""
    places = np.cumsum(is_predicted) - 1
    return values.take(pa.array(places, mask=~is_predicted))
