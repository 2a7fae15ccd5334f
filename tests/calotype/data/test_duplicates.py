"""Near-duplicates are found through an index, confirmed by pixels, and grouped under leaders."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from calotype.data import duplicates, hamming
from calotype.data.duplicates import (
    CANDIDATES,
    VIEWS,
    Pictures,
    candidates,
    find_twins,
    gather,
    perceptual_hash,
    sketch,
)
from calotype.data.likeness import Comparison, Thumbnails

NONE = np.empty(0, np.uint64)


def drawing(seed: int, *, size: int = 32, mode: str = "RGB") -> Image.Image:
    """A picture of a few smooth blobs, as unlike another seed's as two photographs."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return small.resize((size, size), Image.Resampling.BICUBIC).convert(mode)


def jpeg(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=70)
    return Image.open(buffer).convert(picture.mode)


def smaller(picture: Image.Image) -> Image.Image:
    return picture.resize((round(picture.width * 0.8), round(picture.height * 0.8)), Image.Resampling.BILINEAR)


def brighter(picture: Image.Image) -> Image.Image:
    return picture.point(lambda value: min(255, round(value * 1.02)))


def darker(picture: Image.Image) -> Image.Image:
    return picture.point(lambda value: round(value * 0.98))


def cropped(picture: Image.Image) -> Image.Image:
    return picture.crop((1, 0, picture.width, picture.height))


def cropped_all_round(picture: Image.Image) -> Image.Image:
    return picture.crop((1, 1, picture.width - 1, picture.height - 1))


CHANGES = (jpeg, smaller, brighter, darker, cropped, cropped_all_round)


def source_of(pictures: Sequence[Image.Image], asked: list[int] | None = None) -> Pictures:
    def give(numbers: NDArray[np.int64]) -> Iterator[tuple[int, Image.Image]]:
        if asked is not None:
            asked.extend(numbers.tolist())
        return ((number, pictures[number]) for number in reversed(numbers.tolist()))

    return give


def twins_of(pictures: Sequence[Image.Image]) -> list[tuple[int, ...]]:
    sketches = np.stack([sketch(picture) for picture in pictures])
    twins: list[list[int]] = [[] for _ in pictures]
    for member, leader in zip(*find_twins(NONE, sketches, source_of(pictures)), strict=True):
        twins[member].append(int(leader))
    return [tuple(found) for found in twins]


def are_twins(one: Image.Image, other: Image.Image) -> bool:
    thumbnails = Thumbnails.empty(2)
    thumbnails.put(0, one)
    thumbnails.put(1, other)
    return bool(Comparison(thumbnails).twins(np.array([0]), np.array([1]))[0])


@pytest.mark.parametrize("size", [28, 32, 64, 300])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_slightly_changed_picture_is_a_twin_whichever_came_first(change, mode: str, size: int) -> None:  # type: ignore[no-untyped-def]
    originals = [drawing(seed, size=size, mode=mode) for seed in range(8)]
    copies = [change(picture) for picture in originals]
    expected = [*[()] * 8, *[(place,) for place in range(8)]]
    assert twins_of([*originals, *copies]) == expected
    assert twins_of([*copies, *originals]) == expected


def test_unlike_pictures_are_leaders() -> None:
    assert twins_of([drawing(seed) for seed in range(200)]) == [()] * 200


def test_a_leader_of_an_earlier_drop_is_found_by_its_hash_alone() -> None:
    old, copy, stranger = drawing(1), jpeg(drawing(1)), drawing(2)
    asked: list[int] = []
    sketches = np.stack([sketch(stranger), sketch(copy)])
    hashes = np.array([perceptual_hash(old)], np.uint64)
    member, leader = find_twins(hashes, sketches, source_of([old, stranger, copy], asked))
    assert (member.tolist(), leader.tolist()) == ([2], [0])
    assert asked == [0, 2]


def test_no_picture_is_asked_for_where_no_hashes_are_near() -> None:
    asked: list[int] = []
    sketches = np.stack([sketch(drawing(seed)) for seed in range(5)])
    find_twins(NONE, sketches, source_of([], asked))
    assert asked == []
    member, leader = find_twins(NONE, np.empty((0, VIEWS), np.uint64), source_of([]))
    assert (len(member), len(leader)) == (0, 0)


def test_a_picture_that_is_not_given_is_named() -> None:
    sketches = np.stack([sketch(drawing(1))] * 2)
    with pytest.raises(KeyError, match="no picture of"):
        find_twins(NONE, sketches, lambda _: iter([]))


def shifted(steps: int) -> Image.Image:
    """A picture moved aside by a share of its width; neighbours are twins, the ends of a long row are not."""
    return drawing(5, size=80).crop((steps, 0, steps + 60, 60))


def test_groups_do_not_chain() -> None:
    row = [shifted(step) for step in range(12)]
    found = twins_of(row)
    assert all(are_twins(one, other) for one, other in pairwise(row))
    assert not are_twins(row[0], row[-1])
    leaders = [place for place, twins in enumerate(found) if not twins]
    assert 1 < len(leaders) < 12
    for place, twins in enumerate(found):
        assert all(leader in leaders and are_twins(row[leader], row[place]) for leader in twins)


def test_an_image_between_two_leaders_is_a_member_of_both() -> None:
    image, earlier = np.array([1, 2, 2, 3, 3]), np.array([0, 0, 1, 1, 2])
    member, leader = gather(image, earlier, 0, 4, lambda one, other: (one - other > 1) | (other == 1))
    assert list(zip(member.tolist(), leader.tolist(), strict=True)) == [(2, 0), (2, 1), (3, 1)]


def test_plain_pictures_are_compared_by_brightness_and_colour() -> None:
    plain = [Image.new("L", (28, 28), level) for level in (0, 0, 100, 103, 200)]
    red, blue = Image.new("RGB", (28, 28), (200, 10, 10)), Image.new("RGB", (28, 28), (10, 80, 200))
    assert twins_of([*plain, red, blue, red]) == [(), (0,), (), (2,), (), (), (), (5,)]


def lettered(text: str) -> Image.Image:
    picture = drawing(3, size=120)
    ImageDraw.Draw(picture).text((40, 40), text, fill="white", font_size=44)
    return picture


@pytest.mark.parametrize(
    "other",
    [
        ImageOps.mirror(drawing(3)),
        drawing(3).rotate(90),
        ImageOps.invert(drawing(3)),
        Image.merge("RGB", drawing(3).split()[::-1]),
        drawing(3).crop((6, 0, 32, 32)),
    ],
    ids=["mirrored", "turned", "inverted", "recoloured", "cropped by a fifth"],
)
def test_a_picture_that_was_changed_much_is_no_twin(other: Image.Image) -> None:
    assert are_twins(drawing(3), jpeg(drawing(3)))
    assert not are_twins(drawing(3), other)


def test_another_digit_on_the_same_ground_is_no_twin() -> None:
    assert are_twins(lettered("17"), jpeg(lettered("17")))
    assert not are_twins(lettered("17"), lettered("42"))


@pytest.mark.parametrize("size", [(28, 28), (95, 300), (96, 96), (300, 200)])
def test_a_picture_has_the_sketch_that_it_has_alone(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, size[1], size[0]), np.uint8)
    pictures = [Image.fromarray(pixels) for pixels in noise]
    together = duplicates.sketches([duplicates.small(picture) for picture in pictures])
    assert np.array_equal(together, [duplicates.sketch(picture) for picture in pictures])


@pytest.mark.parametrize("shape", [(32, 32, 3), (32, 32, 1), (40, 32, 3), (120, 100, 1)])
def test_pixels_have_the_sketch_of_their_picture(shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    picture = Image.fromarray(pixels if shape[2] == 3 else pixels[:, :, 0])
    assert np.array_equal(duplicates.sketches([duplicates.small(pixels)])[0], sketch(picture))


def test_a_hash_is_the_first_of_its_sketch_and_large_pictures_have_one_view() -> None:
    small, large = drawing(1), drawing(1, size=200)
    assert sketch(small).shape == (VIEWS,)
    assert perceptual_hash(small) == int(sketch(small)[0])
    assert len(set(sketch(small).tolist())) > 1
    assert len(set(sketch(large).tolist())) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3), (95, 96)])
def test_a_picture_of_any_size_has_a_sketch(size: tuple[int, int]) -> None:
    assert sketch(Image.new("RGB", size, "red")).shape == (VIEWS,)
    assert are_twins(Image.new("L", size, 9), Image.new("L", size, 9))


def brute_force(queries: NDArray[np.uint64], stored: NDArray[np.uint64], radius: int) -> set[tuple[int, int]]:
    near = np.bitwise_count(queries[:, None] ^ stored) <= radius
    return {(int(query), int(other)) for query, other in np.argwhere(near)}


def through_index(queries: NDArray[np.uint64], stored: NDArray[np.uint64], radius: int) -> list[tuple[int, int]]:
    numbers = np.arange(len(queries))
    blocks = [(numbers[:50], queries[:50]), (numbers[50:], queries[50:])]
    found = hamming.near(blocks, stored, radius)
    return [pair for ours, _, theirs in found for pair in zip(ours.tolist(), theirs.tolist(), strict=True)]


def flipped(hashes: NDArray[np.uint64], most: int, rng: np.random.Generator) -> NDArray[np.uint64]:
    for _ in range(most):
        flips = np.uint64(1) << rng.integers(0, 64, len(hashes), dtype=np.uint64)
        hashes = np.where(rng.random(len(hashes)) < 0.7, hashes ^ flips, hashes)
    return hashes


@given(seed=st.integers(0, 2**32 - 1), radius=st.sampled_from([4, 5]), stored_count=st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_the_index_finds_each_near_pair_once_and_no_other(seed: int, radius: int, stored_count: int) -> None:
    rng = np.random.default_rng(seed)
    stored = np.unique(rng.integers(0, 2**64, stored_count, dtype=np.uint64))
    queries = flipped(rng.choice(stored, 80), 8, rng) if len(stored) else rng.integers(0, 9, 5, dtype=np.uint64)
    found = through_index(queries, stored, radius)
    assert len(found) == len(set(found))
    assert set(found) == brute_force(queries, stored, radius)


@pytest.mark.parametrize("radius", [4, 5])
def test_the_index_is_exact_where_hashes_crowd(radius: int) -> None:
    rng = np.random.default_rng(0)
    stored = np.unique(flipped(np.zeros(900, np.uint64), 6, rng))
    queries = flipped(np.zeros(300, np.uint64), 6, rng)
    found = through_index(queries, stored, radius)
    assert len(found) == len(set(found))
    assert set(found) == brute_force(queries, stored, radius)


def views(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return np.broadcast_to(hashes[:, None], (len(hashes), VIEWS))


def test_equal_hashes_cost_each_image_a_bounded_number_of_candidates() -> None:
    image, earlier = candidates(NONE, views(np.zeros(20_000, np.uint64)))
    assert len(image) <= 20_000 * CANDIDATES
    assert np.bincount(image)[1:].min() > 0
    assert (earlier < image).all()


@pytest.mark.parametrize("says", [True, False])
def test_equal_hashes_are_grouped_without_comparing_all_pairs(says: bool) -> None:
    count = 20_000
    asked: list[int] = []

    def confirm(one: NDArray[np.int64], _: NDArray[np.int64]) -> NDArray[np.bool_]:
        asked.append(len(one))
        return np.full(len(one), says)

    pairs = candidates(NONE, views(np.full(count, 7, np.uint64)))
    member, leader = gather(*pairs, 0, count, confirm)
    assert member.tolist() == (list(range(1, count)) if says else [])
    assert set(leader.tolist()) == ({0} if says else set())
    assert sum(asked) <= count * CANDIDATES


def test_a_leader_beyond_the_nearest_candidates_is_met_through_its_members() -> None:
    count = 30 * CANDIDATES
    hashes = flipped(np.zeros(count, np.uint64), 2, np.random.default_rng(1))
    hashes[0] = np.uint64(0b11)
    member, leader = gather(*candidates(NONE, views(hashes)), 0, count, lambda one, _: np.ones(len(one), np.bool_))
    assert len(set(member.tolist())) == count - 1
    assert set(leader.tolist()) == {0}


@given(seed=st.integers(0, 2**32 - 1), known=st.integers(0, 40))
@settings(max_examples=30, deadline=None)
def test_every_member_matches_a_leader_and_no_leader_is_a_member(seed: int, known: int) -> None:
    rng = np.random.default_rng(seed)
    count = 600
    hashes = flipped(np.zeros(count, np.uint64), 7, rng)
    image, earlier = candidates(hashes[:known], views(hashes[known:]))
    proposed = set(zip(image.tolist(), earlier.tolist(), strict=True))
    assert all(other < one and one >= known for one, other in proposed)

    def confirm(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.bool_]:
        return (one * 7 + other * 13) % 5 < 2

    member, leader = gather(image, earlier, known, count, confirm)
    assert not set(member.tolist()) & set(leader.tolist())
    assert (leader < member).all()
    assert confirm(member, leader).all()
    leads = set(range(count)) - set(member.tolist())
    for one, other in proposed:
        if other in leads and one in leads:
            assert not confirm(np.array([one]), np.array([other]))[0]


def test_equal_input_gives_equal_groups() -> None:
    pictures = [change(drawing(seed)) for seed in range(6) for change in CHANGES]
    assert twins_of(pictures) == twins_of(pictures)
