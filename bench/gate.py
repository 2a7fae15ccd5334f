"""How often the gate errs, by simulation with real predictions of Fashion-MNIST's 10,000 test images.

Run ``python -m bench.gate`` from the project's folder. Two small networks of different seeds are trained once, for two
epochs; their answers stay under .cache/bench. In every trial each image's two answers change sides at random, so that
before anything is planted neither model is better:

- an *equal* challenger, nothing planted;
- a *better* one: so many of its wrong answers, drawn at random, are corrected that it is 2 points ahead in expectation;
- a *fallen* one: as much better, but in one class of 1,000 images (another in each trial) its recall is exactly 10
  points below the champion's;
- a *thin* one: as much better, but one class (another in each trial) is cut to 30 images, of which it loses 10 more.

Then the races of ``bench.races`` follow.
"""

from __future__ import annotations

import gzip
import os
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calotype.evaluation.resampling import METRICS, Metric
from calotype.fetch import FASHION_CLASSES, fetch
from calotype.project import Project
from calotype.releases import gate
from calotype.releases.gate import Decision, Predictions, Rules

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache" / "bench"
SEEDS, EPOCHS = (0, 1), 2
TRIALS = 1000
AHEAD = 200
"""Images of 10,000: 2 points."""

FALL = 100
"""Images of a class's 1,000: 10 points of recall."""

THIN, THIN_LOSS = 30, 10

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Pair = tuple[Floats, Floats]


@dataclass(frozen=True)
class Trial:
    """The answers of one trial, and the class in which something was planted."""

    challenger: Floats
    champion: Floats
    labels: Ints
    planted: str = ""


@dataclass(frozen=True)
class Outcome:
    """What the gate said to one trial."""

    decision: Decision
    planted: str
    seconds: float

    @property
    def names_planted(self) -> bool:
        assert self.decision.evidence is not None
        named = [reason for reason in self.decision.reasons if "too few images" in reason]
        return self.planted in self.decision.evidence.underpowered and any(repr(self.planted) in line for line in named)

    @property
    def blocked_by_planted(self) -> bool:
        return any(reason.startswith(f"recall of {self.planted!r}") for reason in self.decision.reasons)


def swapped(answers: Pair, random: np.random.Generator) -> Pair:
    """Each image's two answers change sides with a chance of one half: neither side is better."""
    one, other = answers
    stays = random.random(len(one)) < 0.5
    return np.where(stays[:, None], one, other), np.where(stays[:, None], other, one)


def exchange(probabilities: Floats, images: Ints, columns: Ints) -> None:
    """Give these columns the highest probability of their image, and theirs to the column that had it."""
    tops = probabilities[images].argmax(axis=1)
    highest = probabilities[images, tops]
    probabilities[images, tops] = probabilities[images, columns]
    probabilities[images, columns] = highest


def correct(probabilities: Floats, labels: Ints, count: int, random: np.random.Generator, but: int = -1) -> None:
    """Make this many wrong answers right, drawn at random among images of all classes but one."""
    wrong = np.flatnonzero((probabilities.argmax(axis=1) != labels) & (labels != but))
    chosen = random.choice(wrong, count, replace=False)
    exchange(probabilities, chosen, labels[chosen])


def spoil(probabilities: Floats, labels: Ints, count: int, random: np.random.Generator, only: int) -> None:
    """Make this many right answers of one class wrong: its most likely other class is answered."""
    right = np.flatnonzero((probabilities.argmax(axis=1) == labels) & (labels == only))
    chosen = random.choice(right, min(count, len(right)), replace=False)
    exchange(probabilities, chosen, np.argsort(probabilities[chosen], axis=1)[:, -2])


def equal(answers: Pair, labels: Ints, random: np.random.Generator, _: int) -> Trial:
    """Nothing planted."""
    return Trial(*swapped(answers, random), labels)


def better(answers: Pair, labels: Ints, random: np.random.Generator, _: int) -> Trial:
    """2 points ahead in expectation."""
    challenger, champion = swapped(answers, random)
    correct(challenger, labels, AHEAD, random)
    return Trial(challenger, champion, labels)


def fallen(answers: Pair, labels: Ints, random: np.random.Generator, trial: int) -> Trial:
    """Ahead, but one class's recall is 10 points below the champion's."""
    challenger, champion = swapped(answers, random)
    planted = trial % len(FASHION_CLASSES)
    own = labels == planted
    lead = int((challenger.argmax(axis=1) == labels)[own].sum()) - int((champion.argmax(axis=1) == labels)[own].sum())
    spoil(challenger, labels, FALL + lead, random, planted)
    correct(challenger, labels, AHEAD + FALL, random, but=planted)
    return Trial(challenger, champion, labels, FASHION_CLASSES[planted])


def thin(answers: Pair, labels: Ints, random: np.random.Generator, trial: int) -> Trial:
    """Ahead, but one class of 30 images lost 10 more."""
    planted = trial % len(FASHION_CLASSES)
    few = random.choice(np.flatnonzero(labels == planted), THIN, replace=False)
    kept = np.sort(np.concatenate([np.flatnonzero(labels != planted), few]))
    labels = labels[kept]
    challenger, champion = swapped((answers[0][kept], answers[1][kept]), random)
    spoil(challenger, labels, THIN_LOSS, random, planted)
    correct(challenger, labels, AHEAD, random, but=planted)
    return Trial(challenger, champion, labels, FASHION_CLASSES[planted])


def judge(trial: Trial, rules: Rules) -> Outcome:
    """Let the gate decide, and take the time."""
    names = np.array(FASHION_CLASSES)[trial.labels].tolist()
    seen = np.zeros(len(names), dtype=np.bool_)
    make = partial(Predictions, split_digest="bench", labels=names, classes=FASHION_CLASSES, seen=seen)
    challenger = make("challenger", probabilities=trial.challenger)
    champion = make("champion", probabilities=trial.champion)
    start = time.perf_counter()
    decision = gate.decide(challenger, champion, rules)
    return Outcome(decision, trial.planted, time.perf_counter() - start)


def outcomes(plant: Callable[..., Trial], answers: Pair, labels: Ints, rules: Rules) -> Iterator[Outcome]:
    """The same trials for every metric."""
    for trial in range(TRIALS):
        yield judge(plant(answers, labels, np.random.default_rng([trial, 7]), trial), rules)


def rate(happened: list[bool]) -> str:
    """A count, its share, and the Clopper–Pearson interval."""
    from scipy.stats import binomtest

    count = sum(happened)
    interval = binomtest(count, len(happened)).proportion_ci(0.95, "exact")
    share = f"{count / len(happened):6.1%} ({interval.low * 100:.1f}–{interval.high * 100:.1f})"
    return f"{count:5,} of {len(happened):,}  {share}"


def report(metric: Metric, answers: Pair, labels: Ints) -> None:
    """Simulate, and print a line for each claim."""
    rules = Rules(
        metric, min_margin=0.0, floor=0.5, recall_tolerance=0.05, calibration_tolerance=0.05, class_changes="refuse"
    )
    results = {plant: list(outcomes(plant, answers, labels, rules)) for plant in (equal, better, fallen, thin)}
    promoted = {plant: [outcome.decision.promoted for outcome in done] for plant, done in results.items()}
    print(f"\n{metric}")
    print(f"  equal: promoted                     {rate(promoted[equal])}   asked: at most 5 %")
    print(f"  2 points better: promoted           {rate(promoted[better])}   asked: at least 95 %")
    print(f"  a class fell by 10 points: promoted {rate(promoted[fallen])}   asked: never")
    print(f"  thin class: named                   {rate([o.names_planted for o in results[thin]])}   asked: always")
    print(f"  thin class: blocked by its recall   {rate([o.blocked_by_planted for o in results[thin]])}   asked: never")
    print(f"  thin class: promoted                {rate(promoted[thin])}")
    verdicts = Counter(outcome.decision.verdict for outcome in results[equal])
    print(f"  verdicts on equal challengers       {', '.join(f'{n} {v}' for v, n in sorted(verdicts.items()))}")
    seconds = [outcome.seconds * 1000 for done in results.values() for outcome in done]
    spread = f"{min(seconds):.0f}–{max(seconds):.0f}"
    print(f"  a decision takes                    {statistics.median(seconds):.0f} ms ({spread}), n = {len(seconds):,}")


def images_and_labels(split: str) -> tuple[NDArray[np.uint8], Ints]:
    """A split of Fashion-MNIST, uint8 (N, 1, 28, 28) and (N,)."""
    folder = fetch(Project(ROOT), "fashion-mnist")
    pixels = gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes())[8:]
    images = np.frombuffer(pixels, np.uint8).reshape(-1, 1, 28, 28)
    return images, np.frombuffer(labels, np.uint8).astype(np.int64)


def probabilities(seed: int) -> Floats:
    """Answers of a small network to the test images, trained once and kept."""
    kept = CACHE / f"gate-fashion-mnist-seed{seed}-epochs{EPOCHS}.npy"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, _trained_answers(seed))
    answers: Floats = np.load(kept)
    return answers


def _trained_answers(seed: int) -> Any:
    import torch

    from calotype.learning import training
    from calotype.learning.network import build
    from calotype.learning.training import Labelled, State, Trainer
    from calotype.params import AugmentParams, ImageParams, NetworkParams, TrainParams

    images, labels = (torch.from_numpy(array.copy()) for array in images_and_labels("train"))
    network = NetworkParams(name="cnn", weights="random", widths=[32, 64], convs=1, hidden=[128], dropout=0.2)
    recipe = TrainParams(
        epochs=EPOCHS, batch_size=256, optimizer="adamw", lr=0.003, momentum=0.9, weight_decay=0.01, schedule="cosine",
        warmup_epochs=0, label_smoothing=0.05, class_weights="none", early_stopping=0, precision="float32",
        device="cpu", threads=1, seed=seed,
    )  # fmt: skip
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = build(network, ImageParams(size=28, channels=1, resize="stretch"), len(FASHION_CLASSES))
    trainer = Trainer(
        model,
        Labelled(images[:57_000], labels[:57_000]),
        Labelled(images[57_000:], labels[57_000:]),
        training.pixel_statistics(images[:57_000]),
        train=recipe,
        augmentation=AugmentParams(flip=0.5, translate=0.0, crop_scale=1.0, erase=0.0),
        device=torch.device("cpu"),
        classes=len(FASHION_CLASSES),
    )
    training.train(trainer, State(), on_step=lambda _: None, on_epoch=lambda _: None)
    return _answers(model, training.pixel_statistics(images[:57_000]))


def _answers(model: Any, statistics_of: Any) -> Any:
    import torch

    from calotype.learning.network import Probabilities

    images, _ = images_and_labels("t10k")
    answering = Probabilities(model, statistics_of.mean, statistics_of.std, 1.0).eval()
    with torch.inference_mode():
        return np.concatenate([answering(torch.from_numpy(part.copy())).numpy() for part in np.array_split(images, 20)])


def main() -> None:
    """Simulate the gate, then run the races."""
    _, labels = images_and_labels("t10k")
    one, other = (probabilities(seed) for seed in SEEDS)
    right = [answers.argmax(axis=1) == labels for answers in (one, other)]
    print(f"{platform.machine()}, {os.cpu_count()} cores, numpy {version('numpy')}")
    print(
        f"two networks of {EPOCHS} epochs: accuracy {right[0].mean():.4f} and {right[1].mean():.4f} on {len(labels):,} "
        f"images, of which one alone has {int((right[0] != right[1]).sum()):,} right"
    )
    for metric in METRICS:
        report(metric, (one, other), labels)
    if find_spec("bench.races"):
        from bench import races

        races.main()


if __name__ == "__main__":
    main()
