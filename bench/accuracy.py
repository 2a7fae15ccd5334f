"""Accuracy on test after so many CPU-seconds of training, with the `fast` network.

Run ``python -m bench.accuracy`` from the project's folder: without options the short form, Fashion-MNIST and one seed.
``--dataset cifar10`` takes CIFAR-10 as JPEG files (``--data``, see bench.train). No change at test time, no
pretraining; 2 % of the training images, which are not trained on, tell how a training goes, and choose nothing.

Results are added to ``bench/results/accuracy.json``, one for each set and budget.
"""

from __future__ import annotations

import argparse
import json
import statistics
from functools import partial
from pathlib import Path
from typing import Any

from bench import cases
from bench.cases import CACHE
from bench.harness import RESULTS, ROOT, machine

RECIPE: dict[str, Any] = {
    "network.name": "fast",
    "network.convs": 2,
    "network.dropout": 0.0,
    "train.batch_size": 250,
    "train.optimizer": "muon",
    "train.lr": 0.17,
    "train.momentum": 0.6,
    "train.weight_decay": 0.0015,
    "train.schedule": "linear",
    "train.warmup_epochs": 0,
    "train.label_smoothing": 0.2,
    "train.early_stopping": 0,
    "augment.translate": 0.0625,
    "augment.flip": 0.5,
    "augment.erase": 0.0,
}
WIDTHS = {"cifar10": [(0, [48, 128, 128]), (900, [64, 256, 256])], "fashion-mnist": [(0, [32, 96, 128])]}
"""Widths of the blocks, from so many CPU-seconds on: what a short training learns best is small."""


def main() -> None:
    """Train, print, and add to the results."""
    chosen = _arguments()
    budget, name = chosen.cpu_seconds, chosen.dataset
    widths = [widths for least, widths in WIDTHS[name] if budget >= least][-1]
    values = RECIPE | {"network.widths": widths, "train.threads": chosen.threads}
    project = _project(name, chosen.data, values)
    found = []
    for seed in range(chosen.seeds):
        run = cases.run_ours(
            "bench.ours.accuracy", str(seed), str(budget), project=project, threads=chosen.threads, memory=False
        )
        found.append(run.result | {"others_share": run.others_share, "wall_s": run.wall_s})
        print(
            f"{name}, seed {seed}: {run.result['test_accuracy']:.2%} on test after "
            f"{run.result['training_cpu_s']:.0f} CPU-s, {run.result['epochs']:.1f} epochs, {run.wall_s:.0f} s wall",
            flush=True,
        )
    accuracies = [one["test_accuracy"] for one in found]
    print(f"{name}, {budget:g} CPU-s: mean {statistics.fmean(accuracies):.2%} of {len(found)} seeds")
    _add(f"{name}, {budget:g} CPU-s", {"widths": widths, "threads": chosen.threads, "runs": found})


def _project(name: str, data: Path, values: dict[str, Any]) -> Path:
    """A project with the set's images: of CIFAR-10 and Fashion-MNIST, all but 2 % are trained on."""
    make = partial(cases.make_project, CACHE / "projects" / f"accuracy-{name}")
    source = name if name == "fashion-mnist" else cases.open_images(data)
    return make(Path(source), values | {"split.val": 0.02, "evaluate.robustness_images": 0})


def _add(key: str, result: dict[str, Any]) -> None:
    path = RESULTS / "accuracy.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept[key] = {"machine": machine()} | result
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", choices=sorted(WIDTHS), default="fashion-mnist")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "raw" / "cifar10", help="CIFAR-10 as JPEG files")
    parser.add_argument("--cpu-seconds", type=float, default=90, help="what a training may take")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
