"""What the line costs around the training.

Run ``python -m bench.line`` from the project's folder. It works on clones of the last commit, in a temporary folder:
on the digits, and over many small files (``--data FOLDER``, folders of classes; without it 60,000 generated ones).
It prints each figure beside its goal, and writes bench/results/line.json.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import generated
from bench.harness import ROOT, Run, Summary, figures, interleave, run, save
from calotype.params_edit import edit

PYTHON = [sys.executable, "-m"]
DVC = [*PYTHON, "dvc"]
CALOTYPE = [*PYTHON, "calotype"]
TRAINING_S = 180
FILES = 60_000


@dataclass(frozen=True)
class Figure:
    """One of the line's figures: what is measured, its values, the unit, and the most that it should be."""

    name: str
    values: list[float]
    unit: str
    goal: float

    def line(self) -> str:
        """The figure as a row of the table."""
        summary = Summary.of(self.values)
        verdict = "reached" if summary.median <= self.goal else "MISSED"
        return f"{self.name:<64} n={summary.n}  {summary!s:>22} {self.unit:<6} goal {self.goal:g}  {verdict}"


def main() -> None:
    """Measure, print and keep the figures."""
    chosen = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="calotype-bench-line-"))
    kept: dict[str, Any] = {}
    try:
        found = on_digits(clone(folder / "digits"), chosen.n, kept)
        if not chosen.no_servers:
            found += by_prefect(folder / "digits", chosen.n, kept)
        files = chosen.data or generated.write_files(folder / "files", FILES)
        found += over_files(clone(folder / "many"), files.resolve(), folder / "added", chosen.n, kept)
    finally:
        shutil.rmtree(folder)
    for figure in found:
        print(figure.line())
    rows = [{"name": f.name, "unit": f.unit, "goal": f.goal, "values": f.values} for f in found]
    save("line", {"figures": rows, "runs": kept})


def clone(folder: Path) -> Path:
    """A clone of the last commit."""
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    return folder


def on_digits(project: Path, n: int, kept: dict[str, Any]) -> list[Figure]:
    """The command's start, all stages without an epoch of training, and none."""
    measure([*CALOTYPE, "use", "digits"], project)
    help_ = [measure([*CALOTYPE, "--help"], project) for _ in range(2 * n)]
    kept["first dvc repro, with the training"] = figures([measure([*DVC, "repro"], project)])
    stages = [all_stages(project) for _ in range(n)]
    nothing = [measure([*DVC, "repro"], project) for _ in range(2 * n)]
    kept |= {"help": figures(help_), "all stages": figures(stages), "nothing changed": figures(nothing)}
    return [
        Figure("calotype --help", [run.cpu_s for run in help_], "CPU-s", 0.25),
        Figure("dvc repro of all stages on digits, less training", [run.cpu_s for run in stages], "CPU-s", 20),
        Figure(
            f"wall with the line, of a training of {TRAINING_S} s",
            [1 + run.wall_s / TRAINING_S for run in stages],
            "×",
            1.10,
        ),
        Figure("dvc repro, nothing changed", [run.cpu_s for run in nothing], "CPU-s", 2.5),
    ]


def all_stages(project: Path) -> Run:
    """Run each stage anew; train finds the weights of the equal training before, so that no epoch is in the figure."""
    shutil.rmtree(project / "data" / "dataset")
    (project / "data" / "splits.parquet").unlink()
    return measure([*DVC, "repro", "--force"], project)


def by_prefect(project: Path, n: int, kept: dict[str, Any]) -> list[Figure]:
    """The same acts by hand and by the deployment on a running server, nothing having changed."""
    hand = "dvc repro && calotype register && calotype promote".replace("dvc", " ".join(DVC), 1)
    by_hand = ["sh", "-c", hand.replace("calotype", " ".join(CALOTYPE))]
    by_flow = [*PYTHON, "prefect", "deployment", "run", "training/local", "--watch"]
    measure([*CALOTYPE, "up"], project)
    try:
        sides: dict[str, Callable[[], Run]] = {
            "by hand": lambda: measure(by_hand, project),
            "by deployment": lambda: measure(by_flow, project),
        }
        runs = interleave(sides, n)
    finally:
        measure([*CALOTYPE, "down"], project)
    kept |= {name: figures(side) for name, side in runs.items()}
    pairs = zip(runs["by hand"], runs["by deployment"], strict=True)
    added = [flow.wall_s - hand.wall_s for hand, flow in pairs]
    return [Figure("added by the Prefect flow, by deployment", added, "s", 15)]


def over_files(project: Path, source: Path, added: Path, n: int, kept: dict[str, Any]) -> list[Figure]:
    """Ingest beside `dvc add` on the same files; the packed set under DVC; a look at files that did not change."""
    set_values(project, {"ingest.source": str(source)})
    measure([*DVC, "repro", "scan"], project)
    sides = {"dvc add": lambda: add(source, added), "ingest": lambda: ingest(project)}
    runs = interleave(sides, n)
    packed = [add(project / "data" / "dataset", added) for _ in range(n)]
    measure([*DVC, "repro", "split"], project)
    nothing = [measure([*DVC, "repro", "split"], project) for _ in range(2 * n)]
    kept |= {f"{name}, many files": figures(side) for name, side in runs.items()}
    kept |= {"packed set": figures(packed), "nothing changed, many files": figures(nothing)}
    pairs = zip(runs["ingest"], runs["dvc add"], strict=True)
    return [
        Figure("ingest of many files, of `dvc add`", [a.cpu_s / b.cpu_s for a, b in pairs], "×", 0.35),
        Figure("dvc add of the packed set", [run.cpu_s for run in packed], "CPU-s", 3),
        Figure("dvc repro split over many files, nothing changed", [run.cpu_s for run in nothing], "CPU-s", 3),
    ]


def add(source: Path, folder: Path) -> Run:
    """`dvc add` of a copy, in a repository of its own with an empty cache."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder / "images")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    measure([*DVC, "init", "--quiet"], folder)
    return measure([*DVC, "add", "--quiet", "images"], folder)


def ingest(project: Path) -> Run:
    """Ingest alone, as DVC calls it, into an empty dataset."""
    shutil.rmtree(project / "data" / "dataset", ignore_errors=True)
    as_dvc = {"DVC_STAGE": "ingest", "DVC_ROOT": str(project)}
    return measure(["bin/calotype", "ingest"], project, as_dvc)


def set_values(project: Path, values: dict[str, Any]) -> None:
    """Change params.yaml."""
    path = project / "params.yaml"
    path.write_text(edit(path.read_text(), values))


def measure(command: list[str], folder: Path, env: dict[str, str] | None = None) -> Run:
    """Run a command of a clone with this interpreter."""
    here = {"VIRTUAL_ENV": sys.prefix, "PREFECT_HOME": str(folder / ".prefect")}
    return run(command, cwd=folder, env=here | (env or {}), memory=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.line", description=__doc__)
    parser.add_argument("--data", type=Path, help="many files: folders of classes, or splits over them")
    parser.add_argument("--n", type=int, default=3, help="repeats")
    parser.add_argument("--no-servers", action="store_true", help="leave Prefect out")
    return parser.parse_args()


if __name__ == "__main__":
    main()
