"""Finding the project, and the places that the environment may move."""

from __future__ import annotations

from pathlib import Path

import pytest

from calotype.errors import UsageError
from calotype.project import Project


def test_a_project_is_found_from_below(project: Project) -> None:
    assert Project.find(project.root / "data" / "raw").root == project.root


def test_the_environment_names_the_project(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALOTYPE_ROOT", str(project.root))
    assert Project.find(tmp_path).root == project.root


def test_no_project_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"expected a folder that holds params.yaml and dvc.yaml"):
        Project.find(tmp_path)
    monkeypatch.setenv("CALOTYPE_ROOT", str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="CALOTYPE_ROOT names"):
        Project.find()


def test_places_move_with_the_environment(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert project.inbox == str(project.root / "data" / "inbox")
    monkeypatch.setenv("CALOTYPE_PREDICT_INBOX", "/elsewhere")
    monkeypatch.setenv("CALOTYPE_PREDICT_OUTPUT", "out")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert project.inbox == "/elsewhere"
    assert project.predictions == str(project.root / "out")
    assert project.table("files") == str(project.root / "out" / "files")
    assert project.tracking_uri == "http://127.0.0.1:1"


@pytest.mark.parametrize("named", ["s3:/bucket", "s3:bucket/inbox", "file:/mnt/inbox"])
def test_a_url_that_lacks_a_slash_is_refused_by_its_variable(
    project: Project, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("CALOTYPE_PREDICT_INBOX", named)
    message = f"^CALOTYPE_PREDICT_INBOX: found {named!r}; expected a folder's path, or a URL with two slashes such as"
    with pytest.raises(UsageError, match=message):
        _ = project.inbox
    monkeypatch.setenv("CALOTYPE_PREDICT_INBOX", f"./{named}")
    assert project.inbox == str(project.root / named)
