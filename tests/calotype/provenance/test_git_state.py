"""What git says about the project's folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from calotype.provenance import git_state


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


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A repository with every kind of change: staged, unstaged, deleted, untracked, binary, not UTF-8, executable."""
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "-q")
    for name in ("staged", "unstaged", "deleted"):
        (root / name).write_text("one\n")
    (root / ".gitignore").write_text("ignored\n")
    git(root, "add", ".")
    git(root, "commit", "-qm", "Start")
    (root / "staged").write_text("two\n")
    git(root, "add", "staged")
    (root / "unstaged").write_bytes(b"two\r\nthree without an end")
    (root / "deleted").unlink()
    (root / "new folder").mkdir()
    (root / "new folder" / "söurce.py").write_text("print('new')\n")
    (root / "binary").write_bytes(bytes(range(256)) * 3)
    (root / "script").write_text("#!/bin/sh\n")
    (root / "script").chmod(0o755)
    (root / "*[odd]").write_text("a name that looks like a pattern\n")
    (root / "ignored").write_text("not recorded\n")
    return root


@pytest.mark.parametrize("text", [b"caf\xc3\xa9\n", b"caf\xe9 in Latin-1\n"])
def test_the_diff_gives_back_every_byte_that_git_does_not_ignore(changed: Path, tmp_path: Path, text: bytes) -> None:
    (changed / "text").write_bytes(text)
    state = git_state.read(changed)
    assert not state.cut
    git(changed, "worktree", "add", "--detach", str(tmp_path / "copy"), state.commit)
    (tmp_path / "diff").write_bytes(state.diff.encode())
    git(tmp_path / "copy", "apply", "--whitespace=nowarn", str(tmp_path / "diff"))
    (changed / "ignored").unlink()
    assert contents(tmp_path / "copy") == contents(changed)
    assert os.access(tmp_path / "copy" / "script", os.X_OK)


def test_reading_leaves_the_repository_as_it_is(changed: Path) -> None:
    git(changed, "status")
    before = contents(changed / ".git")
    git_state.read(changed)
    assert contents(changed / ".git") == before


def test_a_folder_of_large_untracked_files_is_not_read_but_named(changed: Path) -> None:
    with (changed / "photos.tar").open("wb") as file:
        file.truncate(40 * git_state.LARGEST_DIFF)
    state = git_state.read(changed)
    assert state.cut == "larger than 5 MB with photos.tar"
    assert "new folder" in state.diff
    assert "photos.tar" not in state.diff


def test_a_diff_that_is_too_long_is_cut_and_says_so(changed: Path) -> None:
    (changed / "unstaged").write_text("x" * (git_state.LARGEST_DIFF + 1))
    state = git_state.read(changed)
    assert len(state.diff) == git_state.LARGEST_DIFF
    assert state.cut == "5.0 MB long; 5 MB are kept"


def test_what_git_cannot_add_cuts_the_diff(changed: Path) -> None:
    (changed / "other").mkdir()
    git(changed / "other", "init", "-q")
    assert git_state.read(changed).cut.startswith("`git add` failed: error: 'other/' does not have a commit")


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.relative_to(root).parts[0] != ".git")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}
