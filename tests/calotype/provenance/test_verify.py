"""What `calotype verify` hashes again, and that it names each thing that differs."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from calotype import params, tracking
from calotype.cli import app
from calotype.project import Project
from calotype.provenance import dvc_cache
from calotype.provenance.verify import Findings, verify

pytestmark = pytest.mark.slow


@pytest.fixture
def sound(champion_project: Project, tmp_path: Path) -> Project:
    """A copy of the champion's project with model, cache and dvc.lock of one state; the run's artifacts are shared."""
    shutil.copytree(champion_project.root, tmp_path / "project", symlinks=True)
    project = Project(tmp_path / "project")
    # The fixture's model was not made by DVC: bring the one back that dvc.lock names.
    (out,) = (out for out in locked(project) if out.path == "models/model")
    (record,) = (out for out in locked(project) if out.path == "models/run.json")
    cache = project.root / ".dvc" / "cache"
    for file in dvc_cache.members(cache, out.md5) or ():
        replace(project.bundle / file.path, dvc_cache.object_path(cache, file.md5).read_bytes())
    replace(project.run_json, dvc_cache.object_path(cache, record.md5).read_bytes())
    return project


def locked(project: Project) -> list[dvc_cache.Output]:
    return dvc_cache.locked((project.root / "dvc.lock").read_text(encoding="utf-8"), where="dvc.lock")


def replace(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def flip(path: Path) -> None:
    """Change one bit, in a file of its own."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    replace(path, bytes(data))


def check(project: Project) -> Findings:
    return verify(project, params.load(project.params))


def test_what_is_as_it_was_is_all_right(sound: Project) -> None:
    found = check(sound)
    assert found.problems == ()
    assert found.summary().splitlines()[0] == "all right"
    assert [line.split(":")[0] for line in found.checked] == [
        "data/dataset",
        "models/model",
        "DVC cache",
        "registry",
    ]
    assert found.checked[3] == "registry: 1 version of digits"


def test_each_thing_that_differs_is_named_on_one_line(sound: Project) -> None:
    cache = sound.root / ".dvc" / "cache"
    (data,) = (out for out in locked(sound) if out.path == "data/dataset")
    (splits,) = (out for out in locked(sound) if out.path == "data/splits.parquet")
    members = dvc_cache.members(cache, data.md5) or []
    (shard,) = (member for member in members if member.path.startswith("shard-"))
    flip(sound.dataset / "manifest.parquet")
    (sound.dataset / "stray.parquet").write_bytes(b"")
    flip(sound.bundle / "model.safetensors")
    flip(dvc_cache.object_path(cache, shard.md5))
    dvc_cache.object_path(cache, splits.md5).unlink()
    found = check(sound)
    beginnings = [
        "data/dataset/manifest.parquet: its SHA-256 is ",
        "data/dataset/stray.parquet: is not listed in digests.json",
        "models/model: model.safetensors: its SHA-256 is ",
        f"data/dataset/{shard.path}: its object ",
        f"data/splits.parquet: its object {splits.md5} is not in the DVC cache. Run `dvc fetch`",
    ]
    assert not found.is_sound
    assert len(found.problems) == len(beginnings)
    for beginning in beginnings:
        assert sum(problem.startswith(beginning) for problem in found.problems) == 1, beginning
    assert not any("\n" in problem for problem in found.problems)


def test_a_changed_list_of_a_folders_files_is_named(sound: Project) -> None:
    (data,) = (out for out in locked(sound) if out.path == "data/dataset")
    flip(dvc_cache.object_path(sound.root / ".dvc" / "cache", data.md5))
    (problem,) = check(sound).problems
    assert problem.startswith("data/dataset: its object ")


def test_a_model_of_another_training_is_named(sound: Project) -> None:
    text = sound.run_json.read_text(encoding="utf-8")
    replace(sound.run_json, text.replace('"bundle_digest": "', '"bundle_digest": "0').encode())
    (problem,) = check(sound).problems
    assert problem.startswith("models/run.json: tells of the bundle 0")


def test_registered_artifacts_are_compared_with_the_version(sound: Project) -> None:
    client = tracking.connect(sound)
    version = client.get_model_version("digits", "1")
    client.set_model_version_tag("digits", "1", "calotype.bundle_digest", "0" * 64)
    (problem,) = check(sound).problems
    assert problem.startswith(f"digits/1: its bundle in MLflow run {version.run_id}: digests.json: its SHA-256 is ")


def test_a_version_whose_run_is_gone_is_named(sound: Project) -> None:
    client = tracking.connect(sound)
    run_id = client.get_model_version("digits", "1").run_id
    client.set_model_version_tag("digits", "1", "calotype.bundle_digest", "0" * 64)
    with sqlite3.connect(sound.mlruns / "mlflow.db") as store:
        store.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", (str(sound.mlruns / "gone"), run_id))
    (problem,) = check(sound).problems
    assert problem.startswith(f"digits/1: its bundle in MLflow run {run_id} is not there")


def test_the_command_exits_3_and_prints_what_differs(sound: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(sound.bundle / "model.json")
    monkeypatch.chdir(sound.root)
    done = CliRunner().invoke(app, ["verify"])
    assert done.exit_code == 3
    assert done.stdout.startswith("models/model: model.json: its SHA-256 is ")
    assert len(done.stdout.splitlines()) == 1


def test_before_the_first_training_there_is_nothing_to_differ(project: Project) -> None:
    assert check(project) == Findings((), ())
    assert not project.mlruns.exists()
