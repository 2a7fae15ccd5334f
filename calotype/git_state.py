"""What git says about the project's folder: the commit, and what differs from it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

RECORDED = ("params.yaml", "dvc.yaml", "dvc.lock", "reports/metrics.json")
"""What belongs in git after a training."""

NOT_OUTPUTS = (".", ":(exclude)dvc.lock", ":(exclude)reports")
"""What a change of makes a commit dirty: all but what the line itself writes while it runs."""

LARGEST_DIFF = 1_000_000
"""Characters of a diff that are kept."""


@dataclass(frozen=True)
class GitState:
    """A commit and the changes on top of it; empty strings where there is no repository."""

    commit: str
    dirty: bool
    diff: str


def read(root: Path) -> GitState:
    """Ask git; a folder without git, or without a commit, gives an empty state."""
    commit = _git(root, "rev-parse", "HEAD")
    if not commit:
        return GitState("", False, "")
    dirty = bool(_git(root, "status", "--porcelain", "--", *NOT_OUTPUTS))
    diff = _git(root, "diff", "HEAD", "--", *NOT_OUTPUTS) if dirty else ""
    return GitState(commit.strip(), dirty, diff[:LARGEST_DIFF])


def commit_line(root: Path, message: str) -> str:
    """The command that records a training in git; empty where there is no repository, or nothing to record."""
    changed = _git(root, "status", "--porcelain", "--untracked-files=all", "--", *RECORDED)
    paths = [line[3:] for line in changed.splitlines()]
    # DVC writes dvc.lock once the stage has ended: it differs by then though it may not yet.
    named = [path for path in RECORDED if path in paths or path == "dvc.lock"]
    inside = _git(root, "rev-parse", "--is-inside-work-tree").strip() == "true"
    return f'git add {" ".join(named)} && git commit -m "{message}"' if inside else ""


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""
