"""Races for one champion: does the best contender win, however many are promoted at the same moment?

Run ``python -m bench.races`` from the project's folder. Eight processes import once. In each of 200 races 2 to 8 of
them promote a version of one model at the same moment, in a real SQLite registry and a real ledger, judged by the real
gate on 3,000 test images. The contenders' true accuracies lie between 60 and 82 %, and one, drawn at random, is truly
7 points or more ahead of all others: the gate cannot miss it. A race is won if that one is champion in the end, every
attempt is in the ledger, and the alias equals the ledger's head.
"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

RACES, MOST = 200, 8
IMAGES, CLASSES = 3000, 10
LOWEST, HIGHEST, AHEAD = 0.60, 0.82, 0.07
SEED = 0
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Race:
    """One race: the model's name, and the true accuracy of each version, from version 1."""

    name: str
    accuracies: tuple[float, ...]

    @property
    def best(self) -> int:
        return 1 + int(np.argmax(self.accuracies))


@dataclass(frozen=True)
class Finish:
    """What one contender did: how often it was judged, and the seconds from the start to its last word."""

    judged: int
    seconds: float


@dataclass(frozen=True)
class Result:
    """What a race came to."""

    race: Race
    champion: int | None
    alias: int | None
    attempts: tuple[int | None, ...]
    finishes: tuple[Finish, ...]

    @property
    def is_won(self) -> bool:
        everyone = list(range(1, len(self.race.accuracies) + 1))
        every_attempt = sorted(number or 0 for number in self.attempts) == everyone
        return self.champion == self.alias == self.race.best and every_attempt


def draw(number: int, most: int, random: np.random.Generator) -> Race:
    """A race of 2 to ``most`` contenders, one of them ahead of the others by 7 to 10 points."""
    accuracies = random.uniform(LOWEST, HIGHEST, random.integers(2, most + 1))
    best = random.integers(len(accuracies))
    accuracies[best] = np.delete(accuracies, best).max() + random.uniform(AHEAD, AHEAD + 0.03)
    return Race(f"race-{number:03}", tuple(float(value) for value in accuracies))


@cache
def answers(name: str, number: int, accuracy: float) -> Any:
    """A contender's predictions: right with its true accuracy, independently, and as confident as it is right."""
    from calotype.releases.gate import Predictions, split_digest

    labels = np.arange(IMAGES) % CLASSES
    random = np.random.default_rng([SEED, int(name.rpartition("-")[2]), number])
    wrong = (labels + random.integers(1, CLASSES, IMAGES)) % CLASSES
    chosen = np.where(random.random(IMAGES) < accuracy, labels, wrong)
    probabilities = np.full((IMAGES, CLASSES), (1 - accuracy) / (CLASSES - 1), dtype=np.float32)
    probabilities[np.arange(IMAGES), chosen] = accuracy
    words = [str(label) for label in labels]
    return Predictions(
        model=f"{name} version {number}",
        split_digest=split_digest([str(place) for place in range(IMAGES)], words),
        labels=words,
        classes=tuple(str(place) for place in range(CLASSES)),
        probabilities=probabilities,
        seen=np.zeros(IMAGES, dtype=np.bool_),
    )


@cache
def rules_of(root: Path) -> Any:
    """The rules of params.yaml, read once."""
    from calotype import params
    from calotype.releases import gate

    return gate.Rules.of(params.load(root / "params.yaml").promote)


def contend(root: Path, race: Race, number: int, start: Any) -> Finish:
    """Promote one version when all contenders stand ready."""
    from calotype.learning.engine_names import REFERENCE, TOLERANCES
    from calotype.project import Project
    from calotype.releases import gate, promotion, versions
    from calotype.releases.promotion import Ruling

    rules = rules_of(root)
    check = gate.LoadCheck(32, 0.0, TOLERANCES[REFERENCE])
    ours = answers(race.name, number, race.accuracies[number - 1])
    judged = 0

    def judge(head: int | None) -> Ruling:
        nonlocal judged
        judged += 1
        rival = answers(race.name, head, race.accuracies[head - 1]) if head is not None else None
        return Ruling.of(gate.decide(ours, rival, rules, check))

    with versions.connected(Project(root)) as registry:
        start.wait(120)
        begun = time.perf_counter()
        promotion.settle(registry, race.name, number, judge, who=f"contender {number}")
    return Finish(judged, time.perf_counter() - begun)


def work(root: Path, starts: dict[int, Any], tasks: Any, finishes: Any) -> None:
    """Contend in one race after another; None ends the process."""
    while (task := tasks.get()) is not None:
        race, number = task
        try:
            finishes.put(contend(root, race, number, starts[len(race.accuracies)]))
        except Exception as error:
            # The parent raises it.
            finishes.put(error)


@contextmanager
def contenders(root: Path, most: int) -> Iterator[Any]:
    """Yield a function that runs one race over the processes, which end with the block."""
    context = get_context("spawn")
    starts = {count: context.Barrier(count) for count in range(2, most + 1)}
    finishes = context.Queue()
    lanes = [context.Queue() for _ in range(most)]
    processes = [context.Process(target=work, args=(root, starts, lane, finishes), daemon=True) for lane in lanes]
    for process in processes:
        process.start()

    def run(race: Race) -> tuple[Finish, ...]:
        for number in range(1, len(race.accuracies) + 1):
            lanes[number - 1].put((race, number))
        found = [finishes.get(timeout=300) for _ in race.accuracies]
        for one in found:
            if isinstance(one, Exception):
                raise one
        return tuple(found)

    try:
        yield run
    finally:
        for lane in lanes:
            lane.put(None)
        for process in processes:
            process.join(30)


def hold(races: int = RACES, most: int = MOST) -> list[Result]:
    """Hold races of 2 to ``most`` contenders in a temporary folder."""
    from calotype import tracking
    from calotype.console import track
    from calotype.project import Project
    from calotype.releases import ledger, versions

    random = np.random.default_rng(SEED)
    results = []
    with tempfile.TemporaryDirectory(prefix="calotype-races-") as folder:
        root = Path(folder)
        (root / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
        project = Project(root)
        client = tracking.connect(project)
        experiment = tracking.experiment(project, client, "races")
        runs = [client.create_run(experiment).info.run_id for _ in range(most)]
        with contenders(root, most) as run, versions.connected(project) as registry:
            for number in track(range(races), prefix="races", unit="races", total=races):
                race = draw(number, most, random)
                client.create_registered_model(race.name)
                for run_id in runs[: len(race.accuracies)]:
                    client.create_model_version(race.name, f"{root.as_uri()}/none", run_id=run_id)
                finishes = run(race)
                view = ledger.read(project.ledger, race.name)
                attempts = tuple(entry.version for entry in view.entries)
                results.append(Result(race, view.head, registry.alias(race.name, "champion"), attempts, finishes))
    return results


def main() -> None:
    """Hold the races and print the figures."""
    started = time.perf_counter()
    results = hold()
    judged = [finish.judged for result in results for finish in result.finishes]
    seconds = [finish.seconds for result in results for finish in result.finishes]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, mlflow {version('mlflow')}, deltalake {version('deltalake')}, "
        f"{time.perf_counter() - started:.0f} s in all"
    )
    won = sum(result.is_won for result in results)
    print(f"the best won, every attempt is in the ledger, alias = head   {won} of {len(results)} races")
    again = sum(judged) - len(judged)
    print(f"contenders {len(judged):,}, judged again {again:,} times, no one more than {max(judged)} times")
    print(
        f"from start to last tag: median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s "
        f"(2 to {MOST} processes on {os.cpu_count()} cores)"
    )
    for result in results:
        if not result.is_won:
            print(f"  lost: {result}")


if __name__ == "__main__":
    main()
