"""From waiting images to rows: read, decode, classify in batches, one row for each, in order.

Each worker is a thread that takes a batch through all of it. Reading, decoding and the forward pass release Python's
lock, so that the workers overlap; a forward pass of one thread a core costs less than one that all cores share.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from calotype.data import decode
from calotype.evaluation.abstention import is_answered
from calotype.params import ImageParams
from calotype.predictions import incoming
from calotype.predictions.incoming import Unreadable, Waiting
from calotype.predictions.known import NONE, Key

PREDICTED, REJECTED = "predicted", "rejected"

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

LARGEST_BYTES_PER_PIXEL = 8
"""16 bits in four channels, uncompressed: a larger file cannot be a picture within the pixels allowed."""

HEADER_BYTES = 16 * 2**20
"""Allowance for metadata and thumbnails."""


@dataclass(frozen=True)
class Model:
    """Which registered version answers, as it is written into each row."""

    name: str
    version: int
    run_id: str


class Classifies(Protocol):
    """What is needed of a classifier: classes, threshold, engine, and probabilities (N, K) for images (N, C, S, S)."""

    classes: tuple[str, ...]
    abstain_below: float
    engine: str

    def probabilities(self, images_nchw: NDArray[np.uint8], /) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Form:
    """What pictures are brought to before they are classified.

    Parameters
    ----------
    image
        The network's form.
    max_megapixels
        Pixel cap, `ingest.max_megapixels`.
    """

    image: ImageParams
    max_megapixels: float


@dataclass(frozen=True, eq=False)
class Prepared:
    """A batch after reading and decoding.

    Attributes
    ----------
    paths
        Of the images that get a row, N of them.
    image_ids
        Of those whose bytes could be read.
    reasons
        Of those that could not be decoded; None for the others.
    pixels
        Of the others, in their order, uint8 (M, C, S, S).
    """

    paths: list[str]
    image_ids: list[str | None]
    reasons: list[str | None]
    pixels: NDArray[np.uint8]


def answered(
    waiting: Iterable[Waiting],
    form: Form,
    classifier: Classifies,
    model: Model,
    *,
    batch_size: int,
    workers: int,
    known: Container[Key] = NONE,
) -> Iterator[pa.RecordBatch]:
    """Answer waiting images in order, a batch of rows at a time; memory holds one batch more than there are workers.

    Parameters
    ----------
    waiting
        Where the images are.
    form
        What they are brought to.
    classifier, model
        Who answers.
    batch_size
        Images that a worker takes at a time.
    workers
        How many threads work.
    known
        Images that get no row.
    """
    items = iter(waiting)

    def work(batch: list[Waiting]) -> pa.RecordBatch:
        return classify(prepare(batch, form, known), classifier, model)

    ahead: deque[Future[pa.RecordBatch]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="predict") as pool:
        while batch := list(itertools.islice(items, batch_size)):
            ahead.append(pool.submit(work, batch))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def prepare(batch: Sequence[Waiting], form: Form, known: Container[Key] = NONE) -> Prepared:
    """Read and decode a batch; whatever is wrong with an image becomes its reason, never an exception.

    Images that are ``known`` already are left out, and are not decoded.
    """
    image = form.image
    # Rows of pixels, as they are decoded and as the network's convolutions read them (channels last).
    pixels = np.empty((len(batch), image.size, image.size, image.channels), dtype=np.uint8)
    decoded = 0
    found = Prepared([], [], [], pixels.transpose(0, 3, 1, 2))
    for waiting in batch:
        image_id, data, reason = _read(waiting, form.max_megapixels)
        if (waiting.path, image_id) in known:
            continue
        if data is not None:
            try:
                found.pixels[decoded] = decode.decode_fitted(data, image, max_megapixels=form.max_megapixels)
                decoded += 1
            except decode.DecodeError as error:
                reason = f"{error.code}: {error.reason}"
        found.paths.append(waiting.path)
        found.image_ids.append(image_id)
        found.reasons.append(reason)
    return Prepared(found.paths, found.image_ids, found.reasons, found.pixels[:decoded])


def _read(waiting: Waiting, max_megapixels: float) -> tuple[str | None, bytes | None, str | None]:
    """The image_id and the bytes, or the reason why they cannot be had."""
    if waiting.file is None:
        return None, None, waiting.problem
    limit = int(max_megapixels * 1_000_000 * LARGEST_BYTES_PER_PIXEL) + HEADER_BYTES
    try:
        data = incoming.read(waiting.file, max_bytes=limit)
    except Unreadable as error:
        return None, None, f"{error.code}: {error.reason}"
    return hashlib.sha256(data).hexdigest(), data, None


def classify(batch: Prepared, classifier: Classifies, model: Model) -> pa.RecordBatch:
    """Answer one batch: a row for each image, predicted or rejected, in its order."""
    count = len(batch.paths)
    reasons = list(batch.reasons)
    is_predicted = np.array([reason is None for reason in reasons], dtype=np.bool_)
    answers = classifier.probabilities(batch.pixels) if len(batch.pixels) else _nothing(classifier)
    is_finite = np.isfinite(answers).all(axis=1)
    for place in np.flatnonzero(is_predicted)[~is_finite]:
        reasons[place] = "not-finite: the model answers no number for this image"
        is_predicted[place] = False
    columns = {
        "path": pa.array(batch.paths, pa.string()),
        "image_id": pa.array(batch.image_ids, pa.string()),
        "status": pa.array([REJECTED, PREDICTED]).take(pa.array(is_predicted.astype(np.int8))),
        "reason": pa.array(reasons, pa.string()),
        **_answer_columns(answers[is_finite], is_predicted, classifier),
        "model_name": pa.repeat(model.name, count),
        "model_version": pa.repeat(pa.scalar(model.version, pa.int64()), count),
        "run_id": pa.repeat(model.run_id, count),
        "engine": pa.array([classifier.engine]).take(_spread(np.zeros(is_predicted.sum(), np.int8), is_predicted)),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _answer_columns(
    answers: NDArray[np.float32], is_predicted: NDArray[np.bool_], classifier: Classifies
) -> dict[str, Any]:
    """Label, confidence, abstention and probabilities, null where there is no answer."""
    classes = pa.array(classifier.classes, pa.string())
    best = answers.argmax(axis=1)
    confidence = answers[np.arange(len(answers)), best]
    is_withheld = ~is_answered(confidence, classifier.abstain_below)
    ends = np.concatenate([[0], np.cumsum(is_predicted) * len(classes)]).astype(np.int32)
    # A map starts where the one before it ends; one without a start is null.
    starts = pa.array(ends, mask=np.append(~is_predicted, False))
    names = classes.take(pa.array(np.tile(np.arange(len(classes), dtype=np.int32), len(answers))))
    return {
        "label": classes.take(_spread(best.astype(np.int32), is_predicted)),
        "confidence": _spread(confidence, is_predicted),
        "abstained": _spread(is_withheld, is_predicted),
        "probabilities": pa.MapArray.from_arrays(starts, names, pa.array(answers.ravel())),
    }


def _spread(values: NDArray[Any], is_predicted: NDArray[np.bool_]) -> pa.Array:
    """Values of the predicted rows among all rows, the others null."""
    spread = np.zeros(len(is_predicted), dtype=values.dtype)
    spread[is_predicted] = values
    return pa.array(spread, mask=~is_predicted)


def _nothing(classifier: Classifies) -> NDArray[np.float32]:
    return np.empty((0, len(classifier.classes)), dtype=np.float32)
