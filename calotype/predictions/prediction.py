"""Batch prediction with the champion: into a file, one row per file; or into the Delta table, exactly once."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from calotype import machine
from calotype.console import say, track
from calotype.errors import DataError
from calotype.learning import bundle, engine_choice
from calotype.learning.answers import GraphClassifier
from calotype.params import Params
from calotype.predictions import incoming, known, output, prediction_rows
from calotype.predictions.incoming import Folder, Waiting
from calotype.predictions.known import Key
from calotype.predictions.prediction_rows import PREDICTED, SCHEMA, Classifies, Form, Model
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


@dataclass
class Tally:
    """Counts that grow as rows pass by."""

    predicted: int = 0
    abstained: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)

    def add(self, rows: pa.RecordBatch) -> None:
        """Count a batch of rows."""
        # pyarrow.compute would take longer to import than a small batch takes altogether.
        self.predicted += rows["status"].to_pylist().count(PREDICTED)
        self.abstained += rows["abstained"].to_pylist().count(True)
        self.labels.update(rows["label"].drop_null().to_pylist())
        self.rejected.update(code.partition(":")[0] for code in rows["reason"].drop_null().to_pylist())

    def counts(self) -> str:
        """``10 predicted (1 abstained), 5 rejected (2 corrupt, 3 empty)``."""
        codes = ", ".join(f"{number:,} {code}" for code, number in sorted(self.rejected.items()))
        withheld = f" ({self.abstained:,} abstained)" if self.abstained else ""
        rejected = f"{self.rejected.total():,} rejected" + (f" ({codes})" if codes else "")
        return f"{self.predicted:,} predicted{withheld}, {rejected}"


@dataclass(frozen=True)
class PredictionSummary:
    """What one prediction into a file did."""

    files: int
    predicted: int
    abstained: int
    rejected: dict[str, int]
    labels: dict[str, int]
    counts: str
    model_name: str
    model_version: int
    to: str

    def summary(self) -> str:
        """One line for a person."""
        return f"{_files(self.files)}: {self.counts} by {self.model_name} version {self.model_version} → {self.to}"


@dataclass(frozen=True)
class BatchSummary:
    """What one scheduled batch did; ``new`` counts the files that the table did not know."""

    batch_id: str
    inbox: str
    table: str
    files: int = 0
    new: int = 0
    appended: int = 0
    predicted: int = 0
    abstained: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    counts: str = ""
    model_name: str = ""
    model_version: int | None = None
    dry_run: bool = False
    note: str = ""

    def summary(self) -> str:
        """One or two lines for a person."""
        head = f"{self.inbox}: {_files(self.files)}, {self.new:,} new"
        if not self.new:
            return f"{head}{f' ({self.note})' if self.note else ''}: nothing to predict"
        by = f"{self.counts} by {self.model_name} version {self.model_version}"
        if self.dry_run:
            return f"{head}: {by}; dry run, nothing is written to {self.table}"
        others = self.new - self.appended
        by_others = f" ({others:,} were appended by another batch meanwhile)" if others else ""
        return f"{head}: {by} → {self.table}, {self.appended:,} rows as batch {self.batch_id}{by_others}"


def predict_to_file(
    project: Project, params: Params, source: Path, to: Path, means: Means | None = None
) -> PredictionSummary:
    """Classify a folder's or a table's images with the champion, and write one row for each file, always.

    A champion whose bundle is on this machine is taken by the ledger's word; MLflow is not asked.

    Raises
    ------
    UsageError
        If the output's suffix is unknown, the source has no known form, the device is not there, or there is no
        champion.
    DataError
        If the source holds nothing to predict.
    """
    output.check_output(to)
    waiting = incoming.open_incoming(source, leave_out=to)
    total = waiting.count()
    if not total:
        raise DataError(f"{source}: found {waiting.found()}; expected images to predict. Put some there.")
    means = means or Means()
    if means.device:
        means = replace(means, device=_device(means.device, "--device"))
    champion = known_champion(project, params.name) or _champion(project, params)
    tally = Tally()
    tracked = track(waiting, prefix="predict", unit="images", total=total)
    rows = _rows(project, params, tracked, champion, tally, means)
    output.write(rows, SCHEMA, to)
    return PredictionSummary(
        files=tally.predicted + tally.rejected.total(),
        predicted=tally.predicted,
        abstained=tally.abstained,
        rejected=dict(tally.rejected),
        labels=dict(tally.labels),
        counts=tally.counts(),
        model_name=champion.name,
        model_version=champion.version,
        to=str(to),
    )


def predict_inbox(project: Project, params: Params, *, inbox: Path, dry_run: bool) -> BatchSummary:
    """Classify what an inbox holds and the Delta table does not, and append it, exactly once.

    Parameters
    ----------
    project, params
        The project and its values.
    inbox
        The folder to read. An empty or absent one is no error: a nightly batch may find nothing.
    dry_run
        Classify and count, and write nothing.

    Raises
    ------
    DataError
        If the place of the table holds something else.
    UsageError
        If there is no champion.
    """
    from calotype.predictions import prediction_table

    started = datetime.now(UTC)
    batch = BatchSummary(
        batch_id=f"{started:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}",
        inbox=project.relative(inbox),
        table=project.relative(project.predictions),
        dry_run=dry_run,
    )
    known_keys = prediction_table.known_keys(prediction_table.open_table(project.predictions))
    if not inbox.is_dir():
        return replace(batch, note="no such folder")
    files = Folder(inbox)
    total = files.count()
    if not total:
        return replace(batch, note=files.found())
    return _predict_new(project, params, files, total, known_keys, batch, started)


def _predict_new(
    project: Project,
    params: Params,
    files: Folder,
    total: int,
    known_keys: Container[Key],
    batch: BatchSummary,
    started: datetime,
) -> BatchSummary:
    from calotype.predictions import prediction_table

    champion = _champion(project, params)
    tally = Tally()
    tracked = track(files, prefix="predict", unit="images", total=total)
    rows = _rows(project, params, tracked, champion, tally, Means(), known_keys)
    project.cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="batch-", dir=project.cache) as folder:
        # Classified once into a file: whoever loses the race for the commit subtracts and tries again, from this file.
        spool = Path(folder) / "rows.parquet"
        output.write(
            (_stamped(batch_rows, batch.batch_id, started) for batch_rows in rows), prediction_table.TABLE_SCHEMA, spool
        )
        new = tally.predicted + tally.rejected.total()
        appended = prediction_table.append(project.predictions, spool) if new and not batch.dry_run else 0
    return replace(
        batch,
        files=total,
        new=new,
        appended=appended,
        predicted=tally.predicted,
        abstained=tally.abstained,
        rejected=dict(tally.rejected),
        labels=dict(tally.labels),
        counts=tally.counts(),
        model_name=champion.name,
        model_version=champion.version,
    )


def _rows(
    project: Project,
    params: Params,
    waiting: Iterable[Waiting],
    champion: Champion,
    tally: Tally,
    means: Means,
    known_keys: Container[Key] = known.NONE,
) -> Iterator[pa.RecordBatch]:
    device = _device(means.device or params.train.device)
    cores = machine.cores() if device != "cpu" else min(params.train.threads, machine.cores())
    workers = means.workers or cores
    choice, note = engine_choice.read(project.engines, champion.bundle_digest, device)
    if note:
        say("predict", note)
    batch_size = means.batch_size or (choice.batch_size if choice else params.predict.batch_size)
    loaded = bundle.without_weights(champion.bundle_folder)
    threads = max(1, cores // workers)
    graph = engine_choice.graph(project.engines, champion.bundle_digest, choice)
    engine = engine_choice.engine_of(choice)
    if graph:
        classifier: Classifies = GraphClassifier(engine, loaded, graph, batch_size=batch_size, threads=threads)
    else:
        classifier = _classifier_by_torch(champion, engine, device, batch_size, threads)
    batches = prediction_rows.answered(
        waiting,
        Form(loaded.image, params.ingest.max_megapixels),
        classifier,
        Model(champion.name, champion.version, champion.run_id),
        batch_size=batch_size,
        workers=workers,
        known=known_keys,
    )
    for rows in batches:
        tally.add(rows)
        yield rows


def _device(wanted: str, named: str = "train.device") -> str:
    """The kind of device that answers; torch is asked only where there may be more than a CPU."""
    if wanted == "cpu" or (wanted == "auto" and not machine.may_have_gpu()):
        return "cpu"
    from calotype.learning.device import choose_device

    return choose_device(wanted, named).type


def _classifier_by_torch(champion: Champion, engine: str, device: str, batch_size: int, threads: int) -> Classifies:
    # Torch takes seconds to import.
    from calotype.learning.inference import Classifier

    loaded = bundle.load(champion.bundle_folder)
    return Classifier(loaded, device=device, batch_size=batch_size, threads=threads, engine=engine)


def _champion(project: Project, params: Params) -> Champion:
    # MLflow takes seconds to import: not before there is something to predict, and a champion not known here.
    from calotype.releases import registry

    return registry.champion(project, params)


def _stamped(rows: pa.RecordBatch, batch_id: str, moment: datetime) -> pa.RecordBatch:
    from calotype.predictions.prediction_table import TABLE_SCHEMA

    count = rows.num_rows
    stamps = [pa.array([batch_id] * count, pa.string()), pa.array([moment] * count, pa.timestamp("us", tz="UTC"))]
    return pa.RecordBatch.from_arrays([*rows.columns, *stamps], schema=TABLE_SCHEMA)


def _files(count: int) -> str:
    return f"{count:,} file" if count == 1 else f"{count:,} files"
