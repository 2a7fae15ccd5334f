import gzip
import io
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.errors import DataError
from calotype.sources import archive, open_source
from calotype.sources.archive import REPEATED, UNSAFE, open_archive, safe_name
from calotype.sources.listing import HIDDEN, SPECIAL, SYSTEM_LITTER

PETS = {"pets/cat/1.jpg": b"one", "pets/cat/2.jpg": b"two", "pets/dog/1.jpg": b"three"}


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return path


def write_tar(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as packed:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    return path


def write(path: Path, files: Mapping[str, bytes]) -> Path:
    modes = {".tar": "w", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}
    return write_zip(path, files) if path.suffix == ".zip" else write_tar(path, files, modes[path.suffix])


def contents(path: Path) -> dict[str, bytes | None]:
    return {image.path: data for image, data, _ in open_source(path).read()}


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz", "a.tar.bz2", "a.tar.xz"])
def test_an_archive_reads_as_the_folder_in_it(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, dict(reversed(PETS.items())))
    before = path.read_bytes()
    source = open_source(path, cache=tmp_path / "cache")
    assert source.kind == ("zip:folder" if name == "a.zip" else "tar:folder")
    assert [(image.path, image.label, data) for image, data, _ in source.read()] == [
        ("pets/cat/1.jpg", "cat", b"one"),
        ("pets/cat/2.jpg", "cat", b"two"),
        ("pets/dog/1.jpg", "dog", b"three"),
    ]
    assert path.read_bytes() == before
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_an_archive_may_hold_splits_a_table_or_idx_files(tmp_path: Path, name: str) -> None:
    splits = {"x/train/cat/1": b"1", "x/train/dog/1": b"2", "x/valid/cat/1": b"3"}
    assert open_source(write(tmp_path / name, splits)).kind == f"{name[2:]}:split-folders"
    table = {"x/labels.csv": b"path,label\na/1.jpg,cat\n../../etc/passwd,dog\n", "x/a/1.jpg": b"image"}
    source = open_source(write(tmp_path / name, table))
    assert [(data, reason) for _, data, reason in source.read()] == [(None, "not in the archive"), (b"image", "")]
    idx = {"train-images-idx3-ubyte": b"\0\0\x08\3" + struct.pack(">3I", 1, 1, 1) + b"\7"}
    idx["train-labels-idx1-ubyte.gz"] = gzip.compress(b"\0\0\x08\1" + struct.pack(">I", 1) + b"\5")
    assert contents(write(tmp_path / name, idx)) == {"train/00000.pgm": b"P5\n1 1\n255\n\7"}


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_names_that_lead_outside_are_never_used(tmp_path: Path, name: str) -> None:
    bad = dict.fromkeys(["../../cat/3.jpg", "/cat/4.jpg", "C:/cat/5.jpg", "cat/../../6.jpg"], b"bad")
    source = open_source(write(tmp_path / name, {"cat/1.jpg": b"one", "dog/1.jpg": b"two"} | bad))
    assert [image.path for image in source.images] == ["cat/1.jpg", "dog/1.jpg"]
    assert source.ignored == {UNSAFE: 4}


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_litter_in_archives_is_left_out_and_counted(tmp_path: Path, name: str) -> None:
    litter = {"__MACOSX/pets/cat/._1.jpg": b"", "pets/.DS_Store": b"", "pets/cat/.hidden/1.jpg": b""}
    source = open_source(write(tmp_path / name, PETS | litter))
    assert source.count == 3
    assert source.ignored == {SYSTEM_LITTER: 2, HIDDEN: 1}


def test_backslashes_of_a_windows_zip_are_slashes(tmp_path: Path) -> None:
    assert set(contents(write(tmp_path / "a.zip", {"cat\\1.jpg": b"1", "dog\\1.jpg": b"2"}))) == {
        "cat/1.jpg",
        "dog/1.jpg",
    }


def test_links_and_devices_in_a_tar_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", PETS)
    with tarfile.open(path, "a") as packed:
        for index, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)):
            info = tarfile.TarInfo(f"pets/cat/link{index}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            packed.addfile(info)
    source = open_source(path)
    assert (source.count, source.ignored) == (3, {SPECIAL: 4})


def test_links_in_a_zip_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", PETS)
    link = zipfile.ZipInfo("pets/cat/link.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr(link, "/etc/passwd")
    assert open_source(path).ignored == {SPECIAL: 1}


def test_of_a_repeated_name_the_last_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", PETS)
    with tarfile.open(path, "a") as packed:
        info = tarfile.TarInfo("pets/cat/1.jpg")
        info.size = 3
        packed.addfile(info, io.BytesIO(b"new"))
    source = open_source(path)
    assert contents(path)["pets/cat/1.jpg"] == b"new"
    assert source.ignored == {REPEATED: 1}


def test_empty_class_folders_of_archives_are_reported(tmp_path: Path) -> None:
    assert open_source(write_zip(tmp_path / "a.zip", {"cat/1.jpg": b"1", "dog/": b""})).empty_classes == ("dog",)


def test_a_damaged_member_is_one_unreadable_image(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"cat/1.jpg": bytes(range(256)), "dog/1.jpg": b"fine"})
    damaged = bytearray(path.read_bytes())
    damaged[60] ^= 255
    path.write_bytes(damaged)
    outcome = {image.path: (data, reason) for image, data, reason in open_source(path).read()}
    assert outcome["dog/1.jpg"] == (b"fine", "")
    assert outcome["cat/1.jpg"][0] is None
    assert outcome["cat/1.jpg"][1].startswith("damaged in the archive: ")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz", "a.tar.bz2", "a.tar.xz"])
def test_an_archive_cut_short_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, {f"cat/{index}.jpg": bytes(900) + str(index).encode() for index in range(40)})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 // 512 * 512 + 700 if name == "a.tar" else -40])
    with pytest.raises(DataError, match="damaged archive"):
        open_source(path)


def test_a_damaged_header_in_a_tar_is_refused_not_taken_for_the_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {f"cat/{index}.jpg": b"x" for index in range(9)})
    damaged = bytearray(path.read_bytes())
    damaged[4 * 1024] ^= 255
    path.write_bytes(damaged)
    with tarfile.open(path) as packed:
        assert len(packed.getmembers()) == 4
    with pytest.raises(DataError, match=r"no valid header at byte 4,096\)\. Copy or download it again"):
        open_source(path)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"cat/1.jpg": b"1"})
    packed = bytearray(path.read_bytes())
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(packed)
    with pytest.raises(DataError, match=r"is encrypted\. Unpack it into a folder"):
        open_source(path)


@pytest.mark.parametrize(("magic", "kind"), [(b"7z\xbc\xaf\x27\x1c", "7-Zip"), (b"Rar!", "RAR")])
def test_archives_of_other_kinds_are_refused_by_name(tmp_path: Path, magic: bytes, kind: str) -> None:
    (tmp_path / "a").write_bytes(magic)
    with pytest.raises(DataError, match=f"a {kind} file; expected a zip or a tar"):
        open_source(tmp_path / "a")


def test_a_compressed_file_that_is_no_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv.gz").write_bytes(gzip.compress(b"path,label\n" * 100))
    with pytest.raises(DataError, match="a gzip file that holds no tar"):
        open_source(tmp_path / "labels.csv.gz")


@pytest.mark.parametrize("name", ["a.zip", "a.tgz"])
def test_an_archive_that_unpacks_beyond_proportion_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(archive, "BOMB_BYTES", 2**20)
    path = write(tmp_path / name, {"cat/1.jpg": bytes(4 * 2**20), "dog/1.jpg": b"1"})
    with pytest.raises(DataError, match="unpacks to more than 200 times"):
        open_source(path)


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_a_member_too_large_for_an_image_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 2**20)
    path = write(tmp_path / name, {"cat/1.jpg": bytes(2**20 + 1), "dog/1.jpg": b"1"})
    assert list(contents(path).values()) == [None, b"1"]


parts = st.sampled_from(["..", ".", "", "cat", "dog", "C:", "\\", "\\..\\", "~", "a\nb", "é", "/"])


@given(st.lists(st.lists(parts, min_size=1, max_size=5).map("/".join).filter(bool), min_size=1, unique=True))
def test_no_member_name_leads_out_of_the_archive(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.zip", "a.tar"):
            _, tree = open_archive(write(Path(folder, name), dict.fromkeys(names, b"x")), None)
            for path in (*tree.files, *tree.folders):
                assert not path.startswith("/")
                assert ".." not in path.split("/")
                assert safe_name(path) == path
            assert {tree.read(path) for path in tree.files} <= {b"x"}
