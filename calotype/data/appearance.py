"""How an image looks, in three numbers that no model has a part in: brightness, contrast and sharpness."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MEASURES = ("mean", "contrast", "sharpness")
"""The columns of `appearance`."""

_LUMINANCE = (0.299, 0.587, 0.114)
_PIXELS_AT_ONCE = 1 << 15  # Whose temporary arrays stay in a core's cache.


def appearance(images_nchw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Measure images as the network sees them.

    Luminance is that of Rec. 601, 0.299 R + 0.587 G + 0.114 B, between 0 and 1; a single channel is its own. Sharpness
    is the spread of the Laplacian with four neighbours, ``up + down + left + right - 4 centre``, inside the border: the
    variance of the Laplacian is the usual measure of focus (Pech-Pacheco et al., "Diatom autofocusing in brightfield
    microscopy", ICPR 2000); its root scales with the luminance as contrast does.

    Parameters
    ----------
    images_nchw
        uint8 (N, C, H, W), of one or three channels and at least 3 pixels a side.

    Returns
    -------
    numpy.ndarray
        float32 (N, 3): mean and standard deviation of the luminance, standard deviation of its Laplacian. Each row
        depends on its image alone, to the last bit.
    """
    count, _, height, width = images_nchw.shape
    found = np.empty((count, len(MEASURES)), dtype=np.float32)
    step = max(1, _PIXELS_AT_ONCE // (height * width))
    for start in range(0, count, step):
        place = slice(start, start + step)
        light = _luminance(images_nchw[place])
        found[place, 0], found[place, 1] = _mean_and_spread(light)
        found[place, 2] = _mean_and_spread(_laplacian(light))[1]
    return found


def _luminance(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    if images.shape[1] == 1:
        return images[:, 0] * np.float32(1 / 255)
    # Sums of planes, no product of matrices: BLAS would start threads, and round by the number of images.
    light = np.zeros(images[:, 0].shape, dtype=np.float32)
    for channel, weight in enumerate(_LUMINANCE):
        plane = images[:, channel].astype(np.float32, order="C")
        plane *= np.float32(weight / 255)
        light += plane
    return light


def _laplacian(light: NDArray[np.float32]) -> NDArray[np.float32]:
    found = light[:, 1:-1, 1:-1] * np.float32(-4)
    found += light[:, :-2, 1:-1]
    found += light[:, 2:, 1:-1]
    found += light[:, 1:-1, :-2]
    found += light[:, 1:-1, 2:]
    return found


def _mean_and_spread(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each image's values."""
    flat = values.reshape(len(values), -1)
    mean = flat.mean(axis=1)
    centred = flat - mean[:, None]
    squares = np.einsum("ip,ip->i", centred, centred)
    return mean, np.sqrt(squares / np.float32(flat.shape[1]))
