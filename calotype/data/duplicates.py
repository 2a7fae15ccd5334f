"""Find near-duplicates: a perceptual hash proposes, a comparison of pixels decides, and a group has a leader.

The hash is 64 signs of a windowed cosine transform of the grey picture at 32 × 32 pixels. A small picture changes much
when a row of pixels is cut off; so a new one is looked up as it is and as it would be after such a crop, or before.

Images come in an order of arrival. An image that matches no earlier leader is a leader. One that matches some is a
member of their groups, and stands for none itself: groups cannot chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calotype.data import hamming
from calotype.data.decode import as_picture
from calotype.data.likeness import SIDE, Claims, Comparison, Indices, Thumbnails, shrink
from calotype.data.scratch import DiskArray

Pictures = Callable[[Indices], Iterable[tuple[int, Image.Image]]]
"""Give decoded pictures (``L`` or ``RGB``) of images by number, in any order; only a thumbnail is kept of each."""

Sketches = NDArray[np.uint64] | DiskArray
"""uint64, images × ``VIEWS``: see `sketches`."""

Numbers = NDArray[np.int32]
"""Numbers of images, where there are many."""

Confirm = Callable[[Indices, Indices], Claims]
"""Say which pairs of images are twins."""

RADIUS = 5
"""Bits by which hashes of twins may differ."""

VIEW_RADIUS = 4
"""The same where a picture is looked up as cropped."""

CANDIDATES = 32
"""Earlier images, nearest first, with which one image is compared."""

SMALL = 96
"""Pixels of the shorter side below which a crop of one pixel is looked for."""

_FREQUENCIES = 9
_BITS = 64
_FAINT = 1.0  # a coefficient of noise of one grey level: flat pictures share the hash 0
_FAINT_SHARE = 0.012  # of the length of all: in symmetric pictures half the coefficients are next to 0, of any sign
_CROPS = ((0, 0), (1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (-1, -1))  # pixels cut off before and after; or added
_SINGLE = [(0, along) for along in (1, 2, 3, 4)] + [(along, 0) for along in (1, 2, 3, 4)]
_CORNERS = [(a, b) for pair in ((1, 2), (3, 4)) for a in pair for b in pair]
_VIEWS = [(0, 0), *_SINGLE, (5, 5), (6, 6), *_CORNERS]

VIEWS = len(_VIEWS)
"""Hashes of a sketch: the picture's own first, then those of the picture less, or plus, a pixel at some edges."""

_GREY = np.array([19595, 38470, 7471], np.float32)  # 65,536ths of red, green and blue: Pillow's
_LOW = 2**32 - 1
_OFFERS_AT_ONCE = 2**22
_OFFERS_OF_A_PORTION = 2**18
_SKETCHES_AT_ONCE = 2**14
_HASHES_AT_ONCE = 2**18
_FIRST_BLOCK = 32
_LARGEST_BLOCK = 2**16


class Small(NamedTuple):
    """What hashing needs of a picture: ``SIDE`` × ``SIDE`` × 1 or 3 pixels, and its size unless it is large."""

    pixels: NDArray[np.uint8]
    size: tuple[int, int] | None


def small(found: Image.Image | NDArray[np.uint8]) -> Small:
    """Make a picture small; it is in mode ``L`` or ``RGB``, or the pixels of such a one, as `decode.look` returns."""
    if isinstance(found, np.ndarray) and found.shape[:2] == (SIDE, SIDE):
        return Small(found, (SIDE, SIDE))
    picture = as_picture(found)
    grey = np.asarray(shrink(picture).convert("L"))
    return Small(grey[:, :, None], None if min(picture.size) >= SMALL else picture.size)


def sketches(smalls: Sequence[Small]) -> NDArray[np.uint64]:
    """The perceptual hash of each picture, and those of the picture cropped by a pixel.

    Returns
    -------
    numpy.ndarray
        uint64, pictures × ``VIEWS``. The first of a row is the perceptual hash; the others equal it where the picture
        is large. A row depends on its own picture alone.
    """
    found = np.empty((len(smalls), VIEWS), np.uint64)
    alike: dict[tuple[tuple[int, int] | None, int], list[int]] = {}
    for place, one in enumerate(smalls):
        alike.setdefault((one.size, one.pixels.shape[2]), []).append(place)
    for (size, _), places in alike.items():
        found[places] = _hashes(_greys(np.array([smalls[place].pixels for place in places])), size)
    return found


def _greys(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey values of pictures (N, H, W, 1 or 3): of colour the 8 bits that Pillow rounds to, by ITU-R 601."""
    if pixels.shape[3] == 1:
        return pixels[..., 0].astype(np.float32)
    # Whole numbers below 2²⁴: exact in float32.
    weighted = pixels.reshape(-1, 3).astype(np.float32) @ _GREY + 32768
    return np.asarray(np.floor(weighted / 65536).reshape(pixels.shape[:3]))


def sketch(picture: Image.Image) -> NDArray[np.uint64]:
    """The sketch of one picture: uint64, ``VIEWS`` of them."""
    hashes: NDArray[np.uint64] = sketches([small(picture)])[0]
    return hashes


def _hashes(greys: NDArray[np.float32], size: tuple[int, int] | None) -> NDArray[np.uint64]:
    """Hashes of pictures that were of one size, or large: of each the own, and where small the cropped ones."""
    if size is None:
        coefficients = (_basis() @ greys @ _basis().T).reshape(len(greys), -1)[:, None, _order()]
    else:
        width, height = size
        products = _cropped_bases(height) @ greys @ _cropped_bases(width).T
        coefficients = products.reshape(len(greys), -1)[:, _view_order()]
    faint = np.maximum(_FAINT, _FAINT_SHARE * np.linalg.norm(coefficients[:, 0], axis=1))
    # The chosen frequencies of several large pictures do not lie together.
    bits = np.ascontiguousarray(np.packbits(coefficients > faint[:, None, None], axis=2))
    return np.asarray(bits.view(">u8")[:, :, 0].astype(np.uint64))


def perceptual_hash(picture: Image.Image) -> int:
    """64 bits that hardly change when a picture is compressed, scaled or brightened a little."""
    return int(sketch(picture)[0])


def find_twins(
    leader_hashes: NDArray[np.uint64], sketches: Sketches, pictures: Pictures, scratch: Path | None = None
) -> tuple[Indices, Indices]:
    """Say which new images nearly equal which earlier leaders.

    Parameters
    ----------
    leader_hashes
        Perceptual hashes of the leaders that were there before, in order of arrival.
    sketches
        What `sketches` said of the new images, in order of arrival; images are numbered through both, leaders first.
    pictures
        Gives the decoded pictures of images that are alike by their hashes. Called once at most.
    scratch
        Folder for what memory would not hold; the system's temporary one if None.

    Returns
    -------
    tuple
        Numbers of new images and of as many leaders that they match, sorted; an image that leads is not among the
        first.

    Raises
    ------
    KeyError
        If ``pictures`` leaves one out.
    """
    image, earlier = candidates(leader_hashes, sketches)
    is_asked = np.zeros(len(leader_hashes) + len(sketches), np.bool_)
    is_asked[image] = is_asked[earlier] = True
    asked = np.flatnonzero(is_asked)
    comparison = Comparison(_thumbnails(asked, pictures, scratch), scratch)

    def confirm(one: Indices, other: Indices) -> Claims:
        return comparison.twins(np.searchsorted(asked, one), np.searchsorted(asked, other))

    known = len(leader_hashes)
    return gather(image, earlier, known, known + len(sketches), confirm)


def candidates(leader_hashes: NDArray[np.uint64], sketches: Sketches) -> tuple[Numbers, Numbers]:
    """Pairs of a new image and an earlier one with near hashes, through an index.

    Parameters
    ----------
    leader_hashes, sketches
        As in `find_twins`; images are numbered through both, leaders first.

    Returns
    -------
    tuple
        Numbers of images and of as many earlier ones, each pair once, sorted: for each image the ``CANDIDATES`` nearest
        hashes, and of many images that share one the first and some more, up to as many again.
    """
    cropped = _Cropped(sketches, len(leader_hashes))
    hashes = np.concatenate([leader_hashes.astype(np.uint64), *(part[:, 0] for _, part in cropped.parts())])
    stored, first, hash_of = np.unique(hashes, return_index=True, return_inverse=True)
    cuts = range(len(leader_hashes), len(hashes), _HASHES_AT_ONCE)
    whole = [(np.arange(cut, len(hashes))[:_HASHES_AT_ONCE], hashes[cut : cut + _HASHES_AT_ONCE]) for cut in cuts]
    nearest = _Nearest()
    for blocks, radius in ((whole, RADIUS), (cropped, VIEW_RADIUS)):
        for image, distance, other in hamming.near(blocks, stored, radius):
            is_earlier = first[other] < image
            nearest.add(image[is_earlier], distance[is_earlier], other[is_earlier])
    return _owners(nearest.offers(), hash_of)


def gather(image: Numbers, earlier: Numbers, known: int, count: int, confirm: Confirm) -> tuple[Indices, Indices]:
    """Decide who leads and who follows, in order of arrival, block after block.

    A candidate that is a member stands for its leader: of a group of thousands each newcomer meets the leader alone.

    Parameters
    ----------
    image, earlier
        Candidate pairs, as `candidates` gives them.
    known
        How many images, the first ones, are leaders already.
    count
        How many images there are.
    confirm
        Decides about pairs.

    Returns
    -------
    tuple
        Members and as many leaders that they match, each pair once, sorted.
    """
    leader_of = np.arange(count)
    found = [np.empty((2, 0), np.int64)]
    for start, stop in _blocks(known, count):
        rows = slice(*np.searchsorted(image, (start, stop)))
        one, other = image[rows].astype(np.int64), earlier[rows].astype(np.int64)
        is_old = other < start
        found.append(_join(leader_of, one[is_old], leader_of[other[is_old]], confirm))
        one, other = one[~is_old], other[~is_old]
        follows = (leader_of[other] != other) & (leader_of[one] == one)
        found.append(_join(leader_of, one[follows], leader_of[other[follows]], confirm))
        found.extend(_settle(leader_of, one, other, confirm))
    member, leader = _each_once(np.concatenate(found, axis=1))
    return member, leader


def _settle(leader_of: Indices, one: Indices, other: Indices, confirm: Confirm) -> list[Indices]:
    """Matches within a block, of which some images are members of older groups already."""
    is_member = leader_of[one] != one
    is_free = ~is_member & (leader_of[other] == other)
    kept = []
    for place, match in _confirmed(one[is_free], other[is_free], confirm).T.tolist():
        # Sorted pairs: whatever could make `match` a member has been seen.
        if leader_of[match] == match:
            kept.append((place, match))
            leader_of[place] = min(leader_of[place], match)
    among = np.array(kept, np.int64).reshape(-1, 2).T
    is_new_leader = is_member & (leader_of[other] == other)
    return [among, _confirmed(one[is_new_leader], other[is_new_leader], confirm)]


def _join(leader_of: Indices, one: Indices, leader: Indices, confirm: Confirm) -> Indices:
    """Enter images as members of groups that stand; return the pairs."""
    pairs = _confirmed(one, leader, confirm)
    leader_of[pairs[0]] = pairs[1]
    return pairs


def _confirmed(one: Indices, other: Indices, confirm: Confirm) -> Indices:
    """The pairs that are twins, each once, sorted; two rows."""
    pairs = _each_once(np.stack([one, other]))
    return pairs[:, confirm(pairs[0], pairs[1])]


def _each_once(pairs: Indices) -> Indices:
    codes = np.unique((pairs[0] << 32) | pairs[1])
    return np.stack([codes >> 32, codes & _LOW])


def _blocks(known: int, count: int) -> Iterator[tuple[int, int]]:
    """Blocks that double: the first members of groups are found in small ones."""
    start = known
    while start < count:
        stop = min(count, start + min(max(start - known, _FIRST_BLOCK), _LARGEST_BLOCK))
        yield start, stop
        start = stop


class _Cropped:
    """The hashes by which images are looked up as cropped, in blocks; may be gone through again and again."""

    def __init__(self, sketches: Sketches, known: int) -> None:
        self._sketches = sketches
        self._known = known

    def parts(self) -> Iterator[tuple[int, NDArray[np.uint64]]]:
        """Sketches, some at once, and the number of the first image."""
        for start in range(0, len(self._sketches), _SKETCHES_AT_ONCE):
            yield self._known + start, self._sketches[start : start + _SKETCHES_AT_ONCE]

    def __iter__(self) -> Iterator[tuple[Indices, NDArray[np.uint64]]]:
        for start, part in self.parts():
            place, view = np.nonzero(part != part[:, :1])
            yield start + place, part[place, view]


class _Nearest:
    """For each image the nearest stored hashes, in bounded memory however many are offered."""

    def __init__(self) -> None:
        self._parts = [np.empty(0, np.int64)]
        self._waiting = 0

    def add(self, image: Indices, distance: NDArray[np.uint8], stored: Indices) -> None:
        offers = (image << 36) | (distance.astype(np.int64) << 32) | stored
        self._parts.append(offers)
        self._waiting += len(image)
        if self._waiting > max(_OFFERS_AT_ONCE, len(self._parts[0])):
            self._sort_out()

    def _sort_out(self) -> None:
        offers = np.concatenate(self._parts)
        self._parts.clear()
        offers.sort()
        self._parts.append(np.concatenate([_nearest(part) for part in _portions(offers)]))
        self._waiting = 0

    def offers(self) -> Indices:
        """Image, distance and stored hash in one number each, sorted."""
        self._sort_out()
        return self._parts[0]


def _portions(offers: Indices) -> list[Indices]:
    """Sorted offers, some at once: all those of an image together."""
    cuts = offers[_OFFERS_OF_A_PORTION::_OFFERS_OF_A_PORTION] >> 36 << 36
    return np.split(offers, np.searchsorted(offers, cuts))


def _nearest(offers: Indices) -> Indices:
    """The best of sorted offers for each image; seen through several views, a hash counts once, at its nearest."""
    pair = (offers >> 36 << 32) | (offers & _LOW)
    offers = offers[np.sort(np.unique(pair, return_index=True)[1])]
    image = offers >> 36
    rank = np.arange(len(image)) - np.searchsorted(image, image)
    return offers[rank < CANDIDATES]


def _owners(offers: Indices, hash_of: Indices) -> tuple[Numbers, Numbers]:
    """Replace hashes by the images that have them: of many before the image, the first and others evenly spaced."""
    count = np.int64(len(hash_of))
    codes = np.sort(hash_of * count + np.arange(count))
    parts = [_owners_of(part, codes, count).astype(np.int32) for part in _portions(offers)]
    one, other = np.concatenate(parts, axis=1)
    return one, other


def _owners_of(offers: Indices, codes: Indices, count: np.int64) -> Indices:
    """Pairs of images, sorted; two rows. ``codes`` hold for each hash the images that have it, sorted."""
    image, stored = offers >> 36, offers & _LOW
    start, stop = np.searchsorted(codes, stored * count), np.searchsorted(codes, stored * count + image)
    sizes = np.minimum(stop - start, np.maximum(1, CANDIDATES // np.bincount(image)[image]))
    rank = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = np.repeat(start, sizes) + rank * np.repeat(stop - start, sizes) // np.repeat(sizes, sizes)
    return _each_once(np.stack([np.repeat(image, sizes), codes[place] % count]))


def _thumbnails(asked: Indices, pictures: Pictures, scratch: Path | None) -> Thumbnails:
    thumbnails = Thumbnails.empty(len(asked), scratch)
    is_missing = np.ones(len(asked), np.bool_)
    for number, picture in pictures(asked):
        place = int(np.searchsorted(asked, number))
        thumbnails.put(place, picture)
        is_missing[place] = False
    if is_missing.any():
        raise KeyError(f"no picture of number {asked[is_missing][0]}")
    return thumbnails


@lru_cache(maxsize=1)
def _basis() -> NDArray[np.float32]:
    """Cosines under a window that fades towards the edges, where a crop tells most; all but the first sum to 0."""
    place = (np.arange(SIDE) + 0.5) / SIDE
    window = np.cos(np.pi * (place - 0.5) / 1.05) ** 2
    waves = np.cos(np.pi * np.arange(_FREQUENCIES)[:, None] * place) * window
    waves[1:] -= waves[1:].sum(axis=1, keepdims=True) / waves[0].sum() * waves[0]
    return np.asarray(waves / np.linalg.norm(waves, axis=1, keepdims=True), np.float32)


@lru_cache(maxsize=SMALL)
def _cropped_bases(pixels: int) -> NDArray[np.float32]:
    """The basis for a side of so many pixels, cropped in each way of ``_CROPS``: one below the other."""
    bases = [_basis() @ _resampling(before / pixels, 1 - after / pixels) for before, after in _CROPS]
    return np.concatenate(bases).astype(np.float32)


def _resampling(low: float, high: float) -> NDArray[np.float64]:
    """Weights that stretch a part of a side, from 0 to 1, over the whole; beyond the edges the last pixel repeats."""
    place = (low + (np.arange(SIDE) + 0.5) / SIDE * (high - low)) * SIDE - 0.5
    distance = np.abs(np.clip(place, 0, SIDE - 1)[:, None] - np.arange(SIDE))
    return np.asarray(np.maximum(0, 1 - distance))


@lru_cache(maxsize=1)
def _order() -> Indices:
    """The 64 lowest frequencies after the constant, among all pairs."""
    down, right = np.mgrid[:_FREQUENCIES, :_FREQUENCIES]
    return np.argsort((down**2 + right**2 + 0.001 * right).ravel(), kind="stable")[1 : _BITS + 1]


@lru_cache(maxsize=1)
def _view_order() -> Indices:
    """The same frequencies of each view, among all pairs of cropped bases."""
    down, right = np.divmod(_order(), _FREQUENCIES)
    width = len(_CROPS) * _FREQUENCIES
    return np.stack([(a * _FREQUENCIES + down) * width + b * _FREQUENCIES + right for a, b in _VIEWS])
