"""What git says about the project's folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

from calotype import git_state


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "-C", root, *identity, *arguments], check=True, capture_output=True)


def test_a_commit_and_what_differs_from_it(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("one\n")
    assert git_state.read(tmp_path) == git_state.GitState("", False, "")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-qm", "Start")
    clean = git_state.read(tmp_path)
    assert len(clean.commit) == 40
    assert not clean.dirty
    (tmp_path / "a").write_text("two\n")
    dirty = git_state.read(tmp_path)
    assert dirty.dirty
    assert dirty.commit == clean.commit
    assert "+two" in dirty.diff


def test_a_folder_without_git_has_no_state(tmp_path: Path) -> None:
    assert git_state.read(tmp_path) == git_state.GitState("", False, "")
