"""Does the audit find wrong labels? 2 % of Fashion-MNIST's training labels are flipped at random.

Run ``python -m bench.audit [IMAGES]`` from the project's folder: the recipe is the one that `calotype use` writes for
the set. It prints the share of the flips within the first 4 % of the ranking, and what that took.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from calotype import params as parameters
from calotype.console import say
from calotype.evaluation import suspects
from calotype.fetch import DEBIAN_FOLDER
from calotype.learning import folds, network
from calotype.learning.device import choose_device
from calotype.learning.training import Labelled
from calotype.params import Params
from calotype.sources import open_source
from calotype.sources.probe import look
from calotype.use import recipe

ROOT = Path(__file__).parents[1]
FLIPPED = 0.02
LOOKED_AT = 0.04
EXPECTED = 0.80
SEED = 0


def main() -> None:
    """Flip, audit, measure, print."""
    folder = ROOT / "data" / "raw" / "fashion-mnist"
    folder = folder if folder.is_dir() else DEBIAN_FOLDER
    if not folder.is_dir():
        sys.exit("bench.audit: Fashion-MNIST is absent. Run `calotype fetch fashion-mnist`.")
    params = fitted(folder)
    images, labels = read(folder)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else len(labels)
    images, labels = images[:count], labels[:count]
    params = shortened(params, count)
    given, is_flipped = flip(labels, np.random.default_rng(SEED))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, torch {version('torch')}, {params.train.threads} threads; "
        f"{count:,} images, {is_flipped.sum():,} flipped; {params.audit.folds} folds of {params.audit.epochs} epochs",
        flush=True,
    )
    start, cpu = time.perf_counter(), time.process_time()
    probabilities = judge(params, images, given)
    found = suspects.find(given, probabilities.astype(np.float64))
    print(f"wall {time.perf_counter() - start:.0f} s, CPU {time.process_time() - cpu:.0f} s")
    report(found, probabilities, given, labels, is_flipped)


def fitted(folder: Path) -> Params:
    """params.yaml as `calotype use` would write it for the set."""
    values = parameters.load(ROOT / "params.yaml")
    sections = values.model_dump()
    for key, value in recipe(
        look(open_source(folder, cache=ROOT / ".cache" / "sources"), max_megapixels=100), values
    ).items():
        section, _, name = key.partition(".")
        sections[section][name] = value
    return Params.model_validate(sections)


def shortened(params: Params, count: int) -> Params:
    """The recipe for a part of the set."""
    epochs = max(5, min(20, 400_000 // count))
    return params.model_copy(update={"audit": params.audit.model_copy(update={"epochs": epochs})})


def read(folder: Path) -> tuple[torch.Tensor, np.ndarray]:
    """Images, uint8 (N, 1, 28, 28), and labels of the training set."""
    import gzip

    found = {}
    for kind, header in (("images-idx3", 16), ("labels-idx1", 8)):
        path = next(folder.glob(f"train-{kind}-ubyte*"))
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        found[kind] = np.frombuffer(data, dtype=np.uint8, offset=header)
    images = torch.from_numpy(found["images-idx3"].reshape(-1, 1, 28, 28).copy())
    return images, found["labels-idx1"].astype(np.int64)


def flip(labels: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Give ``FLIPPED`` of the images another label, any other with equal chance; return labels and which changed."""
    chosen = random.choice(len(labels), round(FLIPPED * len(labels)), replace=False)
    given, is_flipped = labels.copy(), np.zeros(len(labels), dtype=bool)
    given[chosen] = (given[chosen] + random.integers(1, 10, len(chosen))) % 10
    is_flipped[chosen] = True
    return given, is_flipped


def judge(params: Params, images: torch.Tensor, labels: np.ndarray) -> np.ndarray:
    """Out-of-fold probabilities by the recipe of the audit."""
    torch.set_num_threads(params.train.threads)
    return folds.out_of_fold(
        Labelled(images, torch.from_numpy(labels)),
        folds.assign([str(number) for number in range(len(labels))], params.audit.folds),
        lambda: network.build(params.network, params.image, 10),
        train=folds.recipe(params),
        augmentation=params.augment,
        device=choose_device(params.train.device),
        classes=10,
        on_epoch=lambda now: say("audit", f"fold {now.fold}  epoch {now.epoch}  accuracy {now.accuracy:.1%}"),
    )


def report(
    found: suspects.Suspects, probabilities: np.ndarray, given: np.ndarray, labels: np.ndarray, is_flipped: np.ndarray
) -> None:
    """Print how far up the flips stand."""
    first = found.order[: round(LOOKED_AT * len(given))]
    share = is_flipped[first].sum() / is_flipped.sum()
    right = (found.suggestion == labels)[is_flipped].mean()
    print(f"out-of-fold accuracy on the true labels {(probabilities.argmax(1) == labels).mean():.2%}")
    print(f"suspects {found.is_suspect.sum():,}; estimated noise {found.noise:.2%}; true noise {FLIPPED:.0%}")
    print(f"suggestion is the true label for {right:.1%} of the flips")
    print(f"flips within the first {LOOKED_AT:.0%} of the ranking: {share:.1%} (expected: at least {EXPECTED:.0%})")
    for fraction in (0.02, 0.03, 0.06, 0.1):
        part = found.order[: round(fraction * len(given))]
        print(f"  within the first {fraction:.0%}: {is_flipped[part].sum() / is_flipped.sum():.1%}")


if __name__ == "__main__":
    main()
