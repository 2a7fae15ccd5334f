"""What ingest, split and predict cost an image, and how much memory they take, as the images grow in number.

Run ``python -m bench.scale`` from the project's folder: 10,000 and 100,000 distinct generated images of 28 × 28 pixels,
with ``--full`` 1,000,000 too. Each verb runs in a process of its own, measured from outside: CPU-seconds of its
tree, the sampled peak of its proportional set size, and VmHWM, the peak that the kernel keeps. (``ru_maxrss`` of a
child would count what its parent held when it was started.) Writes bench/results/scale.json.

The images are files in folders of classes. Predict answers with a champion of one epoch on 2,000 images.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import generated
from bench.harness import Run, figures, run, save
from bench.line import CALOTYPE, DVC, clone, measure, set_values

SIZES = (10_000, 100_000, 1_000_000)
VERBS = ("ingest", "split", "predict")
FLAT = 0.15
"""By how much the cost of an image may differ from that at the smallest size."""

MOST_BYTES_AN_IMAGE = 300
MOST_BYTES = 1.5e9
_PEAK = """
import re, runpy, sys
from pathlib import Path
try:
    sys.argv = sys.argv[1:]
    runpy.run_module("calotype", run_name="__main__", alter_sys=True)
finally:
    print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--full", action="store_true", help="1,000,000 images, too")
    sizes = SIZES if parser.parse_args().full else SIZES[:2]
    folder = Path(tempfile.mkdtemp(prefix="calotype-bench-scale-"))
    try:
        trained = champion(clone(folder / "project"), folder)
        rows = [row for size in sizes for row in at_size(trained, folder, size)]
    finally:
        shutil.rmtree(folder)
    show(rows)
    save("scale", {"rows": rows, "flat_within": FLAT, "most_bytes_an_image": MOST_BYTES_AN_IMAGE})


def champion(project: Path, folder: Path) -> Path:
    """Train on a few, register and promote: what predictions are made with."""
    few = generated.write_files(folder / "few", 2_000)
    set_values(project, {"ingest.source": str(few), "train.epochs": 1, "evaluate.slices": []})
    measure([*DVC, "repro"], project)
    measure([*CALOTYPE, "register"], project)
    measure([*CALOTYPE, "promote", "--force", "--reason", "measured, not used"], project)
    return project


def at_size(project: Path, folder: Path, size: int) -> list[dict[str, Any]]:
    """Take so many files through each verb; the dataset and the rows begin empty."""
    images = generated.write_files(folder / f"files-{size}", size)
    set_values(project, {"ingest.source": str(images)})
    shutil.rmtree(project / "data" / "dataset")
    (project / "data" / "splits.parquet").unlink()
    measure([*DVC, "repro", "--single-item", "scan"], project)
    rows = [row_of(verb, size, as_dvc(project, verb)) for verb in ("ingest", "split")]
    predict = ["predict", str(images), "--to", str(folder / f"rows-{size}.parquet")]
    rows.append(row_of("predict", size, watched(project, predict)))
    shutil.rmtree(images)
    return rows


def as_dvc(project: Path, stage: str) -> Run:
    """Run a stage as DVC calls it, less DVC's own hashing."""
    return watched(project, [stage], {"DVC_STAGE": stage, "DVC_ROOT": str(project)})


def watched(project: Path, arguments: list[str], env: dict[str, str] | None = None) -> Run:
    """Run a verb; it prints VmHWM last."""
    here = {"VIRTUAL_ENV": sys.prefix, "OMP_WAIT_POLICY": "passive"} | (env or {})
    return run([sys.executable, "-c", _PEAK, "calotype", *arguments], cwd=project, env=here)


def row_of(verb: str, size: int, measured: Run) -> dict[str, Any]:
    """What a result file keeps of a run."""
    peak = int(measured.stdout.split()[-1]) * 1024
    row = {"verb": verb, "images": size, "vm_hwm_bytes": peak, **figures([measured], size)}
    print(f"{verb:<8}{size:>10,} images: {cpu_us(row):>8.1f} µs of CPU an image, peak {peak / 1e6:,.0f} MB", flush=True)
    return row


def cpu_us(row: dict[str, Any]) -> float:
    """CPU-microseconds an image."""
    return float(row["cpu_s"][0]) / int(row["images"]) * 1e6


def show(rows: list[dict[str, Any]]) -> None:
    """Compare each size with the smallest."""
    for verb in VERBS:
        first, *others = [row for row in rows if row["verb"] == verb]
        for row in others:
            more = row["images"] - first["images"]
            grown = row["vm_hwm_bytes"] - first["vm_hwm_bytes"]
            is_small = grown <= MOST_BYTES_AN_IMAGE * more and row["vm_hwm_bytes"] <= MOST_BYTES
            flat = cpu_us(row) / cpu_us(first)
            print(
                f"{verb:<8}{row['images']:>10,} images: {flat:.2f} × the CPU an image of {first['images']:,} "
                f"({'flat' if flat <= 1 + FLAT else 'NOT FLAT'}), {grown / more:,.0f} bytes an image above it "
                f"({'within' if is_small else 'OVER'} {MOST_BYTES_AN_IMAGE} and {MOST_BYTES / 1e9:g} GB)"
            )


if __name__ == "__main__":
    main()
