"""Tell whether two pictures are one picture, changed a little: compressed, scaled, brightened, cropped by a pixel.

One picture is explained by the other, by least squares: by the other itself, a constant, its two slopes (a shift), the
slopes times their coordinate (a scaling) and its Laplacian (a blur). The shift and scaling found are undone and the fit
is made anew, so that only a small part rests on the first order. Twins are pairs of which next to nothing stays
unexplained, anywhere, by a small change. Cheap looks at coarse pictures come first: most pairs end there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calotype.data.scratch import DiskArray

SIDE = 32
"""Pixels of a thumbnail, height and width."""

UNEXPLAINED = 0.0055
"""Largest share of a picture's variance that may stay unexplained, if its edges have not moved."""

UNEXPLAINED_LESS = 0.0022
"""By how much less for each pixel of a thumbnail: a crop moves and leaves little, unlike garments fit once moved."""

NOISE = 1.2
"""Grey levels (of 255, root mean square) that count as nothing: what compression leaves of a faint picture."""

SPOT = 0.45
"""Largest unexplained difference of a place, in standard deviations of the picture: a digit, a logo, a small object."""

GAIN = 0.06
"""Largest change of contrast, as a share."""

OFFSET = 6.0
"""Largest change of the mean, in grey levels."""

WARP = 1.6
"""Largest way of an edge by shift and scaling together, in pixels of a thumbnail: 5 % of the side."""

TINT = 8.0
"""Largest root mean square difference of colour, in levels of Cb and Cr; more where colours vary."""

_COARSE, _TINY = 16, 8
_MARGIN = 2
_TINY_UNEXPLAINED, _FIRST_UNEXPLAINED = 0.008, 0.01
_TINT_SHARE = 0.15
_AT_ONCE = 256
_TERMS = 6

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
Claims = NDArray[np.bool_]


@dataclass(frozen=True)
class Thumbnails:
    """Small copies of pictures, on disk: a million that wait to be compared would take gigabytes.

    Attributes
    ----------
    grey
        uint8, pictures × ``SIDE`` × ``SIDE``.
    tint
        uint8, pictures × 8 × 8 × 2: Cb and Cr.
    is_colour
        Whether a picture came in colour; a grey one is compared with any by its grey values alone.
    """

    grey: DiskArray
    tint: DiskArray
    is_colour: Claims

    @classmethod
    def empty(cls, count: int, folder: Path | None = None) -> Thumbnails:
        """Room for some pictures, in files under ``folder``: see `DiskArray`."""
        grey = DiskArray((count, SIDE, SIDE), np.uint8, folder)
        return cls(grey, DiskArray((count, _TINY, _TINY, 2), np.uint8, folder), np.zeros(count, np.bool_))

    def put(self, place: int, picture: Image.Image) -> None:
        """Keep a small copy of a picture, which is in mode ``L`` or ``RGB``."""
        small = shrink(picture)
        self.grey[place] = np.asarray(small.convert("L"))
        if small.mode != "L":
            self.is_colour[place] = True
            tiny = small.resize((_TINY, _TINY), Image.Resampling.BOX).convert("YCbCr")
            self.tint[place] = np.asarray(tiny)[:, :, 1:]


def shrink(picture: Image.Image) -> Image.Image:
    """Scale to ``SIDE`` × ``SIDE``, with antialiasing."""
    return picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)


class Comparison:
    """Compare pictures by their thumbnails, many pairs at once; what it works out is kept under ``folder``."""

    def __init__(self, thumbnails: Thumbnails, folder: Path | None = None) -> None:
        self._thumbnails = thumbnails
        count, pixels = len(thumbnails.grey), ((_COARSE - 2 * _MARGIN) // 2) ** 2
        self._tiny = DiskArray((count, pixels), np.float32, folder)
        self._directions = DiskArray((count, _TERMS, pixels), np.float16, folder)
        for start in range(0, count, _AT_ONCE):
            rows = slice(start, start + _AT_ONCE)
            coarse = _halve(_blur(_blur(thumbnails.grey[rows].astype(np.float32))))
            terms = [_centred(_halve(term)) for term in _terms(coarse)]
            self._tiny[rows] = terms[0]
            # Orthonormal directions in which a small change moves the picture.
            self._directions[rows] = np.linalg.qr(np.stack(terms, axis=2)).Q.transpose(0, 2, 1)

    def twins(self, one: Indices, other: Indices) -> Claims:
        """Whether the picture at ``one`` and that at ``other`` are twins, pair by pair."""
        pairs = np.arange(len(one))
        for look in (self._tiny_look, self._tint_look, self._first_look, self._full_look):
            pairs = pairs[_in_portions(look, one[pairs], other[pairs])]
        verdict = np.zeros(len(one), np.bool_)
        verdict[pairs] = True
        return verdict

    def _tiny_look(self, one: Indices, other: Indices) -> Claims:
        left = np.minimum(self._tiny_left(one, other), self._tiny_left(other, one))
        return np.asarray(left <= _TINY_UNEXPLAINED)

    def _tiny_left(self, one: Indices, other: Indices) -> Floats:
        """Share of the other tiny picture that is not explained, beyond noise."""
        directions, target = self._directions[one].astype(np.float32), self._tiny[other]
        variance = (target**2).mean(axis=1)
        left = variance - ((directions @ target[:, :, None])[:, :, 0] ** 2).sum(axis=1) / target.shape[1]
        return np.asarray((left - NOISE**2) / (variance + NOISE**2))

    def _tint_look(self, one: Indices, other: Indices) -> Claims:
        tint, is_colour = self._thumbnails.tint, self._thumbnails.is_colour
        a, b = tint[one].astype(np.float32), tint[other].astype(np.float32)
        variety = np.sqrt(a.var(axis=(1, 2)).mean(axis=1))
        is_like = np.sqrt(((a - b) ** 2).mean(axis=(1, 2, 3))) <= TINT + _TINT_SHARE * variety
        return np.asarray(is_like | ~(is_colour[one] & is_colour[other]))

    def _first_look(self, one: Indices, other: Indices) -> Claims:
        # The cropped explains the larger well, the larger the cropped badly: its edge is beyond the first order.
        is_forward = self._tiny_left(one, other) <= self._tiny_left(other, one)
        a, b = self._soft(np.where(is_forward, one, other)), self._soft(np.where(is_forward, other, one))
        return _refine(a, b, 1).is_within(_FIRST_UNEXPLAINED)

    def _full_look(self, one: Indices, other: Indices) -> Claims:
        a, b = self._soft(one), self._soft(other)
        # The sharper explains the softer, the larger the cropped: either way will do.
        return _refine(a, b, 2).is_twin() | _refine(b, a, 2).is_twin()

    def _soft(self, at: Indices) -> Floats:
        return _blur(self._thumbnails.grey[at].astype(np.float32))


@dataclass(frozen=True)
class _Fit:
    """How well pictures are explained by others: one entry, or row, for each pair."""

    gain: Floats
    warp: Floats  # shift right, shift down, widening, heightening; in pixels
    left: Floats  # mean square of what is not explained
    variance: Floats
    offset: Floats
    spot: Floats

    def is_within(self, share: float | Floats) -> Claims:
        return np.asarray(self.left <= np.maximum(share * self.variance, NOISE**2))

    def is_twin(self) -> Claims:
        """Whether little is left, and the change is small; fitted to thumbnails."""
        moved = (np.abs(self.warp[:, :2]) + np.abs(self.warp[:, 2:])).max(axis=1, initial=0)
        is_small = moved <= WARP
        is_small &= (np.abs(self.gain - 1) <= GAIN) | (self.variance <= (4 * NOISE) ** 2)
        is_small &= np.abs(self.offset) <= OFFSET
        is_small &= self.spot <= SPOT * np.sqrt(self.variance) + 5 * NOISE
        return np.asarray(is_small & self.is_within(UNEXPLAINED - UNEXPLAINED_LESS * moved))


def _refine(a: Floats, b: Floats, times: int) -> _Fit:
    """Explain ``b`` by ``a``, undo the shift and scaling that were found, and explain anew; so many times."""
    furthest = 2 * WARP * a.shape[1] / SIDE
    warp = np.zeros((len(a), 4), np.float32)
    fit = _explain(a, b)
    for _ in range(times):
        warp = np.clip(warp + fit.warp, -furthest, furthest)
        fit = _explain(_warp(a, warp), b)
    return replace(fit, warp=warp + fit.warp)


def _explain(a: Floats, b: Floats) -> _Fit:
    """Least squares of ``b`` on ``a`` and its derivatives, away from the edges, which have none."""
    inner = slice(_MARGIN, a.shape[1] - _MARGIN)
    columns = _terms(a)
    offset = b[:, inner, inner].mean(axis=(1, 2)) - columns[0].mean(axis=(1, 2))
    terms = np.stack([_centred(column) for column in columns], axis=1)
    target = _centred(b[:, inner, inner])
    products = (terms @ terms.transpose(0, 2, 1)).astype(np.float64)
    # A ridge of a tenth of a grey level: a flat picture has no slopes to solve for.
    products[:, range(_TERMS), range(_TERMS)] += 0.01 * target.shape[1]
    weights = np.linalg.solve(products, (terms @ target[:, :, None]).astype(np.float64)).astype(np.float32)
    rest = target - (weights.transpose(0, 2, 1) @ terms)[:, 0]
    gain = weights[:, 0, 0]
    return _Fit(
        gain=gain,
        warp=weights[:, 1:5, 0] / np.clip(gain, 0.5, 2)[:, None],
        left=(rest**2).mean(axis=1),
        variance=(target**2).mean(axis=1),
        offset=offset,
        spot=np.abs(rest).max(axis=1, initial=0),
    )


def _terms(a: Floats) -> list[Floats]:
    """The picture, its slopes, the slopes times their coordinate, its Laplacian; all without the edges."""
    size = a.shape[1]
    inner, less, more = (slice(_MARGIN + step, size - _MARGIN + step) for step in (0, -1, 1))
    right = (a[:, inner, more] - a[:, inner, less]) / 2
    down = (a[:, more, inner] - a[:, less, inner]) / 2
    around = a[:, less, inner] + a[:, more, inner] + a[:, inner, less] + a[:, inner, more]
    place: Floats = _coordinate(size)[inner]
    middle = a[:, inner, inner]
    terms = (middle, right, down, right * place, down * place[:, None], around - 4 * middle)
    return [np.asarray(term, np.float32) for term in terms]


def _centred(values: Floats) -> Floats:
    flat = values.reshape(len(values), values.shape[1] * values.shape[2])
    return np.asarray(flat - flat.mean(axis=1, keepdims=True))


def _warp(a: Floats, warp: Floats) -> Floats:
    """Shift and scale pictures, with bilinear interpolation; the edges repeat."""
    across = _interpolation(warp[:, 0], warp[:, 2], a.shape[1])
    along = _interpolation(warp[:, 1], warp[:, 3], a.shape[1])
    return np.asarray(along @ a @ across.transpose(0, 2, 1))


def _interpolation(shift: Floats, scale: Floats, size: int) -> Floats:
    pixels = np.arange(size, dtype=np.float32)
    places = np.clip(pixels + shift[:, None] + scale[:, None] * _coordinate(size), 0, size - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(places[:, :, None] - pixels)), np.float32)


def _coordinate(size: int) -> Floats:
    """From -1 at one edge to 1 at the other."""
    return ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1).astype(np.float32)


def _blur(a: Floats) -> Floats:
    """Weights 1, 2, 1 both ways; the edges repeat."""
    padded = np.pad(a, ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    return np.asarray((across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]) / 16)


def _halve(a: Floats) -> Floats:
    return np.asarray((a[:, ::2, ::2] + a[:, 1::2, ::2] + a[:, ::2, 1::2] + a[:, 1::2, 1::2]) / 4)


def _in_portions(look: Callable[[Indices, Indices], Claims], one: Indices, other: Indices) -> Claims:
    """A look at many pairs, as many at once as fit into a cache."""
    portions = [slice(start, start + _AT_ONCE) for start in range(0, len(one), _AT_ONCE)]
    parts = [look(one[portion], other[portion]) for portion in portions]
    return np.concatenate(parts) if parts else np.zeros(0, np.bool_)
