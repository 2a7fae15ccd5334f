import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from calotype.data.decode import decode
from calotype.errors import DataError
from calotype.sources import open_source


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.array([7, 0, 3], np.uint8)


def write_pair(folder: Path, split: str = "train", images: np.ndarray = IMAGES, labels: np.ndarray = LABELS) -> Path:
    folder.mkdir(exist_ok=True)
    dims = images.ndim
    (folder / f"{split}-images-idx{dims}-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (folder / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return folder


def test_idx_files_give_their_pixels_as_pgm(tmp_path: Path) -> None:
    write_pair(tmp_path, "train")
    source = open_source(write_pair(tmp_path, "t10k", IMAGES[:1] + 1, LABELS[:1]))
    assert source.kind == "idx"
    assert [(image.path, image.label, image.split) for image in source.images] == [
        ("test/00000.pgm", "7", "test"),
        ("train/00000.pgm", "7", "train"),
        ("train/00001.pgm", "0", "train"),
        ("train/00002.pgm", "3", "train"),
    ]
    pictures = [decode(data, max_megapixels=1) for _, data, _ in source.read() if data]
    assert np.array_equal(np.stack([np.asarray(picture) for picture in pictures[1:]]), IMAGES)


def test_colour_idx_files_give_ppm(tmp_path: Path) -> None:
    images = np.arange(3 * 2 * 2 * 3, dtype=np.uint8).reshape(3, 2, 2, 3)
    source = open_source(write_pair(tmp_path, images=images))
    data = [data for _, data, _ in source.read()]
    assert source.images[0].path == "train/00000.ppm"
    assert np.array_equal(np.asarray(decode(data[1] or b"", max_megapixels=1)), images[1])


@pytest.mark.parametrize(
    "names",
    [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        ("train-images.idx3-ubyte", "train-labels.idx1-ubyte"),
        ("emnist-letters-train-images-idx3-ubyte", "emnist-letters-train-labels-idx1-ubyte"),
    ],
)
def test_the_usual_names_are_known(tmp_path: Path, names: tuple[str, str]) -> None:
    (tmp_path / names[0]).write_bytes(idx(IMAGES))
    (tmp_path / names[1]).write_bytes(idx(LABELS))
    assert {image.split for image in open_source(tmp_path).images} == {"train"}


def test_a_pair_without_a_split_declares_none(tmp_path: Path) -> None:
    (tmp_path / "images-idx3-ubyte").write_bytes(idx(IMAGES))
    (tmp_path / "labels-idx1-ubyte").write_bytes(idx(LABELS))
    assert next((image.path, image.split) for image in open_source(tmp_path).images) == ("images/00000.pgm", None)


def test_classes_txt_names_the_classes(tmp_path: Path) -> None:
    (write_pair(tmp_path) / "classes.txt").write_text("".join(f"class {index}\n" for index in range(8)))
    assert [image.label for image in open_source(tmp_path).images] == ["class 7", "class 0", "class 3"]


def test_too_few_names_are_refused(tmp_path: Path) -> None:
    (write_pair(tmp_path) / "classes.txt").write_text("shirt\nshoe\n")
    with pytest.raises(DataError, match=r"label 7, but classes\.txt names 2 classes"):
        open_source(tmp_path)


def test_a_name_given_twice_is_refused(tmp_path: Path) -> None:
    (write_pair(tmp_path) / "classes.txt").write_text("shirt\nshirt\n")
    with pytest.raises(DataError, match="a name stands there twice"):
        open_source(tmp_path)


def test_a_missing_half_is_refused_by_name(tmp_path: Path) -> None:
    (write_pair(tmp_path) / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is there, the labels file of train is not"):
        open_source(tmp_path)


def test_two_sets_in_a_folder_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "digits-train")
    with pytest.raises(DataError, match="are of one split"):
        open_source(write_pair(tmp_path, "letters-train"))


def test_plain_and_gzipped_files_of_one_set_are_one_set(tmp_path: Path) -> None:
    (write_pair(tmp_path) / "train-images-idx3-ubyte").write_bytes(idx(IMAGES))
    assert open_source(tmp_path).count == 3


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (idx(IMAGES)[:-1], idx(LABELS), r"59 bytes of data; expected 60 for \(3, 4, 5\)"),
        (idx(IMAGES), idx(LABELS[:2]), "2 labels; expected 3, one per image"),
        (idx(IMAGES, kind=13), idx(LABELS), "not an IDX file of unsigned bytes"),
        (b"", idx(LABELS), "not an IDX file of unsigned bytes"),
        (idx(LABELS), idx(LABELS), r"dimensions \(3,\); expected images×height×width"),
        (idx(IMAGES), idx(IMAGES), r"dimensions \(3, 4, 5\); expected one label per image"),
    ],
)
def test_faulty_idx_files_are_refused(tmp_path: Path, images: bytes, labels: bytes, message: str) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(images)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(labels)
    with pytest.raises(DataError, match=message):
        open_source(tmp_path)


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    path = write_pair(tmp_path) / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="damaged gzip file"):
        open_source(tmp_path)
