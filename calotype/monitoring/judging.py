"""A span of predictions of one model version against the reference in that version's bundle."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from deltalake import DeltaTable

from calotype.learning import bundle
from calotype.learning.reference import Reference
from calotype.monitoring import sampling, shifts
from calotype.monitoring.sampling import Predictions, Span
from calotype.monitoring.shifts import Comparison, Sample
from calotype.params import Params


@dataclass(frozen=True)
class Judged:
    """A span of predictions with all that was found about it."""

    span: Span
    reference: Sample
    predictions: Predictions
    comparison: Comparison
    seconds: float


def judge(table: DeltaTable, params: Params, span: Span, folder: Path) -> Judged | str:
    """Compare a span with the reference of the bundle in a folder; where that cannot be, say why.

    Raises
    ------
    DataError
        If the bundle is damaged, or the span holds labels that its model does not know.
    """
    started = time.monotonic()
    reference = bundle.reference(folder)
    classes = bundle.without_weights(folder).classes
    predictions = sampling.read(table, params.name, span, classes) if reference is not None else None
    if reference is None or predictions is None:
        return (
            f"{params.name} version {span.model_version}: {span.images:,} predictions are not judged, its bundle is of "
            "an older format, without reference or embeddings. Train again with `dvc repro`, register and promote."
        )
    expected = sample_of(reference)
    comparison = shifts.compare(expected, predictions.sample, classes, params.monitor.alpha)
    return Judged(span, expected, predictions, comparison, time.monotonic() - started)


def sample_of(reference: Reference) -> Sample:
    """A bundle's reference as a sample: its model's answers to the validation images."""
    return Sample(
        embedding=reference.embedding.astype(np.float32),
        predicted=reference.probabilities.argmax(axis=1).astype(np.int64),
        confidence=reference.probabilities.max(axis=1),
        appearance=reference.appearance,
    )
