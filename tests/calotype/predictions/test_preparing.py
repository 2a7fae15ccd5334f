"""Batches are read and decoded no further ahead than there are workers, and each file's fault stays its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from calotype.params import ImageParams
from calotype.predictions.incoming import Folder, NotNowError, Waiting, read_file
from calotype.predictions.preparing import Form, in_order, prepare

GREY = ImageParams(size=8, channels=1, resize="stretch")
COLOUR = ImageParams(size=16, channels=3, resize="stretch")


def test_waiting_images_are_taken_up_no_further_ahead_than_there_are_workers() -> None:
    taken = 0

    def endless() -> Iterator[Waiting]:
        nonlocal taken
        while True:
            taken += 1
            yield Waiting("digit-0.png", None)

    batches = in_order(endless(), len, batch_size=4, workers=2)
    assert [next(batches) for _ in range(5)] == [4] * 5
    assert taken <= (5 + 2) * 4
    batches.close()  # type: ignore[attr-defined]


def test_results_come_in_order_though_a_later_batch_is_done_first() -> None:
    second_done = threading.Event()

    def work(batch: list[Waiting]) -> str:
        if batch[0].path == "0":
            assert second_done.wait(timeout=30)
        second_done.set()
        return batch[0].path

    waiting = [Waiting(str(number), None) for number in range(4)]
    assert list(in_order(waiting, work, batch_size=1, workers=2)) == ["0", "1", "2", "3"]


def test_an_answered_content_is_not_decoded(fifteen_files: Path) -> None:
    waiting = Waiting("digit-0.png", fifteen_files / "digit-0.png")
    other = Waiting("digit-1.png", fifteen_files / "digit-1.png")
    form = Form((GREY,), 1)
    (image_id,) = prepare([waiting], form, read_file).image_ids
    found = prepare([waiting, other], form, read_file, {image_id})
    assert found.is_answered == [True, False]
    assert found.is_decoded.tolist() == [False, True]
    assert len(found.pixels[GREY]) == 1


def test_each_form_has_the_pixels_that_it_has_alone(fifteen_files: Path) -> None:
    waiting = list(Folder(fifteen_files))
    both = prepare(waiting, Form((GREY, COLOUR), 1), read_file)
    for image in (GREY, COLOUR):
        alone = prepare(waiting, Form((image,), 1), read_file)
        assert alone.pixels[image].shape == (10, image.channels, image.size, image.size)
        np.testing.assert_array_equal(both.pixels[image], alone.pixels[image])


def test_a_file_that_is_not_to_be_had_now_gets_no_row_and_is_counted(fifteen_files: Path) -> None:
    def read(waiting: Waiting, most: int) -> bytes:
        if waiting.path == "digit-3.png":
            raise NotNowError
        return read_file(waiting, most)

    found = prepare(list(Folder(fifteen_files)), Form((GREY,), 1), read)
    assert (len(found.waiting), found.left) == (14, 1)
    assert "digit-3.png" not in [one.path for one in found.waiting]
