"""dvc.yaml against the code: a forgotten module goes stale in silence."""

from __future__ import annotations

from pathlib import Path

import grimp
import pytest
from ruamel.yaml import YAML

from calotype.params import known_keys

ROOT = Path(__file__).parents[1]
FILES = ("dvc.yaml", "audit/dvc.yaml")
STAGES = {name: stage for path in FILES for name, stage in YAML(typ="safe").load(ROOT / path)["stages"].items()}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("calotype", cache_dir=None)


def _path(module: str) -> str:
    path = Path(*module.split("."))
    return str(path / "__init__.py") if (ROOT / path).is_dir() else f"{path}.py"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_module_that_it_imports(stage: str, graph: grimp.ImportGraph) -> None:
    module = f"calotype.stages.{stage}"
    imported = graph.find_upstream_modules(module) | {module}
    packages = {name.rsplit(".", depth)[0] for name in imported for depth in range(1, name.count(".") + 1)}
    listed = {path for path in STAGES[stage]["deps"] if path.endswith((".py", ".j2"))}
    templates = {path for path in listed if path.endswith(".j2")}
    assert listed - templates == {_path(name) for name in imported | packages}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_the_command_of_its_name(stage: str) -> None:
    assert STAGES[stage]["cmd"] == f"bin/calotype {stage}"
    assert (ROOT / "calotype" / "stages" / f"{stage}.py").is_file()


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_of_a_stage_exist(stage: str) -> None:
    assert set(STAGES[stage].get("params", [])) <= set(known_keys())


def test_only_the_audit_is_off_the_line_and_runs_in_the_projects_folder() -> None:
    line = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    assert STAGES.keys() - line.keys() == {"audit"}
    assert {stage: STAGES[stage].get("wdir") for stage in STAGES} == dict.fromkeys(line) | {"audit": ".."}


def test_every_dependency_exists_or_is_an_output() -> None:
    outputs = set()
    for stage in STAGES.values():
        entries = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
        outputs |= {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}
    for stage in STAGES.values():
        for path in stage["deps"]:
            assert path in outputs or (ROOT / path).is_file(), path
