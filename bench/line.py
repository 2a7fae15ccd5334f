"""What the line costs on digits: a first `dvc repro`, and repeated ones with nothing changed.

Run ``python -m bench.line`` from the project's folder. It works in a fresh clone of the last commit, in a temporary
folder, and prints wall seconds and CPU-seconds of the process tree.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

REPEATS = 5
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Cost:
    """What one command took: wall and CPU, in seconds."""

    wall_s: float
    cpu_s: float


def measure(command: list[str], folder: Path) -> Cost:
    """Run a command, its output thrown away, and measure it with its children."""
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix, "DVC_NO_ANALYTICS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    # Imports without cached bytecode would be what is measured.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(time.perf_counter() - start, cpu)


def spread(costs: list[Cost]) -> str:
    """Median with minimum and maximum, of wall and CPU."""
    parts = []
    for name, values in (("wall", [c.wall_s for c in costs]), ("CPU", [c.cpu_s for c in costs])):
        low, high = min(values), max(values)
        parts.append(f"{name} {statistics.median(values):6.1f} s ({low:.1f}–{high:.1f})")
    return "   ".join(parts)


def main() -> None:
    """Measure and print."""
    folder = Path(tempfile.mkdtemp(prefix="calotype-bench-"))
    try:
        clone = folder / "calotype"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        python = [sys.executable, "-m"]
        measure([*python, "calotype", "use", "digits"], clone)
        repro = [*python, "dvc", "repro"]
        print(f"{platform.machine()}, {os.cpu_count()} cores, torch {version('torch')}, dvc {version('dvc')}")
        print(f"dvc repro, all stages     n=1  {spread([measure(repro, clone)])}")
        print(f"dvc repro, nothing to do  n={REPEATS}  {spread([measure(repro, clone) for _ in range(REPEATS)])}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
