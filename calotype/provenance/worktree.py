"""A scratch copy of the project at another commit: a git worktree that shares the project's DVC cache and remotes."""

from __future__ import annotations

import configparser
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from calotype.console import say
from calotype.errors import CalotypeError, DataError
from calotype.project import Project
from calotype.provenance import dvc_cache

NOT_INHERITED = ("CALOTYPE_", "MLFLOW_TRACKING", "MLFLOW_REGISTRY", "MLFLOW_RUN", "MLFLOW_EXPERIMENT", "DVC_", "GIT_")
"""Beginnings of variables that name this project's places: the copy has its own."""


class Worktree:
    """The copy: ``project`` is its project folder."""

    def __init__(self, origin: Project, top: Path, below: str) -> None:
        self.origin = origin
        self.top = top
        self.project = Project(top / below)
        self.keep = False

    def apply(self, diff: bytes) -> None:
        """Apply a recorded diff.

        Raises
        ------
        CalotypeError
            If it does not fit the commit.
        """
        done = _git(self.top, "apply", "--whitespace=nowarn", "-", given=diff)
        if done.returncode:
            raise CalotypeError(f"the recorded diff does not fit its commit: {_first_line(done.stderr)}")

    def bring(self, lock: bytes, paths: list[str]) -> None:
        """Write dvc.lock, and check some of its outputs out of the cache, or pull them from the remote.

        Raises
        ------
        DataError
            Naming the files that neither the cache nor the remote has.
        """
        cache = self._share_cache()
        (self.project.root / "dvc.lock").write_bytes(lock)
        wanted = [out for out in dvc_cache.locked(lock.decode(), where="its dvc.lock") if out.path in paths]
        lost = sorted(set(paths) - {out.path for out in wanted})
        if lost:
            raise DataError(f"the dvc.lock of the run names no {', '.join(lost)}: the data cannot be found again")
        reason = ""
        if any(dvc_cache.absent(cache, wanted)):
            say("reproduce", "pulling data that the DVC cache lacks")
            said = self._dvc("fetch", *paths).stderr.decode(errors="replace").strip().splitlines()
            reason = said[-1].removeprefix("ERROR: ") if said else "not there"
        absent = list(dvc_cache.absent(cache, wanted, self._listed))
        if absent:
            more = f" and {len(absent) - 3:,} more" if len(absent) > 3 else ""
            raise DataError(
                f"in neither the DVC cache ({cache}) nor a remote: {', '.join(absent[:3])}{more} ({reason}). "
                "Bring the cache back, or configure the remote that has them: `dvc remote add -d NAME URL`."
            )
        done = self._dvc("checkout", "--quiet", "--force", *paths)
        if done.returncode:
            raise DataError(f"`dvc checkout` failed: {_first_line(done.stderr)}. Run `calotype verify`.")

    def run_stage(self, stage: str) -> None:
        """Run one stage by DVC, its output on stderr; the cache receives nothing.

        Raises
        ------
        CalotypeError
            If it fails. The copy is kept then.
        """
        command = [*_DVC, "repro", "--quiet", "--single-item", "--force", "--no-commit", stage]
        done = subprocess.run(command, cwd=self.project.root, env=self._environment(), stdout=sys.stderr, check=False)
        if done.returncode:
            self.keep = True
            raise CalotypeError(f"{stage} failed in {self.project.root}, which is kept; its lines above say why")

    def _share_cache(self) -> Path:
        """Point the copy at the project's cache and remotes; relative paths there start at the project's .dvc."""
        cache = dvc_cache.find(self.origin.root)
        if cache is None:
            raise CalotypeError(f"{self.origin.root}: no DVC repository, so the data of a training cannot be found")
        home = self.origin.root / ".dvc"
        settings = configparser.RawConfigParser(strict=False)
        settings.read([home / "config", home / "config.local"], encoding="utf-8")
        for section in settings.sections():
            for key, value in settings.items(section):
                if "://" not in value and (home / value).exists():
                    settings.set(section, key, str((home / value).resolve()))
        if not settings.has_section("cache"):
            settings.add_section("cache")
        settings.set("cache", "dir", str(cache))
        (self.project.root / ".dvc").mkdir(exist_ok=True)
        with (self.project.root / ".dvc" / "config.local").open("w", encoding="utf-8") as file:
            settings.write(file)
        return cache

    def _listed(self, output: dvc_cache.Output) -> list[dvc_cache.Member] | None:
        """Files of a folder as the remote lists them: a fetch that fails leaves no list behind."""
        done = self._dvc("list", ".", output.path, "--dvc-only", "--recursive", "--show-hash", "--json")
        if done.returncode:
            return None
        return [dvc_cache.Member(file["path"], file["md5"]) for file in json.loads(done.stdout) if file["md5"]]

    def _dvc(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*_DVC, *arguments], cwd=self.project.root, env=self._environment(), capture_output=True, check=False
        )

    def _environment(self) -> dict[str, str]:
        """Name this interpreter, and no place of the project, and no flow run."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        return kept | {"VIRTUAL_ENV": sys.prefix, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1"}


@contextmanager
def worktree(origin: Project, name: str, commit: str) -> Iterator[Worktree]:
    """A copy of the project at a commit, under .cache/reproduce; removed at the end unless it is to be kept.

    Parameters
    ----------
    origin
        The project.
    name
        Of the copy; what an earlier one of this name left is removed first.
    commit
        Which state of the repository.

    Raises
    ------
    CalotypeError
        If git cannot make it, or one of this name is in use.
    """
    top = origin.cache / "reproduce" / name
    top.parent.mkdir(parents=True, exist_ok=True)
    with _alone(origin, name):
        _remove(origin, top)
        done = _git(origin.root, "worktree", "add", "--detach", "--quiet", str(top), commit)
        if done.returncode:
            _remove(origin, top)
            raise CalotypeError(f"git cannot check out {commit[:12]}: {_first_line(done.stderr)}")
        below = _git(origin.root, "rev-parse", "--show-prefix").stdout.decode().strip()
        copy = Worktree(origin, top, below)
        try:
            yield copy
        finally:
            if not copy.keep:
                _remove(origin, top)


@contextmanager
def _alone(origin: Project, name: str) -> Iterator[None]:
    lock = FileLock(origin.cache / "locks" / f"reproduce-{name}.lock")
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise CalotypeError(f"{name} is being reproduced by another process. Wait for it, or end it.") from error
    try:
        yield
    finally:
        lock.release()


def _remove(origin: Project, top: Path) -> None:
    shutil.rmtree(top, ignore_errors=True)
    _git(origin.root, "worktree", "prune")


def _git(root: Path, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    # No hooks: DVC's own would check the whole workspace out.
    command = ["git", "-C", str(root), "-c", "core.hooksPath=/dev/null", *arguments]
    return subprocess.run(command, capture_output=True, input=given, check=False)


def _first_line(said: bytes) -> str:
    return next((line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()), "no message")


_DVC = (sys.executable, "-P", "-m", "dvc")
