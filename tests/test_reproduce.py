"""Versions trained again from a fresh clone and a folder remote, bit for bit; and what is said where that cannot be."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from calotype import params, tracking
from calotype.errors import CalotypeError, DataError, UsageError
from calotype.project import Project
from calotype.provenance import dvc_cache
from calotype.provenance.reproduce import Verdict, reproduce
from tests.conftest import environment, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Line:
    """A project with three versions, its remote, and a clone that has neither cache nor data."""

    origin: Project
    remote: Path
    clone: Project
    uri: str


@pytest.fixture(scope="module")
def line(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Line:
    """Train three times: as it is; with another rate, committed; with another seed and code that git does not know."""
    folder = tmp_path_factory.mktemp("versions")
    origin = Project(folder / "origin")
    shutil.copytree(reproduced.root, origin.root, symlinks=True)
    call(origin, "dvc", "remote", "add", "--default", "backup", "../remote")
    call(origin, "calotype", "register")
    edit(origin.params, "lr: 0.003", "lr: 0.01")
    commit(origin, "Train faster")
    call(origin, "dvc", "repro")
    call(origin, "calotype", "register")
    commit(origin, "Train faster: figures")
    edit(origin.params, "seed: 0", "seed: 5")
    (origin.root / "calotype" / "shifted.py").write_text('"""An untracked module."""\n\nBY = 100\n', encoding="utf-8")
    stage = origin.root / "calotype" / "learning" / "setup.py"
    edit(stage, "torch.manual_seed(params.train.seed)", "torch.manual_seed(params.train.seed + shifted.BY)")
    edit(stage, "from calotype.console import say", "from calotype import shifted\nfrom calotype.console import say")
    call(origin, "dvc", "repro")
    call(origin, "calotype", "register")
    subprocess.run(["git", "clone", "-q", str(origin.root), str(folder / "clone")], check=True)
    uri = f"sqlite:///{origin.mlruns / 'mlflow.db'}"
    return Line(origin, folder / "remote", Project(folder / "clone"), uri)


@pytest.fixture
def clone(line: Line, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The clone, pointed at the origin's runs."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", line.uri)
    for name, value in environment(line.clone).items():
        monkeypatch.setenv(name, value)
    return line.clone


def call(project: Project, *command: str) -> None:
    done = run(project, *command)
    assert done.returncode == 0, done.stdout + done.stderr


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def commit(project: Project, message: str) -> None:
    for command in (["git", "add", "-A"], ["git", "commit", "-qm", message]):
        subprocess.run(command, cwd=project.root, check=True, capture_output=True)


def again(project: Project, which: str) -> Verdict:
    return reproduce(project, params.load(project.params), which)


def assert_nothing_is_left(project: Project) -> None:
    listed = subprocess.run(["git", "worktree", "list"], cwd=project.root, capture_output=True, text=True, check=True)
    assert len(listed.stdout.splitlines()) == 1
    assert not list((project.cache / "reproduce").glob("*"))
    status = subprocess.run(["git", "status", "--porcelain"], cwd=project.root, capture_output=True, check=True)
    assert status.stdout == b""


def test_a_shard_in_neither_cache_nor_remote_is_named(clone: Project, line: Line) -> None:
    """Runs first: afterwards the clone's cache holds everything."""
    (out,) = [
        out
        for out in dvc_cache.locked((line.origin.root / "dvc.lock").read_text(), where="dvc.lock")
        if out.path == "data/dataset"
    ]
    members = dvc_cache.members(line.remote, out.md5)
    assert members
    (shard,) = [member for member in members if member.path.startswith("shard-")]
    place = dvc_cache.object_path(line.remote, shard.md5)
    place.rename(line.remote / "hidden")
    try:
        with pytest.raises(
            DataError,
            match=r"digits/1 cannot be reproduced: in neither the DVC cache .* nor a remote: "
            r"data/dataset/shard-00001-00000.parquet .*Bring the cache back",
        ) as error:
            again(clone, "1")
    finally:
        (line.remote / "hidden").rename(place)
    assert "\n" not in str(error.value)
    assert_nothing_is_left(clone)


@pytest.mark.parametrize("version", ["1", "digits/2", "3"])
def test_a_version_comes_out_again_bit_for_bit_from_a_clone_and_the_remote(line: Line, version: str) -> None:
    done = run(line.clone, "calotype", "reproduce", version, MLFLOW_TRACKING_URI=line.uri)
    assert done.returncode == 0, done.stdout + done.stderr
    number = version[-1]
    assert done.stdout.startswith(f"digits/{number}: reproduced, bit for bit\n  bundle ")
    assert "reproduce: packages that differ: none" in done.stderr
    assert ("applied its diff: .dvc/config" in done.stderr) == (number == "1")
    assert ("calotype/shifted.py" in done.stderr) == (number == "3")
    assert_nothing_is_left(line.clone)


def test_the_three_versions_are_three_models(line: Line) -> None:
    client = tracking.connect(line.origin)
    digests = {one.tags["calotype.bundle_digest"] for one in client.search_model_versions("name = 'digits'")}
    assert len(digests) == 3


def test_an_unknown_version_is_said(clone: Project) -> None:
    with pytest.raises(UsageError, match=r"digits/9: no such version .*; known versions of digits: 1, 2, 3"):
        again(clone, "9")
    with pytest.raises(UsageError, match="latest: found no version; expected a number"):
        again(clone, "latest")
    assert_nothing_is_left(clone)


def test_a_deleted_run_is_said_with_the_command_that_restores_it(clone: Project) -> None:
    client = tracking.connect(clone)
    run_id = client.get_model_version("digits", "2").run_id
    client.delete_run(run_id)
    try:
        with pytest.raises(CalotypeError, match=f"digits/2 .*is deleted; `mlflow runs restore --run-id {run_id}`"):
            again(clone, "2")
    finally:
        client.restore_run(run_id)
    assert_nothing_is_left(clone)


def test_a_commit_that_exists_no_more_is_said(clone: Project, tmp_path: Path) -> None:
    shallow = Project(tmp_path / "shallow")
    subprocess.run(["git", "clone", "-q", "--depth=1", f"file://{clone.root}", str(shallow.root)], check=True)
    with pytest.raises(CalotypeError, match=r"digits/1 .*git commit [0-9a-f]{40} is not in this repository. Run `git"):
        again(shallow, "1")
    assert_nothing_is_left(shallow)


def test_a_diff_that_was_cut_is_said(clone: Project) -> None:
    client = tracking.connect(clone)
    run_id = client.get_model_version("digits", "3").run_id
    kept = Path(client.get_run(run_id).info.artifact_uri.removeprefix("file://"), "inputs", "environment.json")
    before = kept.read_text(encoding="utf-8")
    edit(kept, '"git_diff_cut": ""', '"git_diff_cut": "7.0 MB long; 5 MB are kept"')
    try:
        with pytest.raises(CalotypeError, match=r"digits/3 .*was cut when it was recorded: 7.0 MB long"):
            again(clone, "3")
    finally:
        kept.write_text(before, encoding="utf-8")
    assert_nothing_is_left(clone)
