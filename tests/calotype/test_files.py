"""Writes are whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from calotype import files


def test_a_write_that_fails_leaves_the_old_content_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(ZeroDivisionError), files.replacing(path) as temporary:
        temporary.write_text(f"half {1 // 0}")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for names in (("a", "b"), ("c",)):
        with files.replacing(folder) as temporary:
            temporary.mkdir()
            for name in names:
                (temporary / name).write_text(name)
    assert [path.name for path in folder.iterdir()] == ["c"]
    assert list(tmp_path.iterdir()) == [folder]


def test_equal_values_give_equal_json(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a", {"b": 1, "a": "é"})
    files.write_json(tmp_path / "b", {"a": "é", "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert files.read_json(tmp_path / "a") == {"a": "é", "b": 1}


def test_what_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        files.write_json(tmp_path / "a", {"x": float("nan")})
    assert not (tmp_path / "a").exists()
