"""Run commands, measure their process trees, compare sides in turn, print tables, keep results as JSON.

Cores are shared and noisy: CPU-seconds are the measure, wall seconds stand beside them, and each run says which share
of the machine others used meanwhile. Sides are run in turn (A B A B), so that slow minutes hit all of them alike.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import psutil

from calotype.machine import cores, processor

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
CORES = cores()
SAMPLE_S = 0.2
"""Seconds between two looks at the memory of a process tree."""

NAMED_VERSIONS = ("torch", "torchvision", "numpy", "pillow", "mlflow", "dvc", "prefect", "deltalake", "polars")
THREAD_SWITCHES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
QUIET = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


class CommandError(Exception):
    """A measured command ended with another code than 0."""


@dataclass(frozen=True)
class Run:
    """What one command took.

    Attributes
    ----------
    cpu_s
        User and system seconds of the process and of all descendants that their parents waited for.
    wall_s
        Seconds from start to end.
    peak_pss_bytes
        Largest sum, over the process tree, of proportional set sizes seen at one moment (sampled; 0 where not asked).
    others_share
        Share of all cores' time that processes outside the tree used, 0 to 1.
    stdout
        What it printed.
    """

    cpu_s: float
    wall_s: float
    peak_pss_bytes: int
    others_share: float
    stdout: str

    @property
    def result(self) -> Any:
        """The last line of the output, as JSON: what a measured program says of itself."""
        return json.loads(self.stdout.strip().rpartition("\n")[2])


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    threads: int = CORES,
    memory: bool = True,
) -> Run:
    """Run a command to its end and measure it with its descendants.

    Parameters
    ----------
    command, cwd, env
        What to run, where, and what to add to the environment.
    threads
        Threads of OpenMP, and so of torch, in each process.
    memory
        Whether to sample the tree's proportional set size.

    Raises
    ------
    CommandError
        If it fails: with its last lines.
    """
    environment = _environment(threads) | dict(env or {})
    words = [str(word) for word in command]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        busy, start = _machine_busy_s(), time.perf_counter()
        process = subprocess.Popen(words, cwd=cwd, env=environment, stdout=out, stderr=err, stdin=subprocess.DEVNULL)
        sampler = _Sampler(process.pid if memory else None)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - start
        peak = sampler.stop()
        cpu = usage.ru_utime + usage.ru_stime
        others = max(0.0, _machine_busy_s() - busy - cpu) / (wall * CORES)
        if process.returncode:
            raise CommandError(f"{shlex.join(words)}: exit code {process.returncode}\n{_tail(err)}")
        return Run(cpu, wall, peak, min(1.0, others), _text(out))


def interleave(sides: Mapping[str, Callable[[], Run]], n: int) -> dict[str, list[Run]]:
    """Run each side once, then each once more, n times in all."""
    runs: dict[str, list[Run]] = {name: [] for name in sides}
    for _ in range(n):
        for name, side in sides.items():
            runs[name].append(side())
    return runs


class _Sampler(threading.Thread):
    """Looks at a process tree's memory until it is stopped."""

    def __init__(self, pid: int | None) -> None:
        super().__init__(daemon=True)
        self._pid, self._ended, self._peak = pid, threading.Event(), 0
        if pid is not None:
            self.start()

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            with suppress(psutil.Error):
                process = psutil.Process(self._pid)
                tree = [process, *process.children(recursive=True)]
                self._peak = max(self._peak, sum(_pss_bytes(member.pid) for member in tree))

    def stop(self) -> int:
        self._ended.set()
        if self.is_alive():
            self.join()
        return self._peak


def _pss_bytes(pid: int) -> int:
    # A process may end between the listing and the look.
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _machine_busy_s() -> float:
    """CPU-seconds that all cores have spent since the start of the machine, stolen ones included."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def _environment(threads: int) -> dict[str, str]:
    environment = dict(os.environ) | QUIET | dict.fromkeys(THREAD_SWITCHES, str(threads))
    # Imports without cached bytecode would be what is measured, on either side.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def _text(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def _tail(file: IO[str], lines: int = 15) -> str:
    return "\n".join(_text(file).splitlines()[-lines:])


@dataclass(frozen=True)
class Summary:
    """n values: their median, the smallest and the largest."""

    n: int
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """Summarise values, at least one."""
        return cls(len(values), statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        if self.n == 1:
            return _short(self.median)
        return f"{_short(self.median)} ({_short(self.low)}–{_short(self.high)})"


def ratio(values: Sequence[float], base: Sequence[float]) -> Summary:
    """How many times ``base`` the values are, pair by pair: two runs of one turn saw the same noise."""
    return Summary.of([a / b for a, b in zip(values, base, strict=True)])


def print_table(title: str, values: Mapping[str, Sequence[float]], *, base: str | None = None) -> None:
    """Print n, median and spread of each side, and its ratio to the side named ``base``."""
    width = max(map(len, values))
    print(f"\n{title}")
    for name, side in values.items():
        ratios = f"   {ratio(side, values[base])} ×" if base is not None and base != name else ""
        print(f"  {name:<{width}}  n={len(side)}  {Summary.of(side)!s:>28}{ratios}")


def _short(value: float) -> str:
    """Three significant digits, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine() -> dict[str, Any]:
    """Processor, cores, memory, system, versions and date: what a figure is worth nothing without."""
    return {
        "processor": processor(),
        "cores": CORES,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in NAMED_VERSIONS if (found := _version(name))},
        "date": datetime.now(UTC).date().isoformat(),
    }


def save(name: str, payload: Mapping[str, Any]) -> Path:
    """Write ``bench/results/<name>.json``: the figures, under the facts of the machine that gave them."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **payload}, indent=1, ensure_ascii=False) + "\n")
    print(f"\n{path.relative_to(ROOT)}")
    return path


def figures(runs: Sequence[Run], images: int | None = None) -> dict[str, Any]:
    """What a result file keeps of a side's runs; with images, also images per CPU-second."""
    kept: dict[str, Any] = {
        "cpu_s": [round(run.cpu_s, 3) for run in runs],
        "wall_s": [round(run.wall_s, 3) for run in runs],
        "peak_pss_mib": [round(run.peak_pss_bytes / 2**20, 1) for run in runs],
        "others_share": [round(run.others_share, 3) for run in runs],
    }
    if images is not None:
        kept["images_per_cpu_s"] = [round(images / run.cpu_s, 1) for run in runs]
    return kept


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
