"""Scan sees what changed, and stays light."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from calotype import params as parameters
from calotype.errors import DataError
from calotype.files import read_json
from calotype.project import Project
from calotype.stages import scan


def scanned(project: Project) -> dict[str, object]:
    scan.run(parameters.load(project.params), project)
    found: dict[str, object] = read_json(project.source_digest)
    return found


def test_an_unchanged_source_gives_equal_bytes(project: Project) -> None:
    first = scanned(project)
    data = project.source_digest.read_bytes()
    assert scanned(project) == first
    assert project.source_digest.read_bytes() == data
    assert (first["source"], first["kind"], first["files"]) == ("data/raw/digits", "folder", 300)
    assert first["bytes"] == sum(path.stat().st_size for path in (project.raw / "digits").rglob("*.pgm"))


@pytest.mark.parametrize("change", ["content", "time", "name", "new", "gone"])
def test_a_changed_file_changes_the_digest(project: Project, change: str) -> None:
    before = scanned(project)["digest"]
    file = next((project.raw / "digits" / "3").iterdir())
    if change == "content":
        file.write_bytes(file.read_bytes() + b"\n")
    elif change == "time":
        os.utime(file, ns=(1, file.stat().st_mtime_ns + 1))
    elif change == "name":
        file.rename(file.with_name("other.pgm"))
    elif change == "new":
        (file.parent / "new.pgm").write_bytes(file.read_bytes())
    else:
        file.unlink()
    assert scanned(project)["digest"] != before


def test_a_missing_source_says_what_to_do(project: Project) -> None:
    text = project.params.read_text().replace("source: data/raw/digits", "source: data/raw/nowhere")
    project.params.write_text(text)
    with pytest.raises(DataError, match=r"data/raw/nowhere.*calotype (fetch|use)"):
        scanned(project)


def test_a_source_of_one_file_is_said_to_be_one(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (project.raw / "digits.zip").write_bytes(b"0" * 40_000)
    text = project.params.read_text().replace("source: data/raw/digits", "source: data/raw/digits.zip")
    project.params.write_text(text)
    scanned(project)
    assert "data/raw/digits.zip: 1 file, 0.0 MB" in capsys.readouterr().err


def test_scan_imports_nothing_heavy() -> None:
    code = "import sys, calotype.stages.scan; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "mlflow", "sklearn", "pandera", "polars", "pyarrow", "numpy", "PIL", "prefect", "dvc", "rich"}
    assert not heavy & set(done.stdout.split())
