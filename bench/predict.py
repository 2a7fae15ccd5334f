"""Batch prediction against the peers: the 10,000 test images of CIFAR-10 as JPEG files, from folder to table.

Run ``python -m bench.predict`` from the project's folder, with ``--full`` for a model trained on all images, all files
for each peer and more repeats. ``--data`` as in ``bench.train``. Peers need ``make bench-peers``.

The model is our `cnn` of 10.6 MMAC at 32 pixels after two epochs; MLflow's pyfunc and the DataLoader run the same
weights in float32, timm and ultralytics their nearest network of at least as many MACs. All in images per CPU-second of
the process tree: the whole command, and the loop alone, after imports and the loading of the model.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from bench import cases
from bench.cases import CACHE, RECIPE
from bench.harness import ROOT, Run, figures, interleave, print_table, save
from bench.train import TIMM_MODEL, YOLO_MODEL
from calotype.files import read_json, sha256_of, write_json
from calotype.learning.engine_names import TOLERANCES

BATCH = 256
EPOCHS = 2
OURS = "calotype"
BATCHES, ONE, LOADER = "MLflow pyfunc, batches", "MLflow pyfunc, one a call", "DataLoader, eager float32"
TIMM, YOLO = f"timm inference.py, {TIMM_MODEL}", f"ultralytics, {YOLO_MODEL}"
FILES = 10_000
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Setting:
    """A project with a champion, the folder to predict, and a folder for what comes out."""

    project: Path
    images: Path
    out: Path
    n: int
    threads: int
    slow_files: int

    @property
    def bundle(self) -> Path:
        """The champion's weights."""
        return self.project / "models" / "model"


@dataclass(frozen=True)
class Side:
    """A command that classifies so many files."""

    files: int
    run: Callable[[], Run]


def main() -> None:
    """Measure, print and keep the figures."""
    chosen = _arguments()
    setting = prepare(cases.open_images(chosen.data), full=chosen.full, threads=chosen.threads)
    sides = _our_commands(setting) | _peers(setting)
    loops = _our_loops(setting)
    whole_runs = interleave({name: side.run for name, side in sides.items()}, setting.n)
    loop_runs = interleave({name: side.run for name, side in loops.items()}, setting.n)
    files = {name: side.files for name, side in (sides | loops).items()}
    save(
        "predict",
        {
            "data": f"{FILES:,} CIFAR-10 test images as JPEG files",
            "settings": {"threads": setting.threads, "batch": BATCH, "image_px": 32, "n": setting.n},
            "files": files,
            "whole_process": whole_processes(whole_runs, files),
            "loop": loop_rates(whole_runs | loop_runs, files),
            "equal_labels": equal_labels(setting, [*sides, *loops]),
            "parts": {name: parts(name, runs) for name, runs in loop_runs.items()},
        },
    )


def prepare(cifar: Path, *, full: bool, threads: int) -> Setting:
    """Train the model for two epochs, promote it, and give it to the peers in their forms."""
    counts = {"train": 45_000, "val": 5_000} if full else {"train": 10_000, "val": 1_000}
    images = cases.part_of(cifar, **counts, test=1_000)
    # A first champion of two epochs need not be good, only trained.
    values = {"train.epochs": EPOCHS, "train.threads": threads, "predict.batch_size": BATCH, "promote.floor": 0.1}
    project = cases.make_project(CACHE / "projects" / f"predict-{images.name}", images, RECIPE | values)
    if not (project / "promoted").exists():
        for words in (("dvc", "repro"), ("calotype", "register"), ("calotype", "promote"), ("calotype", "tune")):
            cases.run_ours(*words, project=project, threads=threads, memory=False)
        (project / "promoted").touch()
    out = CACHE / "predictions"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    slow_files = FILES if full else 2_000
    return Setting(project, cifar / "test", out, 3 if full else 1, threads, slow_files)


def engines() -> tuple[str, ...]:
    """The engines that `calotype tune` chooses from."""
    return tuple(TOLERANCES)


def _our_commands(setting: Setting) -> dict[str, Side]:
    """`calotype predict`, as its users type it, with each engine."""
    sides = {}
    for engine in engines():
        name = f"{OURS}, {engine}"
        words = ("calotype", "predict", setting.images, "--to", setting.out / f"{name}.parquet")
        sides[name] = Side(FILES, partial(_ours, setting, engine, words))
    return sides


def _our_loops(setting: Setting) -> dict[str, Side]:
    few = setting.out / "few"
    few.mkdir()
    for file in sorted(setting.images.glob("*/*.jpg"))[:16]:
        shutil.copyfile(file, few / file.name)
    sides = {}
    for engine in engines():
        name = f"{OURS}, {engine}, loop"
        words = ("bench.ours.predict_loop", few, setting.images, setting.out / f"{name}.parquet", engine)
        sides[name] = Side(FILES, partial(_ours, setting, engine, words))
    return sides


def _ours(setting: Setting, engine: str, words: tuple[str | Path, ...]) -> Run:
    _choose(setting, engine)
    return cases.run_ours(*words, project=setting.project, threads=setting.threads)


def _choose(setting: Setting, engine: str) -> None:
    """Let the file that `calotype tune` wrote name an engine, at the batch size that was its best."""
    digest = sha256_of(setting.bundle / "digests.json")
    for path in (setting.project / ".cache").rglob(f"{digest}.json"):
        choice = read_json(path)
        tried = [measured for measured in choice["measured"] if measured["engine"] == engine]
        best = max(tried, key=lambda measured: measured["images_per_s"])
        write_json(path, choice | {"engine": engine, "batch_size": best["batch_size"]})


def _peers(setting: Setting) -> dict[str, Side]:
    """The peers that are there, each with what it needs."""
    if not cases.attempt("peers", cases.absent_peer()):
        return {}
    model, checkpoint, part = setting.out / "mlflow-model", setting.out / "timm.pth", _part(setting)
    _peer(setting, "", "pyfunc.py", "save", setting.bundle, model)
    _peer(setting, "", "timm_checkpoint.py", TIMM_MODEL, checkpoint)
    pyfunc = ("pyfunc.py", "predict", setting.bundle, model, setting.images)
    sides = {
        BATCHES: Side(FILES, partial(_peer, setting, BATCHES, *pyfunc, FILES, BATCH)),
        ONE: Side(setting.slow_files, partial(_peer, setting, ONE, *pyfunc, setting.slow_files, 1)),
        LOADER: Side(
            FILES, partial(_peer, setting, LOADER, "loader_predict.py", setting.bundle, setting.images, BATCH, 0)
        ),
        YOLO: Side(
            setting.slow_files,
            partial(_peer, setting, YOLO, "ultralytics_work.py", "predict", part, YOLO_MODEL, BATCH),
        ),
    }
    if cases.attempt(TIMM, cases.absent_peer(needs_timm=True)):
        weights = ("--model", TIMM_MODEL, "--checkpoint", checkpoint, "--num-classes", 10, "--input-size", 3, 32, 32)
        reading = ("--data-dir", part, "-b", BATCH, "-j", 2, "--device", "cpu")
        table = ("--include-index", "--no-console-results", "--results-dir", setting.out)
        words = ("timm/inference.py", *weights, *reading, *table)
        sides[TIMM] = Side(setting.slow_files, partial(_peer, setting, TIMM, *words))
    return sides


def _peer(setting: Setting, name: str, program: str, *arguments: str | Path | int) -> Run:
    folder = setting.out / name
    folder.mkdir(exist_ok=True)
    return cases.run_peer(program, *arguments, threads=setting.threads, cwd=folder)


def _part(setting: Setting) -> Path:
    """The first images of each class in a folder of their own, for peers that take a folder and no number."""
    part = setting.out / "part"
    classes = sorted(path for path in setting.images.iterdir() if path.is_dir())
    for folder in classes:
        (part / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[: setting.slow_files // len(classes)]:
            shutil.copyfile(file, part / folder.name / file.name)
    return part


def whole_processes(runs: Mapping[str, list[Run]], files: Mapping[str, int]) -> dict[str, Any]:
    """Images per CPU-second of whole commands, and their peak memory."""
    base = BATCHES if BATCHES in runs else None
    rates = {name: [files[name] / run.cpu_s for run in found] for name, found in runs.items()}
    print_table("predict, whole process, images per CPU-second", rates, base=base)
    peaks = {name: [run.peak_pss_bytes / MEBIBYTE for run in found] for name, found in runs.items()}
    print_table("predict, peak memory of the process tree, MiB", peaks, base=base)
    return {name: figures(found, files[name]) for name, found in runs.items()}


def loop_rates(runs: Mapping[str, list[Run]], files: Mapping[str, int]) -> dict[str, list[float]]:
    """Images per CPU-second of the loops alone, where a program says what its loop took."""
    said = {name: found for name, found in runs.items() if "loop" in (_result(found[0]) or ())}
    rates = {name: [files[name] / run.result["loop"]["cpu_s"] for run in found] for name, found in said.items()}
    print_table("predict, the loop alone, images per CPU-second", rates, base=BATCHES if BATCHES in rates else None)
    return rates


def parts(name: str, runs: list[Run]) -> dict[str, float]:
    """CPU-seconds of reading, decoding and the forward pass, and the share of what decode and forward alone allow."""
    loop = statistics.median(run.result["loop"]["cpu_s"] for run in runs)
    spent = {
        part: statistics.median(run.result["parts"][part] for run in runs) for part in ("read", "decode", "forward")
    }
    bound = (spent["decode"] + spent["forward"]) / loop
    shares = ", ".join(f"{part} {seconds / loop:.0%}" for part, seconds in spent.items())
    print(
        f"\n{name}: {shares}, rest {1 - sum(spent.values()) / loop:.0%}; {bound:.0%} of the bound by decode and forward"
    )
    return {part: seconds / loop for part, seconds in spent.items()} | {"share_of_bound": bound}


def equal_labels(setting: Setting, names: Iterable[str]) -> dict[str, float]:
    """Share of the files that get the label that eager float32 gives them, for those who run the same weights."""
    truth = _labels(setting.out / LOADER / "predictions.csv")
    shares = {}
    for name in names:
        ours = setting.out / f"{name}.parquet"
        given = _labels(ours if ours.exists() else setting.out / name / "predictions.csv")
        if truth and given and name not in (LOADER, YOLO):
            shares[name] = sum(label == truth[file] for file, label in given.items()) / len(given)
    print("\nlabels equal to eager float32's")
    for name, share in shares.items():
        print(f"  {name:<32} {share:8.2%}")
    return shares


def _labels(table: Path) -> dict[str, str]:
    """The label of each ``class/file``; empty without a table."""
    if not table.exists():
        return {}
    rows = pl.read_parquet(table) if table.suffix == ".parquet" else pl.read_csv(table, infer_schema=False)
    return {"/".join(Path(path).parts[-2:]): label for path, label in rows.select("path", "label").iter_rows()}


def _result(run: Run) -> Any:
    """What a measured program says of itself; None for commands that say it in words."""
    try:
        return run.result
    except ValueError:
        return None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.predict", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "raw" / "cifar10", help="CIFAR-10 as JPEG files")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process, the same for all")
    parser.add_argument("--full", action="store_true", help="all images for training and peers, three repeats")
    return parser.parse_args()


if __name__ == "__main__":
    main()
