"""The wheel: what it holds, and that its command starts light."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_three_packages_and_the_templates_of_pages(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    templates = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "calotype").rglob("*.j2")}
    assert len(templates) >= 2
    assert templates | {"calotype/py.typed", "flows/training.py", "tasks/stages.py"} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "data/", "mlruns/"))]


def test_the_installed_command_shows_its_help_without_torch(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps", "--python", str(python)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    # The dependencies are this environment's; the package is the wheel's, found first.
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    paths = {
        "PYTHONPATH": f"{own}:{sysconfig.get_path('purelib')}",
        "PATH": "/usr/bin:/bin",
        "PYTHONPROFILEIMPORTTIME": "1",
    }
    done = subprocess.run(
        [tmp_path / "venv" / "bin" / "calotype", "--help"],
        cwd=tmp_path,
        env=paths,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "From a folder of labelled images" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "calotype.cli" in imported
    assert not imported & {"torch", "mlflow", "sklearn", "prefect", "dvc"}
