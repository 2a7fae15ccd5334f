"""Who answers: a registered version with the engine, the batches and the workers that suit this machine."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import pyarrow as pa

from calotype import machine
from calotype.console import say
from calotype.learning import bundle, engine_choice
from calotype.learning.answers import GraphClassifier
from calotype.params import ImageParams, Params
from calotype.predictions.prediction_rows import Classifies, Model
from calotype.project import Project
from calotype.releases.local_bundles import Champion, known_champion


@dataclass(frozen=True)
class Means:
    """What a prediction may use; None is for the program to choose.

    Parameters
    ----------
    device
        ``auto | cpu | cuda | mps``; None is `train.device`.
    batch_size
        Images of one forward pass; None is what `calotype tune` found, or `predict.batch_size`.
    workers
        Threads that read, decode and classify; None is `train.threads` on a CPU, and each core beside another device.
    """

    device: str | None = None
    batch_size: int | None = None
    workers: int | None = None


@dataclass(frozen=True)
class Answering:
    """A version that is ready to answer.

    Attributes
    ----------
    classifier, model, image
        The network, the version that stands in its rows, and the form of its images.
    batch_size, workers
        Images that a thread takes at a time, and how many threads work.
    """

    classifier: Classifies
    model: Model
    image: ImageParams
    batch_size: int
    workers: int


@dataclass
class Tally:
    """Counts that grow as rows pass by."""

    predicted: int = 0
    abstained: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)

    def add(self, answers: pa.RecordBatch, reasons: pa.Array) -> None:
        """Count a batch: labels and abstentions of its answers, and the reasons of what was rejected."""
        # pyarrow.compute would take longer to import than a small batch takes altogether.
        labels = answers["label"].drop_null().to_pylist()
        self.predicted += len(labels)
        self.labels.update(labels)
        self.abstained += answers["abstained"].to_pylist().count(True)
        self.rejected.update(code.partition(":")[0] for code in reasons.drop_null().to_pylist())

    def counts(self) -> str:
        """``10 predicted (1 abstained), 5 rejected (2 corrupt, 3 empty)``."""
        codes = ", ".join(f"{number:,} {code}" for code, number in sorted(self.rejected.items()))
        withheld = f" ({self.abstained:,} abstained)" if self.abstained else ""
        rejected = f"{self.rejected.total():,} rejected" + (f" ({codes})" if codes else "")
        return f"{self.predicted:,} predicted{withheld}, {rejected}"


def champion(project: Project, params: Params) -> Champion:
    """The champion: by the ledger's word if its bundle is on this machine, else MLflow is asked.

    Raises
    ------
    UsageError
        If there is no champion.
    """
    found = known_champion(project, params.name)
    if found is not None:
        return found
    # MLflow takes seconds to import.
    from calotype.releases import registry

    return registry.champion(project, params)


def answering(project: Project, params: Params, version: Champion, means: Means) -> Answering:
    """Make a version ready to answer, by the engine that `calotype tune` chose for it here."""
    device = _device(means.device or params.train.device)
    cores = machine.cores() if device != "cpu" else min(params.train.threads, machine.cores())
    workers = means.workers or cores
    choice, note = engine_choice.read(project.engines, version.bundle_digest, device)
    if note:
        say("predict", note)
    batch_size = means.batch_size or (choice.batch_size if choice else params.predict.batch_size)
    loaded = bundle.without_weights(version.bundle_folder)
    threads = max(1, cores // workers)
    graph = engine_choice.graph(project.engines, version.bundle_digest, choice)
    engine = engine_choice.engine_of(choice)
    if graph:
        classifier: Classifies = GraphClassifier(engine, loaded, graph, batch_size=batch_size, threads=threads)
    else:
        classifier = _classifier_by_torch(version, engine, device, batch_size, threads)
    model = Model(version.name, version.version, version.run_id)
    return Answering(classifier, model, loaded.image, batch_size, workers)


def with_device(means: Means) -> Means:
    """The same with the kind of device that was asked for by an option, if one was.

    Raises
    ------
    ParamsError
        If this machine lacks it.
    """
    return replace(means, device=_device(means.device, "--device")) if means.device else means


def _device(wanted: str, named: str = "train.device") -> str:
    """The kind of device that answers; torch is asked only where there may be more than a CPU."""
    if wanted == "cpu" or (wanted == "auto" and not machine.may_have_gpu()):
        return "cpu"
    from calotype.learning.device import choose_device

    return choose_device(wanted, named).type


def _classifier_by_torch(version: Champion, engine: str, device: str, batch_size: int, threads: int) -> Classifies:
    # Torch takes seconds to import.
    from calotype.learning.inference import Classifier

    loaded = bundle.load(version.bundle_folder)
    return Classifier(loaded, device=device, batch_size=batch_size, threads=threads, engine=engine)
