import functools
import gzip
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from calotype import fetch as fetching
from calotype.data.decode import decode
from calotype.errors import CalotypeError, DataError, UsageError
from calotype.fetch import FASHION_CLASSES, FASHION_FILES, fetch
from calotype.project import Project
from calotype.sources import open_source

CONTENTS = {
    "train-images-idx3-ubyte.gz": b"\0\0\x08\3\0\0\0\2\0\0\0\1\0\0\0\1\x07\x08",
    "train-labels-idx1-ubyte.gz": b"\0\0\x08\1\0\0\0\2\x09\x00",
    "t10k-images-idx3-ubyte.gz": b"\0\0\x08\3\0\0\0\1\0\0\0\1\0\0\0\1\x06",
    "t10k-labels-idx1-ubyte.gz": b"\0\0\x08\1\0\0\0\1\x01",
}


@pytest.fixture
def empty(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three images in the form of Fashion-MNIST, for which the digests are set; no Debian package."""
    folder = tmp_path / "origin"
    folder.mkdir()
    for name, data in CONTENTS.items():
        (folder / name).write_bytes(gzip.compress(data))
        monkeypatch.setitem(FASHION_FILES, name, hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(fetching, "DEBIAN_FOLDER", tmp_path / "absent")
    return folder


@pytest.fixture
def website(origin: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(origin))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(fetching, "OFFICIAL", address)
        yield address
        server.shutdown()


def test_digits_are_those_of_scikit_learn_over_the_whole_range(empty: Project) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    source = open_source(fetch(empty, "digits"))
    assert source.kind == "folder"
    images = {image.path: (image.label, data) for image, data, _ in source.read()}
    assert len(images) == 1797
    for index in (0, 900, 1796):
        label, data = images[f"{digits.target[index]}/{index:04d}.pgm"]
        pixels = np.asarray(decode(data or b"", max_megapixels=1))
        assert label == str(digits.target[index])
        assert np.array_equal(pixels, np.round(digits.images[index] / 16 * 255))
    assert max(max(data[-64:]) for _, data in images.values() if data) == 255


def test_a_set_that_is_there_is_left_alone(empty: Project, capsys: pytest.CaptureFixture[str]) -> None:
    added = fetch(empty, "digits") / "3" / "mine.pgm"
    added.write_bytes(b"P5\n1 1\n255\n\0")
    fetch(empty, "digits")
    assert added.exists()
    assert capsys.readouterr().err.splitlines() == [
        "fetch: 1,797 images from scikit-learn's load_digits are in data/raw/digits",
        "fetch: data/raw/digits is there already",
    ]


def test_fashion_mnist_comes_from_a_folder_with_the_names_of_its_classes(
    empty: Project, origin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fetch(empty, "fashion-mnist", origin)
    assert str(origin) in capsys.readouterr().err
    assert {path.name for path in folder.iterdir()} == {*FASHION_FILES, "classes.txt"}
    assert [(image.label, image.split) for image in open_source(folder).images] == [
        ("Trouser", "test"),
        ("Ankle boot", "train"),
        ("T-shirt/top", "train"),
    ]


def test_unpacked_files_serve_as_well(empty: Project, origin: Path) -> None:
    for name, data in CONTENTS.items():
        (origin / name).unlink()
        (origin / name.removesuffix(".gz")).write_bytes(data)
    assert open_source(fetch(empty, "fashion-mnist", origin)).count == 3


def test_the_debian_package_is_used_where_it_is_installed(
    empty: Project, origin: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetching, "DEBIAN_FOLDER", origin)
    fetch(empty, "fashion-mnist")
    assert "(Debian package dataset-fashion-mnist)" in capsys.readouterr().err


def test_else_the_official_address_is_used(empty: Project, website: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert open_source(fetch(empty, "fashion-mnist")).count == 3
    assert f"from {website}" in capsys.readouterr().err


def test_a_file_that_is_not_the_published_one_is_refused_and_nothing_written(empty: Project, origin: Path) -> None:
    (origin / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"other"))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz from .* is not the published file"):
        fetch(empty, "fashion-mnist", origin)
    assert not (empty.raw / "fashion-mnist").exists()


def test_a_folder_without_the_files_is_refused(empty: Project, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no train-images-idx3-ubyte\.gz; expected the four files"):
        fetch(empty, "fashion-mnist", tmp_path)


@pytest.mark.usefixtures("origin")
def test_an_unreachable_address_says_what_else_serves(empty: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "OFFICIAL", "http://127.0.0.1:9/")
    with pytest.raises(CalotypeError, match=r"cannot be reached .*Debian package .*--from FOLDER") as caught:
        fetch(empty, "fashion-mnist")
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("website")
def test_a_file_that_the_address_lacks_is_an_error(empty: Project, origin: Path) -> None:
    (origin / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(CalotypeError, match="cannot be reached"):
        fetch(empty, "fashion-mnist")


def test_unknown_sets_are_refused(empty: Project) -> None:
    with pytest.raises(UsageError, match=r"no public set 'mnist'; expected digits or fashion-mnist"):
        fetch(empty, "mnist")


def test_digits_come_from_no_folder(empty: Project, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Leave it out"):
        fetch(empty, "digits", tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not fetching.DEBIAN_FOLDER.is_dir(), reason="Debian's package dataset-fashion-mnist is not here")
def test_debians_fashion_mnist_is_the_published_one(empty: Project) -> None:
    source = open_source(fetch(empty, "fashion-mnist"))
    assert source.count == 70_000
    assert {image.label for image in source.images} == set(FASHION_CLASSES)
