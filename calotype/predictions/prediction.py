"""Batch prediction into a file: one row for each file of a folder, or each path of a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from calotype.console import track
from calotype.counted import counted
from calotype.errors import DataError
from calotype.params import Params
from calotype.predictions import answering, incoming, output
from calotype.predictions.answering import Answering, Means, Tally
from calotype.predictions.incoming import Waiting
from calotype.predictions.prediction_rows import SCHEMA, classify
from calotype.predictions.preparing import Form, in_order, prepare
from calotype.project import Project


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
        by = f"{self.model_name} version {self.model_version}"
        return f"{counted(self.files, 'file')}: {self.counts} by {by} → {self.to}"


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
    means = answering.with_device(means or Means())
    champion = answering.champion(project, params)
    tally = Tally()
    tracked = track(waiting, prefix="predict", unit="images", total=total)
    rows = _rows(tracked, answering.answering(project, params, champion, means), params.ingest.max_megapixels, tally)
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


def _rows(waiting: Iterable[Waiting], who: Answering, max_megapixels: float, tally: Tally) -> Iterator[pa.RecordBatch]:
    form = Form((who.image,), max_megapixels)

    def work(batch: list[Waiting]) -> pa.RecordBatch:
        prepared = prepare(batch, form, incoming.read_file)
        return classify(prepared, who.classifier, who.model, who.image)

    for rows in in_order(waiting, work, batch_size=who.batch_size, workers=who.workers):
        tally.add(rows, rows["reason"])
        yield rows
