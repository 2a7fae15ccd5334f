"""evaluate: score the model on the test split; write figures, predictions and the report; tell MLflow."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from calotype import bundle as bundles
from calotype import dataset, git_state, metrics, pages, plots, report
from calotype.bundle import Bundle
from calotype.console import say
from calotype.errors import DataError
from calotype.files import replacing, write_bytes, write_json, write_text
from calotype.inference import Classifier
from calotype.metrics import Evaluation
from calotype.params import Params
from calotype.project import Project
from calotype.run_record import RunRecord
from calotype.schemas import validate
from calotype.splitting import read_splits

CHUNK_BYTES = 1 << 29
"""Pixels held at once."""


def run(params: Params, project: Project) -> None:
    """Score ``models/model`` on the test split, and on nothing else; then tell MLflow.

    Raises
    ------
    DataError
        If the model's classes are not the data set's labels, or its answers are no probabilities.
    """
    evaluation = score(params, project)
    for line in metrics.summary(evaluation):
        say("evaluate", line)
    say("evaluate", f"{'report':<16} {project.relative(project.reports / 'report.html')}")
    _log(project, evaluation)
    line = git_state.commit_line(
        project.root, f"Train {params.name}: accuracy {evaluation.headline['accuracy'].value:.1%}"
    )
    if line:
        say("evaluate", f"{'to keep it':<16} {line}")


def score(params: Params, project: Project) -> Evaluation:
    """Score the model and write everything under ``reports/``."""
    bundle = bundles.load(project.bundle)
    training = RunRecord.read(project.run_json)
    _check_training(project, training)
    test = test_images(project, bundle)
    probabilities = classify(params, project, bundle, test["image_id"].to_list())
    actual = label_indices(test["label"].to_list(), bundle.classes)
    evaluation = metrics.measure(
        actual, probabilities, bundle.classes, top_k=params.evaluate.top_k, resamples=params.evaluate.bootstrap
    )
    predictions = _predictions(test, probabilities, bundle.classes)
    _write_predictions(project, predictions, bundle.classes)
    write_json(project.reports / "metrics.json", metrics.as_metrics(evaluation))
    _write_plots(project.reports / "plots", evaluation, predictions, training.history)
    page = _report(params, project, bundle, training, evaluation, predictions)
    write_text(project.reports / "report.html", report.render(page))
    return evaluation


def test_images(project: Project, bundle: Bundle) -> pl.DataFrame:
    """Rows of the manifest that the test split holds: image_id, path, label, in the order of image_id.

    Raises
    ------
    DataError
        If the data set's labels are not exactly the model's classes.
    """
    manifest = dataset.read_manifest(project.dataset).select("image_id", "path", "label")
    _check_classes(manifest["label"], bundle.classes, project.relative(project.bundle))
    splits = read_splits(project.splits).filter(pl.col("split") == "test").select("image_id")
    return manifest.join(splits, on="image_id", how="inner").sort("image_id")


def classify(params: Params, project: Project, bundle: Bundle, image_ids: Sequence[str]) -> NDArray[np.float32]:
    """Class probabilities of stored images, float32 (N, K), in the order of ``image_ids``."""
    classifier = Classifier(
        bundle, device=params.train.device, batch_size=params.predict.batch_size, threads=params.train.threads
    )
    size = bundle.image.channels * bundle.image.size**2
    step = max(1, CHUNK_BYTES // size)
    megapixels = params.ingest.max_megapixels
    parts = [
        classifier.probabilities(
            dataset.load_images(
                project.dataset,
                image_ids[start : start + step],
                bundle.image,
                max_megapixels=megapixels,
                prefix="evaluate",
            )
        )
        for start in range(0, len(image_ids), step)
    ]
    return np.concatenate(parts) if parts else np.empty((0, len(bundle.classes)), dtype=np.float32)


def label_indices(labels: Sequence[str], classes: Sequence[str]) -> metrics.Ints:
    """Where each label stands among the model's classes."""
    places = {name: place for place, name in enumerate(classes)}
    return np.array([places[label] for label in labels], dtype=np.int64)


def _check_classes(labels: pl.Series, classes: Sequence[str], model: str) -> None:
    counts = dict(labels.value_counts().sort("label").iter_rows())
    unknown = [f"{label!r} ({count:,} images)" for label, count in counts.items() if label not in classes]
    absent = [repr(name) for name in classes if name not in counts]
    found = [f"{model} does not know the label {', '.join(unknown[:5])}"] if unknown else []
    found += [f"the data set has no images of {', '.join(absent[:5])}, which {model} knows"] if absent else []
    if found:
        raise DataError(f"{'; '.join(found)}. Expected equal classes: run `dvc repro` to train on these data.")


def _check_training(project: Project, training: RunRecord) -> None:
    found = bundles.digest(project.bundle)
    if found != training.bundle_digest:
        raise DataError(
            f"{project.relative(project.run_json)} tells of the bundle {training.bundle_digest[:12]}…, found "
            f"{found[:12]}… in {project.relative(project.bundle)}. Run `dvc repro` to make both anew."
        )


def _predictions(test: pl.DataFrame, probabilities: NDArray[np.float32], classes: Sequence[str]) -> pl.DataFrame:
    names = np.array(classes, dtype=object)
    return test.with_columns(
        pl.Series("predicted", names[probabilities.argmax(axis=1)].tolist(), dtype=pl.String),
        pl.Series("confidence", probabilities.max(axis=1), dtype=pl.Float32),
        pl.Series("probabilities", probabilities).cast(pl.List(pl.Float32)),
    )


def _write_predictions(project: Project, predictions: pl.DataFrame, classes: Sequence[str]) -> None:
    """One row for each test image; the file's metadata name the model, and the classes in their order."""
    about = {
        "format_version": "1",
        "bundle_digest": bundles.digest(project.bundle),
        "classes": json.dumps(list(classes), ensure_ascii=False),
    }
    validate("predictions", predictions, project.reports / "schema_failures.parquet")
    with replacing(project.reports / "predictions.parquet") as temporary:
        predictions.write_parquet(temporary, metadata=about)


def _write_plots(
    folder: Path, evaluation: Evaluation, predictions: pl.DataFrame, history: Sequence[Mapping[str, Any]]
) -> None:
    pairs = predictions.select(actual="label", predicted="predicted").sort("actual", "predicted")
    _write_table(folder / "confusion.csv", pairs.columns, pairs.iter_rows())
    series = sorted(history[0].keys() - {"epoch"}) if history else []
    epochs = ([int(row["epoch"]), *(row[name] for name in series)] for row in history)
    _write_table(folder / "curves.csv", ["epoch", *series], epochs)
    columns = ["class", "images", "precision", "recall", "f1"]
    scores = ((s.name, s.support, s.precision.value, s.recall.value, s.f1) for s in evaluation.per_class)
    _write_table(folder / "per_class.csv", columns, scores)
    write_bytes(folder / "confusion.png", plots.confusion_png(evaluation.confusion, evaluation.classes))


def _write_table(path: Path, columns: Sequence[str], rows: Iterator[Any]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _report(
    params: Params,
    project: Project,
    bundle: Bundle,
    training: RunRecord,
    evaluation: Evaluation,
    predictions: pl.DataFrame,
) -> report.Report:
    return report.Report(
        title=training.experiment,
        evaluation=evaluation,
        history=training.history,
        facts=_facts(project, bundle, training),
        parameters=training.params,
        mistakes=_mistakes(project, predictions, params.ingest.max_megapixels),
    )


def _mistakes(project: Project, predictions: pl.DataFrame, max_megapixels: float) -> list[report.Mistake]:
    wrong = predictions.filter(pl.col("label") != pl.col("predicted"))
    worst = wrong.sort("confidence", "image_id", descending=[True, False]).head(report.MOST_MISTAKES)
    data = dict(dataset.read_bytes(project.dataset, worst["image_id"].to_list()))
    mistakes = []
    for row in worst.iter_rows(named=True):
        picture, is_small = pages.picture(data[row["image_id"]], max_megapixels=max_megapixels)
        shown = report.Mistake(row["path"], row["label"], row["predicted"], row["confidence"], picture, is_small)
        mistakes.append(shown)
    return mistakes


def _facts(project: Project, bundle: Bundle, training: RunRecord) -> dict[str, str]:
    """Words and values about model and data, as far as they are known."""
    environment, image = training.environment, bundle.image
    changed = ", with changes" if environment.get("git_dirty") else ""
    commit = environment.get("git_commit")
    facts = {
        "Network": f"{bundle.network.name}, {_parameter_count(bundle):,} parameters",
        "Input": f"{image.size}×{image.size} pixels, {'grey' if image.channels == 1 else 'colour'}, {image.resize}",
        "Images": _split_counts(project),
        "Data digest": dataset.digest(project.dataset),
        "Model digest": bundles.digest(project.bundle),
        "Trained": _when(training),
        "Device": environment.get("device"),
        "Git commit": f"{commit}{changed}" if commit else None,
        "MLflow run": training.mlflow_run_id,
    }
    return {word: str(value) for word, value in facts.items() if value}


def _split_counts(project: Project) -> str:
    counts = dict(read_splits(project.splits)["split"].value_counts().iter_rows())
    words = {"train": "for training", "val": "for validation", "test": "for the test"}
    return ", ".join(f"{counts.get(name, 0):,} {word}" for name, word in words.items())


def _parameter_count(bundle: Bundle) -> int:
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return sum(tensor.numel() for name, tensor in bundle.weights.items() if not name.endswith(statistics))


def _when(training: RunRecord) -> str:
    seconds = round(training.ended_at - training.started_at)
    took = f"{seconds} s" if seconds < 120 else f"{seconds // 60} min {seconds % 60} s"
    end = datetime.fromtimestamp(training.ended_at, UTC)
    epochs = len(training.history)
    return f"{end:%Y-%m-%d %H:%M} UTC, {epochs} epochs in {took}, best epoch {training.best_epoch}"


def _log(project: Project, evaluation: Evaluation) -> None:
    # MLflow costs seconds to import and may be unreachable: by now every file is in its place.
    from calotype import tracking

    reports = project.reports
    artifacts = {"report": [reports / "report.html"], "plots": sorted((reports / "plots").iterdir())}
    run_id = tracking.log_evaluation(project, metrics.as_logged(evaluation), artifacts)
    say("evaluate", f"{'MLflow run':<16} {run_id}")
