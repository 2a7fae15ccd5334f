"""The tables under reports/ that an evaluation leaves: predictions, golden images, what the plots are drawn from."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from calotype.data import dataset
from calotype.data.schemas import validate
from calotype.evaluation import abstention
from calotype.evaluation.findings import Answers, Findings
from calotype.evaluation.metrics import Estimate
from calotype.files import replacing, write_bytes, write_text
from calotype.pages import plots

PREDICTIONS_VERSION = "2"
GOLDEN_IMAGES = 32


def predictions(answers: Answers, classes: Sequence[str], abstain_below: float) -> pl.DataFrame:
    """One row for each test image: what it is, what was answered, how surely, and whether the answer is withheld."""
    names = np.array(classes, dtype=object)
    shares = answers.probabilities
    return answers.test.select(
        "image_id",
        "path",
        "label",
        pl.Series("predicted", names[shares.argmax(axis=1)].tolist(), dtype=pl.String),
        pl.Series("confidence", answers.confidence, dtype=pl.Float32),
        pl.Series("abstained", ~abstention.is_answered(answers.confidence, abstain_below)),
        pl.Series("probabilities", shares).cast(pl.List(pl.Float32)),
    )


def write_predictions(rows: pl.DataFrame, about: Mapping[str, str], classes: Sequence[str], folder: Path) -> None:
    """Write predictions.parquet.

    Parameters
    ----------
    rows
        What `predictions` made.
    about
        Which model and which split, for the file's metadata.
    classes
        Names, in the order of the probabilities.
    folder
        Where to.
    """
    validate("predictions", rows, folder / "schema_failures.parquet")
    metadata = {"format_version": PREDICTIONS_VERSION, "classes": _names(classes), **about}
    with replacing(folder / "predictions.parquet") as temporary:
        rows.write_parquet(temporary, metadata=metadata)


def write_golden(rows: pl.DataFrame, data: Path, bundle_digest: str, classes: Sequence[str], folder: Path) -> None:
    """Write golden.parquet: some test images with their bytes and the answers that any later loading must give again.

    Parameters
    ----------
    rows
        Predictions, sorted by image_id: the first ones are taken.
    data
        The dataset.
    bundle_digest, classes
        Of the model, for the file's metadata.
    folder
        Where to.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    chosen = rows.head(GOLDEN_IMAGES)
    encoded = dict(dataset.read_bytes(data, chosen["image_id"].to_list()))
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("image_id", pa.string()), ("image", picture), ("probabilities", pa.list_(pa.float32()))],
        metadata={"format_version": "1", "bundle_digest": bundle_digest, "classes": _names(classes)},
    )
    golden = [
        {
            "image_id": row["image_id"],
            "image": {"bytes": encoded[row["image_id"]], "path": row["path"]},
            "probabilities": row["probabilities"],
        }
        for row in chosen.iter_rows(named=True)
    ]
    with replacing(folder / "golden.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(golden, schema=schema), temporary, compression="zstd")


def write_plots(folder: Path, found: Findings, rows: pl.DataFrame, history: Sequence[Mapping[str, Any]]) -> None:
    """Write the tables that `dvc plots` draws, and the confusion matrix as a picture."""
    evaluation = found.evaluation
    pairs = rows.select(actual="label", predicted="predicted").sort("actual", "predicted")
    _write_table(folder / "confusion.csv", pairs.columns, pairs.iter_rows())
    series = sorted(history[0].keys() - {"epoch"}) if history else []
    epochs = ([int(row["epoch"]), *(row[name] for name in series)] for row in history)
    _write_table(folder / "curves.csv", ["epoch", *series], epochs)
    columns = ["class", "images", "precision", "recall", "f1"]
    scores = ((s.name, s.support, s.precision.value, s.recall.value, s.f1) for s in evaluation.per_class)
    _write_table(folder / "per_class.csv", columns, scores)
    write_bytes(folder / "confusion.png", plots.confusion_png(evaluation.confusion, evaluation.classes))
    _write_trust(folder, found)


def _write_trust(folder: Path, found: Findings) -> None:
    bins = ((b.confidence, *_three(b.accuracy), b.images) for b in found.calibration.bins)
    _write_table(folder / "reliability.csv", ["confidence", "accuracy", "low", "high", "images"], bins)
    _write_table(folder / "coverage.csv", ["coverage", "precision"], found.abstention.curve)
    columns = ["slice", "value", "images", "accuracy", "low", "high", "difference", "difference_low", "difference_high"]
    cuts = (
        (dimension.name, part.value, part.images, *_three(part.accuracy), *_three(part.difference))
        for dimension in found.slicing.dimensions
        for part in dimension.slices
    )
    _write_table(folder / "slices.csv", columns, cuts)
    changed = found.robustness.outcomes if found.robustness else ()
    columns = ["change", "strength", "accuracy", "low", "high", "drop", "drop_low", "drop_high"]
    drops = ((one.kind, one.label, *_three(one.accuracy), *_three(one.drop)) for one in changed)
    _write_table(folder / "robustness.csv", columns, drops)


def _three(figure: Estimate) -> tuple[float, float, float]:
    return figure.value, figure.low, figure.high


def _names(classes: Sequence[str]) -> str:
    return json.dumps(list(classes), ensure_ascii=False)


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Any]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, text.getvalue())
