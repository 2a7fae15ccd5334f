"""Decoded images of one split: in memory, or in a file that is mapped into it where they are too many.

The file lies under `.cache/decoded`, is named after all that decides its pixels, and serves every later training.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from calotype.data import dataset
from calotype.files import replacing
from calotype.params import ImageParams


def decoded(
    folder: Path,
    image_ids: Sequence[str],
    image: ImageParams,
    *,
    max_megapixels: float,
    memory_gb: float,
    cache: Path,
    prefix: str,
) -> np.ndarray:
    """Decode images as `dataset.load_images` does; beyond ``memory_gb`` into a file, once.

    Parameters
    ----------
    folder
        The dataset.
    image_ids, image, max_megapixels, prefix
        As for `dataset.load_images`.
    memory_gb
        How many gigabytes these images may take in memory.
    cache
        Folder of such files.

    Returns
    -------
    numpy.ndarray
        uint8, images × channels × size × size, each image's channels last in memory.
    """
    shape = (len(image_ids), image.size, image.size, image.channels)
    fill = partial(dataset.load_images, folder, image_ids, image, max_megapixels=max_megapixels, prefix=prefix)
    size = math.prod(shape)
    if size <= memory_gb * 1e9:
        return fill(out=_channels_first(np.empty(shape, np.uint8)))
    path = cache / f"{_key(folder, image_ids, image)}.uint8"
    if not path.is_file() or path.stat().st_size != size:
        with replacing(path) as temporary:
            pixels = np.memmap(temporary, np.uint8, "w+", shape=shape)
            fill(out=_channels_first(pixels))
            pixels.flush()
    return _channels_first(np.memmap(path, np.uint8, "c", shape=shape))


def _channels_first(pixels_nhwc: np.ndarray) -> np.ndarray:
    """The same memory, seen as images × channels × height × width."""
    return pixels_nhwc.transpose(0, 3, 1, 2)


def _key(folder: Path, image_ids: Sequence[str], image: ImageParams) -> str:
    parts = [dataset.digest(folder), image.model_dump(), hashlib.sha256("\n".join(image_ids).encode()).hexdigest()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
