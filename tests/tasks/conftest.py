"""A line of real DVC stages that cost nothing: shell commands in a project without git."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from calotype.project import Project

Line = Callable[..., Project]
STAGE = """\
  {name}:
    cmd: |-
      {command} && echo made > {name}.txt
    deps: [params.yaml]
    outs: [{name}.txt]
"""


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    """Return a function that lays out a project whose stages are the shell commands given by name."""

    def lay_out(**commands: str) -> Project:
        root = tmp_path / "a project"
        root.mkdir()
        stages = [STAGE.format(name=name, command=command) for name, command in commands.items()]
        (root / "dvc.yaml").write_text("stages:\n" + "".join(stages))
        (root / "params.yaml").write_text("name: line\n")
        command = [sys.executable, "-m", "dvc", "init", "-q", "--no-scm"]
        subprocess.run(command, cwd=root, check=True, env={"DVC_NO_ANALYTICS": "1", "HOME": str(tmp_path)})
        monkeypatch.setenv("CALOTYPE_ROOT", str(root))
        return Project(root)

    return lay_out


@pytest.fixture
def _no_run_logger() -> Iterator[None]:
    with disable_run_logger():
        yield
