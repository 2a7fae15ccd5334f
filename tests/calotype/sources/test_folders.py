import os
import stat
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.errors import DataError
from calotype.sources import SourceImage, open_source
from calotype.sources.contract import Tree
from calotype.sources.folders import recognise
from calotype.sources.listing import HIDDEN, LOOP, SPECIAL, SYSTEM_LITTER

Plant = Callable[..., Path]


def read_all(folder: Path) -> dict[str, bytes | None]:
    return {image.path: data for image, data, _ in open_source(folder).read()}


def test_folders_are_classes_and_files_below_them_their_images(plant: Plant) -> None:
    source = open_source(plant("dog/1.jpg", "cat/2.jpg", "cat/deep/er/3.jpg"))
    assert source.kind == "folder"
    assert tuple(source.images) == (
        SourceImage("cat/2.jpg", "cat"),
        SourceImage("cat/deep/er/3.jpg", "cat"),
        SourceImage("dog/1.jpg", "dog"),
    )
    assert [data for _, data, _ in source.read()] == [b"cat/2.jpg", b"cat/deep/er/3.jpg", b"dog/1.jpg"]
    assert source.count == 3


@pytest.mark.parametrize("val", ["val", "validation", "valid", "Validation", "dev"])
def test_split_folders_keep_their_split(plant: Plant, val: str) -> None:
    source = open_source(plant("train/cat/1.jpg", "train/dog/1.jpg", f"{val}/cat/2.jpg", "test/dog/3.jpg"))
    assert source.kind == "split-folders"
    assert {(image.label, image.split) for image in source.images} == {
        ("cat", "train"),
        ("dog", "train"),
        ("cat", "val"),
        ("dog", "test"),
    }


def test_a_lone_train_folder_declares_a_split(plant: Plant) -> None:
    source = open_source(plant("train/cat/1.jpg", "train/dog/1.jpg"))
    assert {image.split for image in source.images} == {"train"}


def test_a_class_may_be_called_train(plant: Plant) -> None:
    source = open_source(plant("train/1.jpg", "bus/1.jpg", "car/1.jpg"))
    assert source.kind == "folder"
    assert {image.label for image in source.images} == {"bus", "car", "train"}


def test_a_wrapping_folder_is_looked_through(plant: Plant) -> None:
    source = open_source(plant("README.md", "pets/LICENSE", "pets/cat/1.jpg", "pets/dog/1.jpg"))
    assert tuple(source.images) == (SourceImage("pets/cat/1.jpg", "cat"), SourceImage("pets/dog/1.jpg", "dog"))
    assert source.ignored == {"outside the class folders": 2}


def test_a_single_class_is_no_wrapping_folder(plant: Plant) -> None:
    source = open_source(plant("cat/1.jpg", "cat/more/2.jpg"))
    assert {image.label for image in source.images} == {"cat"}


def test_hidden_files_and_litter_are_left_out_and_counted(plant: Plant) -> None:
    source = open_source(
        plant("cat/1.jpg", "cat/.hidden", ".git/config", "cat/Thumbs.db", "cat/._1.jpg", "__MACOSX/cat/1.jpg", "dog/1")
    )
    assert [image.path for image in source.images] == ["cat/1.jpg", "dog/1"]
    assert source.ignored == {HIDDEN: 2, SYSTEM_LITTER: 3}


def test_files_that_are_no_images_are_named_so_that_ingest_can_reject_them(plant: Plant) -> None:
    assert "cat/notes.txt" in read_all(plant("cat/notes.txt", "cat/1.jpg", "dog/1.jpg"))


def test_empty_class_folders_are_reported(plant: Plant) -> None:
    assert open_source(plant("cat/1.jpg", "dog/")).empty_classes == ("dog",)
    assert open_source(plant("train/cat/1", "train/dog/1", "test/dog/", root="b")).empty_classes == ("test/dog",)


def test_split_folders_beside_others_are_refused_by_name(plant: Plant) -> None:
    with pytest.raises(DataError, match=r"extra/ beside test/, train/; expected train/, val/ and test/ alone"):
        open_source(plant("train/cat/1.jpg", "test/cat/2.jpg", "extra/cat/3.jpg"))


def test_folder_links_are_followed_but_never_in_circles(plant: Plant, tmp_path: Path) -> None:
    folder = plant("cat/1.jpg", "dog/1.jpg")
    plant("2.jpg", root="elsewhere")
    (folder / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "cat" / "back").symlink_to(folder)
    (folder / "cat" / "self").symlink_to("self")
    found = read_all(folder)
    assert set(found) == {"cat/1.jpg", "cat/more/2.jpg", "cat/self", "dog/1.jpg"}
    assert found["cat/self"] is None
    assert open_source(folder).ignored == {LOOP: 1}


def test_folder_links_that_cross_each_other_end(plant: Plant) -> None:
    names = [f"class{index}" for index in range(6)]
    folder = plant(*(f"{name}/1.jpg" for name in names))
    for name in names:
        for other in names:
            if other != name:
                (folder / name / f"to-{other}").symlink_to(folder / other)
    assert open_source(folder).ignored[LOOP] > 0


def test_a_linked_source_reads_as_the_folder_itself(plant: Plant, tmp_path: Path) -> None:
    folder = plant("cat/1.jpg", "dog/1.jpg")
    (tmp_path / "link").symlink_to(folder)
    assert read_all(tmp_path / "link") == read_all(folder)


def test_a_broken_link_is_one_unreadable_image(plant: Plant) -> None:
    folder = plant("cat/1.jpg", "dog/1.jpg")
    (folder / "cat" / "2.jpg").symlink_to("nowhere.jpg")
    reasons = {image.path: reason for image, data, reason in open_source(folder).read() if data is None}
    assert reasons == {"cat/2.jpg": "No such file or directory"}


def test_a_file_that_vanishes_is_one_unreadable_image(plant: Plant) -> None:
    folder = plant("cat/1.jpg", "dog/1.jpg")
    source = open_source(folder)
    (folder / "cat/1.jpg").unlink()
    assert [data for _, data, _ in source.read()] == [None, b"dog/1.jpg"]


def test_devices_and_pipes_are_left_out(plant: Plant) -> None:
    folder = plant("cat/1.jpg", "dog/1.jpg")
    os.mkfifo(folder / "cat" / "pipe")
    assert open_source(folder).ignored == {SPECIAL: 1}


def test_files_too_large_for_an_image_are_not_read(plant: Plant) -> None:
    folder = plant("cat/1.jpg", "dog/1.jpg")
    with (folder / "cat/1.jpg").open("wb") as file:
        file.truncate(2**28 + 1)
    assert next(open_source(folder).read())[1:] == (None, "larger than 256 MiB")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_an_error_not_a_gap(plant: Plant) -> None:
    folder = plant("cat/1.jpg", "dog/1.jpg")
    (folder / "cat").chmod(0)
    try:
        with pytest.raises(DataError, match="cannot be listed"):
            open_source(folder)
    finally:
        (folder / "cat").chmod(stat.S_IRWXU)


def test_names_that_are_not_utf8_are_escaped_and_read(plant: Plant) -> None:
    folder = plant("cat/1.jpg", "dog/1.jpg")
    (folder / "cat" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"coffee")
    found = read_all(folder)
    assert found["cat/caf\\xe9.jpg"] == b"coffee"
    assert all(path.encode() for path in found)


def test_two_spellings_of_an_accent_are_one_class(plant: Plant) -> None:
    composed, apart = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))
    source = open_source(plant(f"train/{composed}/1.jpg", f"test/{apart}/2.jpg", "train/tea/1.jpg"))
    assert {image.label for image in source.images} == {composed, "tea"}


names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=4)


@given(st.lists(st.tuples(names, names), min_size=1, unique=True), st.randoms())
def test_the_order_of_files_does_not_matter(pairs: list[tuple[str, str]], random: object) -> None:
    files = [f"class-{label}/{name}" for label, name in pairs]
    shuffled = sorted(files, key=lambda _: random.random())  # type: ignore[attr-defined]
    one, other = (
        recognise(Tree("tree", tuple(order), (), {}, lambda path: path.encode())) for order in (files, shuffled)
    )
    assert one is not None
    assert other is not None
    assert list(one.images) == list(other.images)
    assert len(one.images) == len(files)
