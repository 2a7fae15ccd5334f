"""Outputs that dvc.lock names, and the objects that stand for them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from calotype.errors import DataError
from calotype.provenance import dvc_cache
from calotype.provenance.dvc_cache import Member, Output

LOCK = """
schema: '2.0'
stages:
  ingest:
    cmd: bin/calotype ingest
    outs:
    - path: data/dataset
      hash: md5
      md5: FOLDER
      nfiles: 2
  split:
    outs:
    - path: data/splits.parquet
      hash: md5
      md5: 0123456789abcdef0123456789abcdef
    - path: data/old.csv
      hash: md5-dos2unix
      md5: 0123456789abcdef0123456789abcdee
"""


def store(cache: Path, data: bytes, ending: str = "") -> str:
    """Put an object into a cache; return its name."""
    md5 = hashlib.md5(data).hexdigest() + ending
    place = dvc_cache.object_path(cache, md5)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return md5


def folder(cache: Path, files: dict[str, bytes]) -> Output:
    entries = [{"md5": store(cache, data), "relpath": name} for name, data in files.items()]
    return Output("ingest", "data/dataset", store(cache, json.dumps(entries).encode(), dvc_cache.FOLDER))


def test_locked_outputs_are_those_whose_md5_names_an_object() -> None:
    assert dvc_cache.locked(LOCK, where="dvc.lock") == [
        Output("ingest", "data/dataset", "FOLDER"),
        Output("split", "data/splits.parquet", "0123456789abcdef0123456789abcdef"),
    ]


@pytest.mark.parametrize("text", ["a: [", "just text", "stages: {a: {outs: [{hash: md5, md5: x}]}}"])
def test_what_is_no_dvc_lock_is_one_line(text: str) -> None:
    with pytest.raises(DataError, match=r"^its dvc.lock: cannot be read .*Restore it") as error:
        dvc_cache.locked(text, where="its dvc.lock")
    assert "\n" not in str(error.value)


def test_what_is_kept_out_of_the_cache_is_known() -> None:
    text = "stages: {a: {outs: [x, {y: {persist: true}}], metrics: [{m.json: {cache: false}}], plots: [{p.csv: }]}}"
    assert dvc_cache.uncached(text) == {"m.json"}


def test_absent_files_are_named_by_their_paths(tmp_path: Path) -> None:
    output = folder(tmp_path, {"shard-1": b"one", "shard-2": b"two"})
    single = Output("split", "data/splits.parquet", "0123456789abcdef0123456789abcdef")
    assert list(dvc_cache.absent(tmp_path, [output])) == []
    dvc_cache.object_path(tmp_path, store(tmp_path, b"two")).unlink()
    assert list(dvc_cache.absent(tmp_path, [output, single])) == ["data/dataset/shard-2", "data/splits.parquet"]


def test_a_folder_whose_list_is_gone_is_asked_for_elsewhere(tmp_path: Path) -> None:
    output = folder(tmp_path, {"shard-1": b"one", "shard-2": b"two"})
    members = dvc_cache.members(tmp_path, output.md5)
    assert members == [Member("shard-1", store(tmp_path, b"one")), Member("shard-2", store(tmp_path, b"two"))]
    dvc_cache.object_path(tmp_path, output.md5).unlink()
    dvc_cache.object_path(tmp_path, members[1].md5).unlink()
    assert list(dvc_cache.absent(tmp_path, [output], lambda _: members)) == ["data/dataset/shard-2"]
    assert list(dvc_cache.absent(tmp_path, [output])) == [f"data/dataset (the list of its files, {output.md5})"]


def test_a_changed_list_is_no_list(tmp_path: Path) -> None:
    output = folder(tmp_path, {"shard-1": b"one"})
    place = dvc_cache.object_path(tmp_path, output.md5)
    place.write_bytes(place.read_bytes() + b" ")
    assert dvc_cache.members(tmp_path, output.md5) is None


def test_without_dvc_there_is_no_cache(tmp_path: Path) -> None:
    assert dvc_cache.find(tmp_path) is None
