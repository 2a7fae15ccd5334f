"""Every file gets its turn, in a fixed order, whatever it is; only litter does not count."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from calotype.errors import DataError, UsageError
from calotype.predictions import incoming
from calotype.predictions.incoming import Folder, Unreadable, open_incoming, read


def paths(source: Folder | incoming.Table) -> list[str]:
    return [waiting.path for waiting in source]


def test_files_come_sorted_by_path_through_all_folders_without_hidden_files_and_litter(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.png", "a.png", "c.txt", ".hidden/x.png", ".DS_Store", "Thumbs.db", "__MACOSX/y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = open_incoming(tmp_path)
    assert paths(found) == ["a.png", "b/1.png", "b/2.png", "c.txt"]
    assert found.count() == 4


def test_the_output_is_not_read_as_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "out.csv").write_bytes(b"from the last time")
    assert paths(open_incoming(tmp_path, leave_out=tmp_path / "out.csv")) == ["a.png"]
    monkeypatch.chdir(tmp_path)
    assert paths(open_incoming(Path(), leave_out=Path("out.csv"))) == ["a.png"]


def test_a_folder_named_like_an_image_is_reported_and_its_images_are_still_read(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").mkdir()
    (tmp_path / "holiday.jpg" / "a.png").write_bytes(b"x")
    first, second = open_incoming(tmp_path)
    assert (first.path, first.file, first.problem.partition(":")[0]) == ("holiday.jpg", None, "not-a-file")
    assert second.path == "holiday.jpg/a.png"


def test_a_link_to_a_folder_is_reported_not_followed(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    (waiting,) = open_incoming(tmp_path)
    assert waiting.problem == "not-a-file: a link to a folder, which is not followed"


def test_a_name_that_is_not_utf8_is_shown_with_escapes_and_rejected(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))).write_bytes(b"x")
    (waiting,) = open_incoming(tmp_path)
    assert waiting.path == "caf\\xe9.png"
    assert waiting.problem == "bad-name: the name is not UTF-8. Rename the file"


def test_reading_says_what_a_file_is_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "large.png").write_bytes(b"x" * 11)
    found = {}
    for name in ("pipe.png", "link.png", "large.png", "absent.png"):
        with pytest.raises(Unreadable) as caught:
            read(tmp_path / name, max_bytes=10)
        found[name] = (caught.value.code, caught.value.reason)
    assert found == {
        "pipe.png": ("not-a-file", "neither a file nor a link to one"),
        "link.png": ("broken-link", "a link to nothing"),
        "large.png": ("too-large", "11 bytes; expected at most 10"),
        "absent.png": ("missing", "no such file"),
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(Unreadable) as caught:
        read(tmp_path / "a.png", max_bytes=10)
    assert (caught.value.code, caught.value.reason) == ("unreadable", "Permission denied")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_tables_paths_start_at_its_folder_and_keep_its_order(tmp_path: Path, suffix: str) -> None:
    frame = pl.DataFrame({"id": [3, 1, 2], "path": ["z.png", None, "a.png"]})
    table = tmp_path / f"list{suffix}"
    frame.write_csv(table) if suffix == ".csv" else frame.write_parquet(table)
    rows = list(open_incoming(table))
    assert [row.file for row in rows] == [tmp_path / "z.png", None, tmp_path / "a.png"]
    assert rows[1].problem == "missing: row 2 of the table has no path"


def test_numbers_as_file_names_stay_what_the_table_says(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path\n007\n1e5\n")
    assert paths(open_incoming(tmp_path / "list.csv")) == ["007", "1e5"]


def test_a_source_of_no_known_form_is_refused_by_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"no such folder or table\. Name a folder"):
        open_incoming(tmp_path / "absent")
    with pytest.raises(UsageError, match=r"a file that is no table; expected a folder .* name its folder"):
        open_incoming(tmp_path / "cat.jpg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file,label\na,b\n", r"found the columns file, label; expected one named `path`"),
        (b"path\n\xff\xfe\n", r"cannot be read as a table"),
        (b"", r"cannot be read as a table"),
    ],
)
def test_a_table_that_cannot_be_used_is_a_data_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_incoming(tmp_path / "list.csv").count()
