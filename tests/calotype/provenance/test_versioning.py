"""Data and models travel where a DVC remote is configured; where none is, one line says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from calotype.errors import CalotypeError
from calotype.provenance.versioning import push

pytestmark = pytest.mark.slow


def dvc(root: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A DVC repository with one tracked file."""
    root = tmp_path / "repository"
    root.mkdir()
    dvc(root, "init", "-q", "--no-scm")
    (root / "data.txt").write_text("data")
    dvc(root, "add", "-q", "data.txt")
    return root


def test_without_a_repository_or_a_remote_one_line_says_so(repository: Path, tmp_path: Path) -> None:
    assert push(tmp_path) == "no DVC repository here: data and model stay on this machine. Run `dvc init`"
    assert push(repository) == (
        "no DVC remote is configured: data and model stay on this machine. Run `dvc remote add -d NAME URL`"
    )


def test_what_dvc_tracks_reaches_the_default_remote(repository: Path, tmp_path: Path) -> None:
    dvc(repository, "remote", "add", "-q", "shelf", str(tmp_path / "shelf"))
    assert push(repository) == "no default among the DVC remotes shelf: nothing pushed. Run `dvc remote default NAME`"
    dvc(repository, "remote", "default", "-q", "shelf")
    assert push(repository) == "data and model are in the DVC remote shelf"
    assert [path.read_text() for path in (tmp_path / "shelf").rglob("*") if path.is_file()] == ["data"]


def test_a_push_that_fails_is_an_error_with_dvcs_reason(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "shelf").write_text("a file where the remote's folder should be")
    dvc(repository, "remote", "add", "-q", "-d", "shelf", str(tmp_path / "shelf"))
    with pytest.raises(CalotypeError, match=r"`dvc push` to the remote shelf failed: .+"):
        push(repository)
