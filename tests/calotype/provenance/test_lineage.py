"""A stage runs under DVC alone, once at a time, on inputs that stay as they were."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import calotype
from calotype.errors import CalotypeError, UsageError
from calotype.project import Project
from calotype.provenance import lineage

DVC_YAML = """
stages:
  train:
    cmd: bin/calotype train
    params: [train, name]
    deps: [calotype/code.py, data/dataset]
"""


@pytest.fixture
def small(tmp_path: Path) -> Project:
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    (tmp_path / "params.yaml").write_text("name: a\ntrain:\n  lr: 0.1\nother: 1\n")
    (tmp_path / "calotype").mkdir()
    (tmp_path / "calotype" / "code.py").write_text("x = 1\n")
    (tmp_path / "data" / "dataset").mkdir(parents=True)
    (tmp_path / "data" / "dataset" / "shard").write_text("1")
    return Project(tmp_path)


@pytest.fixture
def under_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "train")
    monkeypatch.setenv("DVC_ROOT", str(Path(calotype.__file__).parents[1]))


def test_a_stage_outside_dvc_is_refused_and_names_the_command(small: Project) -> None:
    with pytest.raises(UsageError, match="Run `dvc repro train`"), lineage.stage("train", small):
        pass


def test_a_stage_off_the_line_is_known_by_its_file(small: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (small.root / "audit").mkdir()
    (small.root / "audit" / "dvc.yaml").write_text("stages: {audit: {wdir: .., params: [name], deps: [other.txt]}}")
    with pytest.raises(UsageError, match=r"Run `dvc repro audit/dvc\.yaml`"), lineage.stage("audit", small):
        pass
    monkeypatch.setenv("DVC_STAGE", "audit/dvc.yaml:audit")
    monkeypatch.setenv("DVC_ROOT", str(Path(calotype.__file__).parents[1]))
    with lineage.stage("audit", small):
        assert lineage.snapshot("audit", small) == {"name": "a", "other.txt": None}
    with pytest.raises(CalotypeError, match=r"Run `dvc repro audit/dvc\.yaml` again"), lineage.stage("audit", small):
        small.params.write_text("name: b\n")


def test_a_stage_of_another_name_is_refused(small: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "evaluate")
    with pytest.raises(UsageError, match="only DVC writes"), lineage.stage("train", small):
        pass


def test_code_of_another_checkout_is_refused(small: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "train")
    monkeypatch.setenv("DVC_ROOT", str(small.root))
    with pytest.raises(UsageError, match="another copy's code would run"), lineage.stage("train", small):
        pass


@pytest.mark.usefixtures("under_dvc")
@pytest.mark.parametrize(
    ("path", "text", "says"),
    [
        ("params.yaml", "name: a\ntrain:\n  lr: 0.2\nother: 1\n", "train was {'lr': 0.1}, is {'lr': 0.2}"),
        ("calotype/code.py", "x = 2\n", "calotype/code.py"),
        ("data/dataset/shard", "12", "data/dataset"),
    ],
)
def test_an_input_that_changes_meanwhile_is_refused(small: Project, path: str, text: str, says: str) -> None:
    with pytest.raises(CalotypeError) as caught, lineage.stage("train", small):
        (small.root / path).write_text(text)
    assert says in str(caught.value)
    assert "Run `dvc repro train` again" in str(caught.value)


@pytest.mark.usefixtures("under_dvc")
def test_keys_of_other_stages_may_be_edited_meanwhile(small: Project) -> None:
    with lineage.stage("train", small):
        small.params.write_text("name: a\ntrain:\n  lr: 0.1\nother: 2\n")


@pytest.mark.usefixtures("under_dvc")
def test_a_second_process_is_refused_and_told_who_holds_the_stage(small: Project) -> None:
    code = (
        "from calotype.provenance import lineage; from calotype.project import Project; from pathlib import Path\n"
        f"with lineage.stage('train', Project(Path({str(small.root)!r}))): pass"
    )
    with lineage.stage("train", small):
        environment = os.environ | {"PYTHONPATH": str(Path(calotype.__file__).parents[1])}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"runs already, as process {os.getpid()}" in done.stderr
