"""The command: its words, its exit codes, its lightness."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from calotype import __version__
from calotype.cli import app
from calotype.project import Project
from tests.conftest import environment, run

VERBS = [
    "use",
    "fetch",
    "params",
    "demo",
    "scan",
    "ingest",
    "split",
    "train",
    "evaluate",
    "register",
    "promote",
    "rollback",
    "history",
    "predict",
    "predictions",
    "labels",
    "sample",
    "trace",
    "reproduce",
    "verify",
    "up",
    "down",
    "ui",
]


def test_help_lists_every_verb_in_the_imperative() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"}).stdout
    for verb in VERBS:
        assert f" {verb} " in shown
    for command in app.registered_commands:
        assert command.callback is not None
        text = command.callback.__doc__ or ""
        assert text[0].isupper()
        assert not text.rstrip().endswith(".")
        assert len(text) <= 66, text


def test_help_imports_nothing_heavy() -> None:
    heavy = "torch mlflow sklearn pandera polars prefect dvc PIL numpy pydantic"
    code = (
        "import sys\nfrom calotype.cli import main\nsys.argv = ['calotype', '--help']\n"
        f"try: main()\nexcept SystemExit: pass\nprint([m for m in {heavy.split()!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.strip() == f"calotype {__version__}"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stage", ["scan", "ingest", "split", "train", "evaluate"])
def test_a_stage_outside_dvc_exits_2_and_names_the_command(project: Project, stage: str) -> None:
    done = run(project, "calotype", stage)
    assert done.returncode == 2
    assert done.stderr == f"calotype: {stage}: only DVC writes this stage's outputs. Run `dvc repro {stage}`.\n"


def test_bad_parameters_exit_2_with_a_line_each(project: Project) -> None:
    text = project.params.read_text(encoding="utf-8")
    project.params.write_text(text.replace("lr: 0.003", "lr: 0").replace("top_k: 3", "top_k: no"), encoding="utf-8")
    done = run(project, "calotype", "params")
    assert done.returncode == 2
    assert "train.lr: found 0" in done.stderr
    assert "evaluate.top_k: found 'no'" in done.stderr
    assert "Traceback" not in done.stderr


def test_outside_a_project_the_command_says_where_to_go(tmp_path: Path) -> None:
    done = run(Project(tmp_path), "calotype", "params")
    assert done.returncode == 2
    assert "Change into the project's folder" in done.stderr


def test_a_network_that_does_not_run_is_refused_by_params(project: Project) -> None:
    text = project.params.read_text(encoding="utf-8").replace("name: cnn ", "name: convnext_tiny ")
    project.params.write_text(text, encoding="utf-8")
    done = run(project, "calotype", "params")
    assert done.returncode == 2
    assert "image.size: convnext_tiny does not run at 8 pixels; the smallest size is 32" in done.stderr


def test_the_launcher_finds_the_environment_upwards(project: Project, tmp_path: Path) -> None:
    """As in a copy that `dvc exp run --queue` makes below the project."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    launcher = Path(__file__).parents[2] / "bin" / "calotype"
    env = {name: value for name, value in environment(project).items() if name != "VIRTUAL_ENV"}
    shell = f"{launcher} --version"
    # The symlinked interpreter has no packages of its own: that it was chosen is what its message shows.
    done = subprocess.run(["sh", "-c", shell], cwd=project.root, env=env, capture_output=True, text=True, check=False)
    assert str(tmp_path / ".venv" / "bin" / "python") in done.stderr or done.stdout.startswith("calotype ")
