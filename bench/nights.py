"""What files that were seen before cost a scheduled batch, in time and memory.

Run ``python -m bench.nights`` from the project's folder: an inbox of 100,000 generated images of 28 × 28 pixels, 99,000
of them answered on an earlier night, against one of 1,000 alone; ``--files`` takes another number. Each night is a
process of its own that finds the tables as they were, run in turn. Writes bench/results/nights.json.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from bench import generated
from bench.harness import Run, figures, save
from bench.line import clone
from bench.scale import champion, watched

NEW = 1_000
RUNS = 3
MOST_MS = 2.0


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.nights", description=__doc__)
    parser.add_argument("--files", type=int, default=100_000, help="all files of the large inbox")
    known = parser.parse_args().files - NEW
    folder = Path(tempfile.mkdtemp(prefix="calotype-bench-nights-"))
    try:
        project = champion(clone(folder / "project"), folder)
        nights = measure(project, folder, known)
    finally:
        shutil.rmtree(folder)
    show(nights, known)
    rows = {name: figures(runs, NEW) | {"vm_hwm_bytes": list(map(peak, runs))} for name, runs in nights.items()}
    save("nights", {"known": known, "new": NEW, "most_ms": MOST_MS, **rows})


def measure(project: Path, folder: Path, known: int) -> dict[str, list[Run]]:
    """Nights with and without known files, in turn."""
    large = generated.write_files(folder / "large", known)
    earlier = folder / "earlier"
    first = night(project, large, earlier)
    print(f"{known:,} new files: {first.cpu_s / known * 1e6:,.0f} µs of CPU a file, peak {peak(first) / 1e6:,.0f} MB")
    small = generated.write_files(folder / "small", NEW, seed=1)
    shutil.copytree(small, large / "late")
    nights: dict[str, list[Run]] = {"alone": [], "beside_known": []}
    for number in range(RUNS):
        tables = folder / f"tables-{number}"
        nights["alone"].append(night(project, small, tables / "small"))
        shutil.copytree(earlier, tables / "large")
        nights["beside_known"].append(night(project, large, tables / "large"))
        shutil.rmtree(tables)
    return nights


def night(project: Path, inbox: Path, tables: Path) -> Run:
    """One scheduled batch."""
    places = {"CALOTYPE_PREDICT_INBOX": str(inbox), "CALOTYPE_PREDICT_OUTPUT": str(tables)}
    done = watched(project, ["predict"], places)
    print("  " + done.stdout.splitlines()[0].rpartition("/")[2])
    return done


def peak(run: Run) -> int:
    """VmHWM, in bytes."""
    return int(run.stdout.split()[-1]) * 1024


def show(nights: dict[str, list[Run]], known: int) -> None:
    """Print what known files cost."""
    pairs: list[Any] = list(zip(nights["beside_known"], nights["alone"], strict=True))
    costs = [(beside.cpu_s - alone.cpu_s) / known * 1e3 for beside, alone in pairs]
    more = [peak(beside) - peak(alone) for beside, alone in pairs]
    cost = statistics.median(costs)
    print(
        f"{known:,} known files beside {NEW:,} new ones: {cost * 1e3:,.1f} µs of CPU a known file "
        f"({min(costs) * 1e3:,.1f}–{max(costs) * 1e3:,.1f}, n = {len(costs)}; at most {MOST_MS:g} ms: "
        f"{'yes' if cost < MOST_MS else 'NO'}), {statistics.median(more) / 1e6:,.0f} MB more at the peak "
        f"({statistics.median(more) / known:,.0f} bytes a known file)"
    )


if __name__ == "__main__":
    main()
