"""What git says about the project's folder."""

from __future__ import annotations

import os
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


def test_the_line_to_type_names_what_changed_and_works(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    for name in ("params.yaml", "dvc.yaml", "dvc.lock"):
        (tmp_path / name).write_text("one\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "Start")
    (tmp_path / "params.yaml").write_text("two\n")
    (tmp_path / "dvc.lock").write_text("two\n")
    line = git_state.commit_line(tmp_path, "Train digits: accuracy 99.4%")
    assert line == 'git add params.yaml dvc.lock && git commit -m "Train digits: accuracy 99.4%"'
    identity = {"GIT_AUTHOR_NAME": "T", "GIT_AUTHOR_EMAIL": "t@example.org"}
    identity |= {"GIT_COMMITTER_NAME": "T", "GIT_COMMITTER_EMAIL": "t@example.org"}
    subprocess.run(line, shell=True, cwd=tmp_path, check=True, capture_output=True, env=os.environ | identity)  # noqa: S602
    assert not git_state.read(tmp_path).dirty


def test_without_git_there_is_no_line(tmp_path: Path) -> None:
    assert git_state.commit_line(tmp_path, "x") == ""


def test_what_the_line_itself_writes_does_not_make_a_commit_dirty(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("one\n")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-qm", "Start")
    (tmp_path / "dvc.lock").write_text("new\n")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "metrics.json").write_text("{}")
    assert not git_state.read(tmp_path).dirty
