"""How often monitoring alarms without cause, and how surely with one: windows of 500 real test images.

Run ``python -m bench.monitoring`` from the project's folder: 20 windows of Fashion-MNIST for each change. ``--full``
takes 100 windows, weaker changes, other engines, a window of a million rows, and CIFAR-10 where ``--data`` names it
(``train/CLASS/*.jpg`` and ``test/CLASS/*.jpg``).

A small network is trained once, by the line's own functions; its bundle stays under .cache/bench. The reference in it
comes from 10,000 validation images. Each window is drawn without replacement from the 10,000 test images, answered by
the bundle's classifier, and judged by the very function that `calotype monitor` calls, at a chance of 1 % for an alarm
without cause. Windows overlap: 100 of 500 images take each test image five times.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.gate import images_and_labels
from bench.harness import ROOT, run, save
from calotype import params
from calotype.data.appearance import appearance
from calotype.learning import bundle
from calotype.monitoring import shifts
from calotype.monitoring.judging import sample_of
from calotype.monitoring.shifts import Sample

CACHE = ROOT / ".cache" / "bench" / "monitoring"
ALPHA = 0.01
WINDOW = 500
VALIDATION = 10_000
EPOCHS = 3

Images = NDArray[np.uint8]
Ints = NDArray[np.int64]
Draw = Callable[[np.random.Generator, int], Ints]
CHANGE_NOTHING, WEAKER = "untouched", "weaker:"


@dataclass(frozen=True)
class Data:
    """A set with its train and test images, uint8 (N, C, S, S), and labels."""

    name: str
    train: Images
    train_labels: Ints
    test: Images
    test_labels: Ints


@dataclass(frozen=True)
class Outcome:
    """How many windows of a change alarmed, and which tests did."""

    windows: int
    alarms: int
    by_test: dict[str, int]

    @property
    def interval(self) -> tuple[float, float]:
        """Of the chance of an alarm, 95 % (Clopper & Pearson 1934)."""
        from scipy.stats import binomtest

        found = binomtest(self.alarms, self.windows).proportion_ci(0.95, method="exact")
        return float(found.low), float(found.high)


def fashion() -> Data:
    """Fashion-MNIST."""
    return Data("fashion-mnist", *images_and_labels("train"), *images_and_labels("t10k"))


def cifar(folder: Path) -> Data:
    """CIFAR-10 from JPEG files, decoded once."""
    kept = CACHE / "cifar10.npz"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        parts = [_read(folder / split) for split in ("train", "test")]
        np.savez(kept, **{f"{n}{i}": part[i] for n, part in enumerate(parts) for i in (0, 1)})
    with np.load(kept) as held:
        return Data("cifar10", held["00"], held["01"], held["10"], held["11"])


def _read(folder: Path) -> tuple[Images, Ints]:
    from PIL import Image

    names = sorted(path.name for path in folder.iterdir())
    files = [(path, names.index(path.parent.name)) for path in sorted(folder.glob("*/*.jpg"))]
    images = np.stack([np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1) for path, _ in files])
    return images, np.array([label for _, label in files], dtype=np.int64)


def trained(data: Data) -> Path:
    """The bundle of a small network after three epochs, with its reference; made once."""
    folder = CACHE / f"{data.name}-{EPOCHS}"
    if not (folder / bundle.DIGESTS).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        _train(data, folder)
    return folder


def _train(data: Data, folder: Path) -> None:
    import torch

    from calotype.learning import network, training
    from calotype.learning.bundle import Bundle
    from calotype.learning.calibrating import calibrated
    from calotype.learning.training import Labelled, State, Trainer

    values = params.load(ROOT / "params.yaml")
    small = {"name": "cnn", "widths": [32, 64], "convs": 1, "hidden": [128], "dropout": 0.2}
    recipe = {"epochs": EPOCHS, "batch_size": 256, "warmup_epochs": 0, "device": "cpu", "threads": 1}
    values = values.model_copy(
        update={
            "network": values.network.model_copy(update=small),
            "train": values.train.model_copy(update=recipe),
            "image": values.image.model_copy(update={"size": data.test.shape[-1], "channels": data.test.shape[1]}),
            "augment": values.augment.model_copy(update={"flip": 0.5, "translate": 0.0}),
        }
    )
    torch.set_num_threads(1)
    torch.manual_seed(0)
    order = np.random.default_rng(0).permutation(len(data.train))
    held, learned = (
        Labelled(torch.from_numpy(data.train[rows]), torch.from_numpy(data.train_labels[rows]))
        for rows in (order[:VALIDATION], order[VALIDATION:])
    )
    classes = int(data.test_labels.max()) + 1
    model = network.build(values.network, values.image, classes)
    pixels = training.pixel_statistics(learned.images)
    trainer = Trainer(
        model,
        learned,
        held,
        pixels,
        train=values.train,
        augmentation=values.augment,
        device=torch.device("cpu"),
        classes=classes,
    )
    training.train(trainer, State(), on_step=lambda _: None, on_epoch=lambda _: None)
    names = tuple(f"class {number}" for number in range(classes))
    weights = model.state_dict()
    made = Bundle(values.network, names, values.image, pixels.mean, pixels.std, 1.0, weights, trained_with={})
    whole, reference = calibrated(made, held, values)
    bundle.save(whole, folder, reference)


class Champion:
    """A bundle that answers images, each set of them once."""

    def __init__(self, folder: Path, engine: str = "float32") -> None:
        from calotype.learning.inference import Classifier

        self._classifier = Classifier(bundle.load(folder), device="cpu", batch_size=256, threads=1, engine=engine)
        self._known: dict[int, Sample] = {}

    def answer(self, images: Images) -> Sample:
        """What the table of predictions would hold of these images."""
        if id(images) not in self._known:
            probabilities, embedding = self._classifier.answers(images)
            self._known[id(images)] = Sample(
                embedding, probabilities.argmax(axis=1).astype(np.int64), probabilities.max(axis=1), appearance(images)
            )
        return self._known[id(images)]


def darkened(images: Images, factor: float) -> Images:
    """Multiply every pixel."""
    return np.asarray((images * factor).round(), dtype=np.uint8)


def blurred(images: Images, sigma: float) -> Images:
    """Blur by a Gaussian of ``sigma`` pixels, at the network's size."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(images.astype(np.float32), (0, 0, sigma, sigma)).round(), dtype=np.uint8)


def fitted(images: Images, like: Images) -> Images:
    """Another set's images in this set's form: size by interpolation, channels by luminance or repetition."""
    import torch
    from torch.nn import functional

    resized = functional.interpolate(
        torch.from_numpy(images).float(), like.shape[-2:], mode="bilinear", antialias=True
    ).numpy()
    if like.shape[1] == 1 and resized.shape[1] == 3:
        resized = np.tensordot(resized, [0.299, 0.587, 0.114], axes=(1, 0))[:, None]
    return np.asarray(np.broadcast_to(resized, (len(images), *like.shape[1:])).round().clip(0, 255), dtype=np.uint8)


def digits() -> Images:
    """scikit-learn's digits, 8 × 8."""
    from sklearn.datasets import load_digits

    return np.asarray((load_digits().images * 255 / 16).round(), dtype=np.uint8)[:, None]


def any_of(count: int, random: np.random.Generator, _: int) -> Ints:
    """Rows of a window, all alike."""
    return random.choice(count, WINDOW, replace=False)


def more_of_a_class(labels: Ints, times: float, random: np.random.Generator, window: int) -> Ints:
    """Rows of a window in which one class (another in each window) has so many times its share."""
    is_planted = labels == window % (labels.max() + 1)
    planted = round(WINDOW * times * is_planted.mean())
    chosen = (random.choice(np.flatnonzero(mask), size, replace=False) for mask, size in (
        (is_planted, planted), (~is_planted, WINDOW - planted)
    ))  # fmt: skip
    return np.concatenate([*chosen])


def changes(data: Data, others: Mapping[str, Images], *, weak: bool) -> dict[str, tuple[Images, Draw]]:
    """By name: the images that windows are drawn from, and how."""
    test, everything = data.test, partial(any_of, len(data.test))
    found: dict[str, tuple[Images, Draw]] = {
        CHANGE_NOTHING: (test, everything),
        "brightness × 0.6": (darkened(test, 0.6), everything),
        "Gaussian blur, σ 1.5": (blurred(test, 1.5), everything),
        "a class at 3 × its share": (test, partial(more_of_a_class, data.test_labels, 3)),
    }
    for name, images in others.items():
        found[f"images of {name}"] = (fitted(images, test), partial(any_of, len(images)))
    if weak:
        found |= {
            f"{WEAKER} brightness × 0.9": (darkened(test, 0.9), everything),
            f"{WEAKER} blur, σ 0.5": (blurred(test, 0.5), everything),
            f"{WEAKER} a class at 1.5 × its share": (test, partial(more_of_a_class, data.test_labels, 1.5)),
        }
    return found


def judged(champion: Champion, reference: Sample, images: Images, draw: Draw, windows: int) -> Outcome:
    """Draw windows and count the alarms."""
    random = np.random.default_rng(1)
    answers = champion.answer(images)
    classes = [str(number) for number in range(int(reference.predicted.max()) + 1)]
    alarms, by_test = 0, Counter(dict.fromkeys(shifts.TESTS, 0))
    for window in range(windows):
        found = shifts.compare(reference, _part(answers, draw(random, window)), classes, ALPHA)
        alarms += found.is_drift
        by_test.update(shift.test for shift in found.alarms)
    return Outcome(windows, alarms, dict(by_test))


def _part(sample: Sample, rows: Ints) -> Sample:
    return Sample(sample.embedding[rows], sample.predicted[rows], sample.confidence[rows], sample.appearance[rows])


def report(data: Data, others: Mapping[str, Images], windows: int, *, full: bool) -> dict[str, Any]:
    """Print a line for each change; return what the result file keeps."""
    folder = trained(data)
    found = bundle.reference(folder)
    assert found is not None
    reference = sample_of(found)
    champion = Champion(folder)
    right = float((champion.answer(data.test).predicted == data.test_labels).mean())
    print(f"\n{data.name}: accuracy {right:.3f}; reference of {len(reference):,} validation images, α = {ALPHA}")
    rows: dict[str, Any] = {}
    for name, (images, draw) in changes(data, others, weak=full).items():
        # What is asked for gets all windows; how weak a change may be is a question of few.
        count = windows // 5 if name.startswith(WEAKER) else windows
        _add(rows, name, judged(champion, reference, images, draw, count))
    for engine in ("bf16",) if full else ():
        drawn = partial(any_of, len(data.test))
        _add(
            rows,
            f"{CHANGE_NOTHING}, engine {engine}",
            judged(Champion(folder, engine), reference, data.test, drawn, windows),
        )
    return {"accuracy": round(right, 4), "reference": len(reference), "alarms": rows}


def _add(rows: dict[str, Any], name: str, found: Outcome) -> None:
    low, high = found.interval
    tests = ", ".join(f"{test} {count}" for test, count in found.by_test.items() if count)
    print(f"  {name:<36}{found.alarms:>4} of {found.windows} alarm  ({low:.3f}–{high:.3f})   {tests}", flush=True)
    rows[name] = {
        "windows": found.windows,
        "alarms": found.alarms,
        "interval": [round(low, 4), round(high, 4)],
        "by_test": found.by_test,
    }


def cost(folder: Path, rows: int) -> dict[str, Any]:
    """CPU-seconds and memory of judging a window of so many rows of a real table, page included, in a fresh process."""
    place = CACHE / f"table-{rows}"
    shutil.rmtree(place, ignore_errors=True)
    measured = run([sys.executable, "-m", "bench.ours.window", str(folder), str(place), str(rows)], cwd=ROOT, threads=1)
    shutil.rmtree(place, ignore_errors=True)
    result = measured.result
    print(
        f"\na window of {rows:,} rows, {result['compared']:,} of them compared with {result['reference']:,}: "
        f"{result['cpu_s']:.1f} CPU-s, {result['wall_s']:.1f} s, peak memory {result['peak_mib']:,.0f} MiB"
    )
    return dict(result)


def main() -> None:
    """Judge windows, measure the cost, keep the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.monitoring", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="CIFAR-10 as JPEG files, as bench.train takes it")
    parser.add_argument("--full", action="store_true", help="100 windows, weaker changes, a million rows")
    given = parser.parse_args()
    windows = 100 if given.full else 20
    clothes = fashion()
    sets = {"digits": digits()}
    objects = cifar(given.data) if given.data else None
    if objects is not None:
        sets["CIFAR-10, grey"] = objects.test
    sizes = (10_000, 1_000_000) if given.full else (10_000,)
    kept: dict[str, Any] = {"alpha": ALPHA, "window": WINDOW, "sets": {}}
    kept["cost"] = [cost(trained(clothes), rows) for rows in sizes]
    kept["sets"]["fashion-mnist"] = report(clothes, sets, windows, full=given.full)
    save("monitoring", kept)
    if objects is not None and given.full:
        kept["sets"]["cifar10"] = report(objects, {"Fashion-MNIST": clothes.test}, windows, full=True)
        save("monitoring", kept)


if __name__ == "__main__":
    main()
