"""`calotype tune`: which engine answers fastest on this machine, among those that answer as float32 does."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from calotype.console import say
from calotype.data import dataset
from calotype.errors import CalotypeError, DataError
from calotype.evaluation import scoring
from calotype.learning import bundle as bundles
from calotype.learning import engine_choice, engines
from calotype.learning.bundle import Bundle
from calotype.learning.device import choose_device
from calotype.learning.engine_choice import Choice, Measured
from calotype.learning.engine_names import LARGEST_DIFFERENCE, OF_GRAPH, REFERENCE, names
from calotype.learning.inference import Classifier, probability_model
from calotype.params import Params
from calotype.project import Project

EQUAL_LABELS = 0.999
"""Share of float32's labels that an engine must keep to be accepted."""

MOST_IMAGES = 10_000
MOST_BYTES = 256 * 2**20
BATCH_SIZES = (64, 128, 256, 512)
NEAR = 0.95
ROUNDS = 3
ROUND_S = 0.3


@dataclass(frozen=True)
class Agreement:
    """How an engine's answers compare with float32's."""

    equal_labels: float
    largest_difference: float

    @property
    def is_accepted(self) -> bool:
        return self.equal_labels >= EQUAL_LABELS and self.largest_difference <= LARGEST_DIFFERENCE


def tune(project: Project, params: Params, *, champion: bool) -> str:
    """Measure engines and batch sizes on the test split, keep the fastest that agrees, say what was found.

    Parameters
    ----------
    project, params
        The project and its values.
    champion
        For the registered champion; else for the model in models/.

    Raises
    ------
    UsageError
        If there is no champion.
    DataError
        If there is no model, or no test image.
    """
    folder, title = _bundle(project, params, champion)
    bundle, digest = bundles.load(folder), bundles.digest(folder)
    device = choose_device(params.train.device)
    images = _images(project, params, bundle, title)
    choice = measure(bundle, images, device)
    graph = engines.export(probability_model(bundle), bundle.image) if choice.engine in OF_GRAPH else b""
    path = engine_choice.write(project.engines, digest, choice, graph)
    last = f"{title}: {choice.engine}, batches of {choice.batch_size} → {project.relative(path)}"
    return "\n".join([*_lines(choice), last])


def measure(bundle: Bundle, images_nchw: NDArray[np.uint8], device: torch.device) -> Choice:
    """Compare the engines on images, time those that agree, and choose.

    One thread of a CPU works, as in `calotype predict`, and its own seconds count; elsewhere it is the clock's.
    """
    made = _classifiers(bundle, device)
    expected = made[REFERENCE].probabilities(images_nchw)
    agreements = {name: compare(one.probabilities(images_nchw), expected) for name, one in made.items()}
    rates = _rates({name: made[name] for name in made if agreements[name].is_accepted}, images_nchw, device)
    measured = [
        Measured(
            engine=name,
            batch_size=size,
            images_per_s=round(statistics.median(rates.get((name, size), [0.0])), 1),
            equal_labels=agreement.equal_labels,
            largest_difference=round(agreement.largest_difference, 6),
            accepted=agreement.is_accepted,
        )
        for name, agreement in agreements.items()
        for size in (BATCH_SIZES if agreement.is_accepted else BATCH_SIZES[:1])
    ]
    best = _best([one for one in measured if one.accepted])
    return Choice(
        engine=best.engine,
        batch_size=best.batch_size,
        images=len(images_nchw),
        per="CPU-second" if device.type == "cpu" else "second",
        measured_on=engine_choice.where(device.type),
        measured=tuple(measured),
    )


def _best(accepted: list[Measured]) -> Measured:
    """The fastest engine, at its smallest batch that is nearly as fast as its best one: batches cost memory."""
    fastest = max(accepted, key=lambda one: one.images_per_s)
    near = [one for one in accepted if one.engine == fastest.engine and one.images_per_s >= NEAR * fastest.images_per_s]
    return min(near, key=lambda one: one.batch_size)


def compare(answers: NDArray[np.float32], expected: NDArray[np.float32]) -> Agreement:
    """Share of equal labels, and the largest difference of a probability; answers that are no numbers differ by 1."""
    equal = float((answers.argmax(axis=1) == expected.argmax(axis=1)).mean())
    largest = float(np.nan_to_num(np.abs(answers - expected), nan=1.0, posinf=1.0).max())
    return Agreement(equal, largest)


def _bundle(project: Project, params: Params, champion: bool) -> tuple[Path, str]:
    if not champion:
        return project.bundle, f"the model in {project.relative(project.bundle)}"
    # MLflow takes seconds to import.
    from calotype.releases import registry

    found = registry.champion(project, params, prefix="tune")
    return found.bundle_folder, found.title


def _images(project: Project, params: Params, bundle: Bundle, title: str) -> NDArray[np.uint8]:
    ids = scoring.test_images(project, bundle, title)["image_id"].to_list()
    if not ids:
        raise DataError(f"{project.relative(project.splits)}: no image is in the test split. Run `dvc repro split`.")
    most = max(1, min(MOST_IMAGES, MOST_BYTES // (bundle.image.channels * bundle.image.size**2)))
    # The ids are digests: the first of them, in their order, are a sample.
    return dataset.load_images(
        project.dataset, ids[:most], bundle.image, max_megapixels=params.ingest.max_megapixels, prefix="tune"
    )


def _classifiers(bundle: Bundle, device: torch.device) -> dict[str, Classifier]:
    made = {}
    for name in names(device.type):
        try:
            made[name] = Classifier(bundle, device=device.type, batch_size=BATCH_SIZES[-1], threads=1, engine=name)
        except CalotypeError as error:
            say("tune", f"{name}: {error}")
    return made


def _rates(
    made: dict[str, Classifier], images: NDArray[np.uint8], device: torch.device
) -> dict[tuple[str, int], list[float]]:
    """Images per second of each engine at each batch size, in rounds: what else the machine does meets all alike."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    # Rows of pixels, as decoding leaves them.
    rows = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    batches = {size: np.resize(rows, (size, *rows.shape[1:])).transpose(0, 3, 1, 2) for size in BATCH_SIZES}
    rates: dict[tuple[str, int], list[float]] = {(name, size): [] for name in made for size in BATCH_SIZES}
    for _ in range(ROUNDS):
        for name, size in rates:
            rates[name, size].append(_rate(made[name], batches[size], clock))
    return rates


def _rate(classifier: Classifier, batch: NDArray[np.uint8], clock: Callable[[], float]) -> float:
    classifier.probabilities(batch)
    start, done = clock(), 0
    while clock() - start < ROUND_S:
        classifier.probabilities(batch)
        done += len(batch)
    return done / (clock() - start)


def _lines(choice: Choice) -> list[str]:
    lines = [f"{choice.images:,} test images, {choice.measured_on['processor']}, {choice.measured_on['device']}:"]
    for name in dict.fromkeys(one.engine for one in choice.measured):
        ours = [one for one in choice.measured if one.engine == name]
        best = max(ours, key=lambda one: one.images_per_s)
        far = f"{best.equal_labels:.2%} equal labels, probabilities within {best.largest_difference:.2g}"
        speed = f"{best.images_per_s:,.0f} images per {choice.per} in batches of {best.batch_size}"
        lines.append(f"  {name}: {speed if best.accepted else 'not accepted'}; {far}")
    return lines
