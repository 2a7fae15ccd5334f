"""Reading and decoding a batch of waiting images: what is wrong with one becomes its reason, never an exception."""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from calotype.data import decode
from calotype.params import ImageParams
from calotype.predictions.incoming import NotNowError, Unreadable, Waiting

LARGEST_BYTES_PER_PIXEL = 8
"""16 bits in four channels, uncompressed: a larger file cannot be a picture within the pixels allowed."""

HEADER_BYTES = 16 * 2**20
"""Allowance for metadata and thumbnails."""

Reads = Callable[[Waiting, int], bytes]
"""Reads a waiting file of at most so many bytes; raises Unreadable, or NotNowError if it gets no row this time."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Form:
    """What pictures are brought to before they are classified.

    Parameters
    ----------
    images
        The networks' forms, each once; the first decides whether a picture can be decoded.
    max_megapixels
        Pixel cap, `ingest.max_megapixels`.
    """

    images: tuple[ImageParams, ...]
    max_megapixels: float


@dataclass(eq=False)
class Prepared:
    """A batch after reading and decoding.

    Attributes
    ----------
    waiting
        Those that get a row, N of them.
    image_ids
        Of those whose bytes could be read.
    reasons
        Of those that could not be decoded; None for the others.
    is_answered
        Of whose content there is an answer already: they are not decoded.
    pixels
        Of the others, in their order and for each form, uint8 (M, C, S, S).
    left
        How many get no row this time.
    """

    waiting: list[Waiting] = field(default_factory=list)
    image_ids: list[str | None] = field(default_factory=list)
    reasons: list[str | None] = field(default_factory=list)
    is_answered: list[bool] = field(default_factory=list)
    pixels: dict[ImageParams, NDArray[np.uint8]] = field(default_factory=dict)
    left: int = 0

    @property
    def is_decoded(self) -> NDArray[np.bool_]:
        """Which have pixels, shape (N,)."""
        pairs = zip(self.reasons, self.is_answered, strict=True)
        return np.array([reason is None and not known for reason, known in pairs], dtype=np.bool_)


def in_order(
    waiting: Iterable[Waiting], work: Callable[[list[Waiting]], Result], *, batch_size: int, workers: int
) -> Iterator[Result]:
    """Work on batches in threads and give what comes of them in order; one batch more than workers is in memory.

    Reading, decoding and the forward pass release Python's lock, so that the workers overlap; a forward pass of one
    thread a core costs less than one that all cores share.
    """
    items = iter(waiting)
    ahead: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="predict") as pool:
        while batch := list(itertools.islice(items, batch_size)):
            ahead.append(pool.submit(work, batch))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def prepare(batch: Sequence[Waiting], form: Form, read: Reads, answered: Container[str] = frozenset()) -> Prepared:
    """Read and decode a batch.

    Parameters
    ----------
    batch
        Where the images are.
    form
        What they are brought to.
    read
        How.
    answered
        Contents, by image_id, that are not decoded: there is an answer already.
    """
    # Rows of pixels, as they are decoded and as the network's convolutions read them (channels last).
    pixels = {
        image: np.empty((len(batch), image.size, image.size, image.channels), dtype=np.uint8) for image in form.images
    }
    made, decoded = Prepared(), 0
    for waiting in batch:
        try:
            image_id, data, reason = _read(waiting, form.max_megapixels, read)
        except NotNowError:
            made.left += 1
            continue
        is_answered = image_id is not None and image_id in answered
        if data is not None and not is_answered:
            try:
                for image, rows in pixels.items():
                    fitted = decode.decode_fitted(data, image, max_megapixels=form.max_megapixels)
                    rows[decoded] = fitted.transpose(1, 2, 0)
                decoded += 1
            except decode.DecodeError as error:
                reason = f"{error.code}: {error.reason}"
        made.waiting.append(waiting)
        made.image_ids.append(image_id)
        made.reasons.append(reason)
        made.is_answered.append(is_answered)
    made.pixels = {image: rows[:decoded].transpose(0, 3, 1, 2) for image, rows in pixels.items()}
    return made


def _read(waiting: Waiting, max_megapixels: float, read: Reads) -> tuple[str | None, bytes | None, str | None]:
    """The image_id and the bytes, or the reason why they cannot be had."""
    if waiting.file is None:
        return None, None, waiting.problem
    limit = int(max_megapixels * 1_000_000 * LARGEST_BYTES_PER_PIXEL) + HEADER_BYTES
    try:
        data = read(waiting, limit)
    except Unreadable as error:
        return None, None, f"{error.code}: {error.reason}"
    return hashlib.sha256(data).hexdigest(), data, None
