"""The scratch copy of a project at another commit, with real git and real DVC, and what is left of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from calotype.errors import CalotypeError
from calotype.project import Project
from calotype.provenance.worktree import worktree

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two commits of a DVC project in a subfolder of its repository, whose one stage fails; a remote beside it."""
    root = tmp_path / "repository" / "below"
    root.mkdir(parents=True)
    (root / "dvc.yaml").write_text("stages:\n  train:\n    cmd: exit 7\n    outs: [model]\n", encoding="utf-8")
    (root / "params.yaml").write_text("lr: 1\n", encoding="utf-8")
    git(root.parent, "init", "-q")
    dvc = [sys.executable, "-P", "-m", "dvc"]
    for command in (["init", "-q", "--subdir"], ["remote", "add", "-q", "-d", "backup", "../../remote"]):
        subprocess.run([*dvc, *command], cwd=root, check=True, capture_output=True)
    (tmp_path / "remote").mkdir()
    git(root, "add", "-A")
    git(root, "commit", "-qm", "Start")
    (root / "params.yaml").write_text("lr: 2\n", encoding="utf-8")
    git(root, "commit", "-qam", "Go on")
    return Project(root)


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    done = subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def copies(project: Project) -> int:
    return len(git(project.root, "worktree", "list").splitlines()) - 1


def test_a_copy_is_of_its_commit_and_goes_away(project: Project) -> None:
    with worktree(project, "digits-1", "HEAD~1") as copy:
        assert copy.project.params.read_text(encoding="utf-8") == "lr: 1\n"
        assert copy.project.root == project.cache / "reproduce" / "digits-1" / "below"
        assert copies(project) == 1
    assert not copy.top.exists()
    assert copies(project) == 0
    assert project.params.read_text(encoding="utf-8") == "lr: 2\n"


def test_a_diff_that_does_not_fit_is_said_and_nothing_is_left(project: Project) -> None:
    (project.root / "params.yaml").write_text("lr: 3\n", encoding="utf-8")
    diff = git(project.root, "diff").encode()
    with worktree(project, "digits-1", "HEAD") as copy:
        copy.apply(diff)
        assert copy.project.params.read_text(encoding="utf-8") == "lr: 3\n"
    with (
        pytest.raises(CalotypeError, match=r"^the recorded diff does not fit its commit: error: patch failed"),
        worktree(project, "digits-1", "HEAD~1") as copy,
    ):
        copy.apply(diff)
    assert copies(project) == 0


def test_where_a_stage_fails_the_copy_is_kept_until_the_next_one(project: Project) -> None:
    with (
        pytest.raises(CalotypeError, match=r"^train failed in .*/digits-1/below, which is kept"),
        worktree(project, "digits-1", "HEAD") as copy,
    ):
        copy.run_stage("train")
    assert copy.project.params.is_file()
    (copy.project.root / "left over").touch()
    with worktree(project, "digits-1", "HEAD") as copy:
        assert not (copy.project.root / "left over").exists()
    assert copies(project) == 0


def test_a_copy_in_use_is_not_touched(project: Project) -> None:
    with (
        worktree(project, "digits-1", "HEAD"),
        pytest.raises(CalotypeError, match=r"digits-1 is being reproduced by another process"),
        worktree(project, "digits-1", "HEAD"),
    ):
        pass
    assert copies(project) == 0


def test_a_commit_that_git_does_not_have_is_said(project: Project) -> None:
    with pytest.raises(CalotypeError, match=r"^git cannot check out 0{12}: "), worktree(project, "digits-1", "0" * 40):
        pass
    assert copies(project) == 0


def test_the_copy_shares_cache_and_remote_wherever_their_paths_start(project: Project) -> None:
    git(project.root, "config", "user.name", "Test")
    with worktree(project, "digits-1", "HEAD") as copy:
        cache = copy._share_cache()
        assert cache == project.root / ".dvc" / "cache"
        settings = (copy.project.root / ".dvc" / "config.local").read_text(encoding="utf-8")
        assert f"url = {project.root.parent.parent / 'remote'}" in settings
        assert f"dir = {cache}" in settings
