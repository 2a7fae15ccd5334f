"""Fixtures of all tests: small real projects in temporary folders."""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from filelock import FileLock
from hypothesis import settings

from calotype.data import dataset, shards
from calotype.data.decode import examine
from calotype.files import sha256_of, write_json
from calotype.project import Project

REPOSITORY = Path(__file__).parents[1]
CODE = ("calotype", "flows", "tasks", "bin", "audit", "dvc.yaml", "params.yaml", "prefect.yaml", "pyproject.toml")
SMALL = {
    "epochs: 30": "epochs: 2",
    "min_per_class: 10": "min_per_class: 5",
    "bootstrap: 1000": "bootstrap: 200",
    # Two threads each for several tests at once on two cores wait for one another.
    "threads: 2": "threads: 1",
}

Run = Callable[..., subprocess.CompletedProcess[str]]


# A busy machine is no failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the files with the most slow tests first: two workers that share out files then end together."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the servers and places of the shell that started it."""
    for name in list(os.environ):
        if name.startswith(
            ("CALOTYPE_", "MLFLOW_TRACKING", "MLFLOW_REGISTRY", "DVC_STAGE", "DVC_ROOT", "PREFECT_API", "AWS_")
        ):
            monkeypatch.delenv(name)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project's folder with params.yaml, dvc.yaml and 300 digits as a folder per class; no git, no DVC."""
    return make_project(tmp_path / "project")


@pytest.fixture
def dvc_project(tmp_path: Path) -> Project:
    """The same with a copy of the code, a git repository with one commit, and DVC."""
    return make_dvc_project(tmp_path / "project")


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after one `dvc repro`, one for all processes: read it, or work on a copy (see `trained_project`)."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made = Project(folder / "reproduced" / "project")
    with FileLock(folder / "reproduced.lock"):
        if not (folder / "reproduced.done").exists():
            shutil.rmtree(folder / "reproduced", ignore_errors=True)
            made = make_dvc_project(made.root)
            done = run(made, "dvc", "repro")
            assert done.returncode == 0, done.stdout + done.stderr
            (folder / "reproduced.done").touch()
    return made


@pytest.fixture
def trained_project(reproduced: Project, tmp_path: Path) -> Project:
    """A copy of the reproduced project that a test may change. Its MLflow store is its own, and empty."""
    ignored = shutil.ignore_patterns("mlruns", ".cache")
    shutil.copytree(reproduced.root, tmp_path / "project", ignore=ignored, symlinks=True)
    return Project(tmp_path / "project")


def make_project(root: Path, *, per_class: int = 30) -> Project:
    """Lay out a project whose source is a folder per class of real digits."""
    root.mkdir(parents=True)
    shutil.copy(REPOSITORY / "dvc.yaml", root)
    text = (REPOSITORY / "params.yaml").read_text(encoding="utf-8")
    for old, new in SMALL.items():
        assert old in text
        text = text.replace(old, new)
    (root / "params.yaml").write_text(text, encoding="utf-8")
    write_digits(root / "data" / "raw" / "digits", per_class)
    return Project(root)


def make_dvc_project(root: Path) -> Project:
    """Lay out a project with its code, git and DVC, in which `dvc repro` runs."""
    shutil.copytree(_dvc_template(), root, symlinks=True)
    return Project(root)


@functools.cache
def _dvc_template() -> Path:
    """A project with git and DVC, made once: `dvc init` alone takes seconds."""
    folder = Path(tempfile.mkdtemp(prefix="calotype-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = make_project(folder / "project")
    root = made.root
    for name in CODE:
        if not (root / name).exists():
            copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
            copy(REPOSITORY / name, root / name)
    shutil.copy(REPOSITORY / ".gitignore", root)
    shutil.copy(REPOSITORY / ".dvcignore", root)
    for command in (
        ["git", "init", "-q"],
        ["git", "config", "user.name", "Test"],
        ["git", "config", "user.email", "test@example.org"],
        [sys.executable, "-m", "dvc", "init", "-q"],
        ["git", "add", "-A"],
        ["git", "commit", "-qm", "Start"],
    ):
        subprocess.run(command, cwd=root, check=True, capture_output=True, env=environment(made))
    shutil.copy(REPOSITORY / ".dvc" / "config", root / ".dvc" / "config")
    return root


def write_digits(folder: Path, per_class: int) -> None:
    """Write scikit-learn's digits as binary PGM files, a folder per class."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
        for number, image in enumerate(digits.images[digits.target == label][:per_class]):
            pixels = (image * 255 / 16).round().astype("uint8").tobytes()
            (folder / str(label) / f"{number:04}.pgm").write_bytes(b"P5\n8 8\n255\n" + pixels)


def environment(project: Project, **more: str) -> dict[str, str]:
    """The environment of a command in a project: no activated shell, this interpreter's packages, no telemetry."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CALOTYPE_", "PYTHONPATH"))}
    own = {"VIRTUAL_ENV": sys.prefix, "DVC_NO_ANALYTICS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return kept | own | {"PREFECT_HOME": str(project.root / ".prefect")} | more


def run(project: Project, *command: str, timeout: float = 240, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `dvc …` or `calotype …` in a project, the way a shell without activation would."""
    module, *arguments = command
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=project.root,
        env=environment(project, **more),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture
def write_dataset(project: Project) -> Callable[[list[dict[str, object]]], pl.DataFrame]:
    """A function that packs images into data/dataset/ as ingest does, each a mapping with ``data`` and any columns."""

    def write(images: list[dict[str, object]]) -> pl.DataFrame:
        project.dataset.mkdir(parents=True)
        writer = shards.Writer(project.dataset)
        rows = []
        for image in images:
            data = bytes(image["data"])  # type: ignore[call-overload]
            image_id = hashlib.sha256(data).hexdigest()
            facts = examine(data, max_megapixels=100)[1]._asdict()
            number = writer.add(image_id, data, facts["format"])
            known = {"image_id": image_id, "bytes": len(data), "drop": 1, "shard": shards.name_of(1, number)}
            rows.append({"label": "x", "twins": [], "path": image_id} | facts | known | image)
        writer.close()
        for number, path in enumerate(writer.paths):
            path.rename(project.dataset / shards.name_of(1, number))
        manifest = pl.DataFrame(rows, schema=dataset.MANIFEST_SCHEMA).sort("image_id")
        manifest.write_parquet(project.dataset / dataset.MANIFEST)
        digests = {path.name: sha256_of(path) for path in sorted(project.dataset.iterdir())}
        content = {"format_version": dataset.FORMAT_VERSION, "files": digests, "digest": dataset.digest_over(digests)}
        write_json(project.dataset / dataset.DIGESTS, content)
        return manifest

    return write
