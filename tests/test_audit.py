"""The audit in a whole project: run by its own file, left alone by the line, and its list given back."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from calotype.data.dataset import read_manifest
from calotype.project import Project
from tests.conftest import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

AUDIT = {"folds: 4": "folds: 3", "epochs: 20": "epochs: 12", "batch_size: 64": "batch_size: 16"}
FLIPS = {f"{label}/0000.pgm": (label + 1) % 10 for label in range(10)}
"""Files that a person put into the wrong folder, and that folder."""


@pytest.fixture
def line(reproduced: Project, tmp_path: Path) -> Project:
    """A copy of a reproduced project, its DVC cache included."""
    shutil.copytree(reproduced.root, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


def edit(project: Project, changes: dict[str, str]) -> None:
    text = project.params.read_text(encoding="utf-8")
    for old, new in changes.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    project.params.write_text(text, encoding="utf-8")


def repro(project: Project, *arguments: str) -> str:
    done = run(project, "dvc", "repro", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_audit_finds_wrong_labels_and_takes_the_right_ones_back(line: Project) -> None:
    assert "audit" not in repro(line)
    assert not (line.reports / "suspects.csv").exists()
    folder = line.root / "data" / "raw" / "digits"
    for path, wrong in FLIPS.items():
        shutil.move(folder / path, folder / str(wrong) / f"flip-{path[0]}.pgm")
    edit(line, AUDIT)
    said = repro(line, "audit/dvc.yaml")
    assert "audit: fold 3/3" in said
    assert "Running stage 'train'" not in said
    with (line.reports / "suspects.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    audited = [row for row in rows if "flip-" in row["path"]]
    assert len(audited) >= 5
    first = [row for row in audited if int(row["rank"]) <= 2 * len(FLIPS)]
    assert len(first) >= 0.8 * len(audited)
    for row in audited:
        row["corrected"] = row["path"].rpartition("flip-")[2][0]
    with (line.root / "corrections.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    edit(line, {"corrections: none": "corrections: corrections.csv"})
    repro(line, "split")
    labels = dict(read_manifest(line.dataset).select("image_id", "label").iter_rows())
    assert {labels[row["image_id"]] for row in audited} == {row["corrected"] for row in audited}


def test_the_audit_outside_dvc_is_refused_and_names_its_file(line: Project) -> None:
    done = run(line, "calotype", "audit")
    assert done.returncode == 2
    assert "Run `dvc repro audit/dvc.yaml`" in done.stderr
