"""What git says about the project's folder: the commit, and what differs from it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

RECORDED = ("params.yaml", "dvc.yaml", "dvc.lock", "reports/metrics.json")
"""What belongs in git after a training."""

NOT_OUTPUTS = (".", ":(exclude)dvc.lock", ":(exclude)reports", ":(exclude)audit/dvc.lock")
"""What a change of makes a commit dirty: all but what the line itself writes while it runs."""

LARGEST_DIFF = 5_000_000
"""Characters of a diff that are kept."""

DIFF_HEADER = re.compile(r'^diff --git "?a/(.+?)"? "?b/', re.MULTILINE)


@dataclass(frozen=True)
class GitState:
    """A commit and the changes on top of it; empty strings where there is no repository.

    Attributes
    ----------
    commit
        What HEAD is.
    dirty
        Whether the folder differs from it.
    diff
        The difference as `git apply` takes it: staged, unstaged and untracked files that git does not ignore, binary
        ones included.
    cut
        Why the diff is not the whole difference; empty where it is.
    """

    commit: str
    dirty: bool
    diff: str
    cut: str = ""


def read(root: Path) -> GitState:
    """Ask git; a folder without git, or without a commit, gives an empty state. Index and objects stay as they are."""
    commit = _text(_git(root, "rev-parse", "HEAD")).strip()
    if not commit:
        return GitState("", False, "")
    if not _git(root, "status", "--porcelain", "--untracked-files=normal", "--", *NOT_OUTPUTS):
        return GitState(commit, False, "")
    small, large = _untracked(root)
    with _scratch_index(root) as environment:
        problem = _add(root, small, environment)
        diff = _diff(root, environment)
    if large:
        problem = problem or f"larger than {LARGEST_DIFF / 1e6:g} MB with {', '.join(large[:5])}"
    if len(diff) > LARGEST_DIFF:
        problem = problem or f"{len(diff) / 1e6:.1f} MB long; {LARGEST_DIFF / 1e6:g} MB are kept"
    return GitState(commit, True, diff[:LARGEST_DIFF], problem)


def subject(root: Path, commit: str) -> str | None:
    """First line of a commit's message; None where this repository lacks the commit."""
    done = _git(root, "log", "-1", "--format=%s%x00", f"{commit}^{{commit}}", "--")
    return _text(done).strip().rstrip("\0") if done else None


def files_of(diff: str) -> list[str]:
    """Paths that a diff changes."""
    return sorted(set(DIFF_HEADER.findall(diff)))


def commit_line(root: Path, message: str) -> str:
    """The command that records a training in git; empty where there is no repository, or nothing to record."""
    changed = _text(_git(root, "status", "--porcelain", "--untracked-files=all", "--", *RECORDED))
    paths = [line[3:] for line in changed.splitlines()]
    # DVC writes dvc.lock once the stage has ended: it differs by then though it may not yet.
    named = [path for path in RECORDED if path in paths or path == "dvc.lock"]
    inside = _git(root, "rev-parse", "--is-inside-work-tree").strip() == b"true"
    return f'git add {" ".join(named)} && git commit -m "{message}"' if inside else ""


def _untracked(root: Path) -> tuple[list[str], list[str]]:
    """Untracked files that a diff may hold, and the others, which are not read: a folder of images may lie around."""
    names = _text(_git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *NOT_OUTPUTS)).split("\0")
    small: list[str] = []
    large: list[str] = []
    total = 0
    for name in filter(os.path.lexists, (str(root / name) for name in names if name)):
        size = os.lstat(name).st_size
        fits = total + size <= LARGEST_DIFF
        (small if fits else large).append(os.path.relpath(name, root))
        total += size if fits else 0
    return small, large


@contextmanager
def _scratch_index(root: Path) -> Iterator[dict[str, str]]:
    """An environment in which `git add` writes to a copy of the index, and objects beside the repository's own."""
    index, objects = (
        root / _text(_git(root, "rev-parse", "--git-path", name)).strip() for name in ("index", "objects")
    )
    with TemporaryDirectory() as folder:
        if index.is_file():
            shutil.copy(index, Path(folder, "index"))
        Path(folder, "objects").mkdir()
        yield {
            "GIT_INDEX_FILE": str(Path(folder, "index")),
            "GIT_OBJECT_DIRECTORY": str(Path(folder, "objects")),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(objects),
        }


def _add(root: Path, untracked: list[str], environment: dict[str, str]) -> str:
    """Bring the scratch index up to date; return what went wrong."""
    listed = "\0".join(untracked).encode(errors="surrogateescape")
    done = [_run(root, "add", "--update", "--", *NOT_OUTPUTS, environment=environment)]
    if untracked:
        literal = environment | {"GIT_LITERAL_PATHSPECS": "1"}
        done += [_run(root, "add", "--pathspec-from-file=-", "--pathspec-file-nul", environment=literal, given=listed)]
    failed = [_text(one.stderr).strip().splitlines() for one in done if one.returncode]
    return f"`git add` failed: {failed[0][0] if failed[0] else 'no message'}" if failed else ""


def _diff(root: Path, environment: dict[str, str]) -> str:
    """HEAD against the scratch index; a text that is not UTF-8 makes all of it base 85, which loses nothing."""
    command = ("diff-index", "--cached", "--patch", "--binary", "--no-ext-diff", "--no-textconv", "HEAD")
    try:
        names = ("-c", "core.quotePath=false")
        return _git(root, *names, *command, "--", *NOT_OUTPUTS, environment=environment).decode()
    except UnicodeDecodeError:
        attributes = Path(environment["GIT_INDEX_FILE"]).with_name("attributes")
        attributes.write_text("* -diff\n", encoding="utf-8")
        setting = ("-c", f"core.attributesFile={attributes}")
        return _git(root, *setting, *command, "--", *NOT_OUTPUTS, environment=environment).decode(errors="replace")


def _git(root: Path, *arguments: str, environment: dict[str, str] | None = None) -> bytes:
    """What git prints; nothing where it fails or is absent."""
    try:
        done = _run(root, *arguments, environment=environment)
    except FileNotFoundError:
        return b""
    return done.stdout if done.returncode == 0 else b""


def _run(
    root: Path, *arguments: str, environment: dict[str, str] | None = None, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, check=False, env=os.environ | (environment or {}), input=given)


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")
