"""What the benchmarks work on: images, a project that has ingested them, and the peers' environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.harness import ROOT, Run, run
from calotype.params_edit import edit

CACHE = ROOT / ".cache" / "bench"
PEERS = CACHE / "peers" / "bin" / "python"
TIMM = CACHE / "timm"
PROGRAMS = ROOT / "bench" / "peers"

BATCH = 128
RECIPE = {
    "network.name": "cnn",
    "network.widths": [32, 64, 128],
    "network.convs": 1,
    "network.hidden": [128],
    "network.dropout": 0.2,
    "train.batch_size": BATCH,
    "train.epochs": 1,
    "train.optimizer": "adamw",
    "train.lr": 0.003,
    "train.weight_decay": 0.01,
    "train.schedule": "cosine",
    "train.warmup_epochs": 1,
    "train.label_smoothing": 0.05,
    "augment.translate": 0.125,
    "augment.flip": 0.5,
}
"""The network of 10.6 MMAC and what the loop does to the images: shifts of up to 4 of 32 pixels, and flips."""


def peer_environment() -> dict[str, str]:
    """Variables under which the peers neither send nor fetch anything, nor leave files in the home folder."""
    return {
        "HOME": str(CACHE / "home"),
        "YOLO_CONFIG_DIR": str(CACHE / "home" / "ultralytics"),
        "YOLO_OFFLINE": "true",
        "YOLO_VERBOSE": "false",
        "MPLCONFIGDIR": str(CACHE / "home" / "matplotlib"),
    }


def run_peer(program: str, *arguments: str | Path | int, threads: int, cwd: Path, memory: bool = True) -> Run:
    """Run a program of ``bench/peers``, or of timm (``timm/train.py``), in the peers' environment."""
    path = TIMM / program.removeprefix("timm/") if program.startswith("timm/") else PROGRAMS / program
    (CACHE / "home" / "ultralytics").mkdir(parents=True, exist_ok=True)
    words: list[str | Path] = [PEERS, path, *map(str, arguments)]
    return run(words, cwd=cwd, env=peer_environment(), threads=threads, memory=memory)


def run_ours(*words: str | Path, project: Path, threads: int, memory: bool = True) -> Run:
    """Run a module of the project's own copy of this repository: ``run_ours("calotype", "train", project=…)``."""
    environment = {"VIRTUAL_ENV": sys.prefix, "CALOTYPE_ROOT": str(project)}
    return run([sys.executable, "-m", *words], cwd=project, env=environment, threads=threads, memory=memory)


def absent_peer(needs_timm: bool = False) -> str | None:
    """Why a peer cannot run, with the command that changes it; None if it can."""
    if not PEERS.exists():
        return "no environment of the peers: `make bench-peers` makes it"
    if needs_timm and not (TIMM / "train.py").exists():
        return (
            "timm's scripts are not in its package: `git clone --depth 1 --branch v1.0.31 "
            f"https://github.com/huggingface/pytorch-image-models {TIMM.relative_to(ROOT)}`"
        )
    return None


def open_images(given: Path) -> Path:
    """A folder with ``train/`` and ``test/`` over folders of classes: the one given, or a zip or tar unpacked.

    Raises
    ------
    SystemExit
        If there is none, saying what is expected.
    """
    if not given.exists():
        raise SystemExit(
            f"{given}: no such folder, zip or tar; expected images as train/CLASS/*.jpg and test/CLASS/*.jpg"
        )
    if given.is_dir():
        return given
    folder = CACHE / "sources" / given.stem
    if not folder.exists():
        shutil.unpack_archive(given, folder)
    return folder


def part_of(images: Path, *, train: int, val: int, test: int) -> Path:
    """A folder with so many images of each split, all classes alike; validation is cut from the end of ``train/``."""
    folder = CACHE / "parts" / f"{images.name}-{train}-{val}-{test}"
    if folder.exists():
        return folder
    unfinished = folder.with_suffix(".tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    classes = sorted(path.name for path in (images / "train").iterdir())
    for name in classes:
        learnt, tested = (sorted((images / split / name).iterdir()) for split in ("train", "test"))
        per_class = {"train": learnt[: train // len(classes)], "test": tested[: test // len(classes)]}
        per_class["val"] = learnt[len(learnt) - val // len(classes) :]
        for split, files in per_class.items():
            target = unfinished / split / name
            target.mkdir(parents=True)
            for file in files:
                shutil.copyfile(file, target / file.name)
    unfinished.rename(folder)
    return folder


def make_project(folder: Path, images: Path, values: Mapping[str, Any]) -> Path:
    """Clone the last commit into a folder, and ingest and split images there."""
    if (folder / "ready").exists() and (folder / "ready").read_text() == _commit():
        set_params(folder, values)
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    run_ours("calotype", "use", images, project=folder, threads=1, memory=False)
    set_params(folder, values)
    run_ours("dvc", "repro", "split", project=folder, threads=1, memory=False)
    (folder / "ready").write_text(_commit())
    return folder


def set_params(project: Path, values: Mapping[str, Any]) -> None:
    """Change values of a project's params.yaml."""
    path = project / "params.yaml"
    path.write_text(edit(path.read_text(), dict(values)))


def attempt(side: str, reason: str | None) -> bool:
    """Whether a side can run; if not, say why it is left out."""
    if reason:
        print(f"{side}: left out: {reason}", file=sys.stderr)
    return reason is None


def _commit() -> str:
    return subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
