"""evaluate: score the model on the test split; write figures, predictions and the report; tell MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import numpy as np
import polars as pl

from calotype.console import say, track
from calotype.data import dataset
from calotype.data.split_digest import split_digest
from calotype.data.splitting import read_splits
from calotype.errors import DataError
from calotype.evaluation import findings, robustness, scoring, throughput
from calotype.evaluation.findings import Answers, Findings
from calotype.files import sha256_of, write_json, write_text
from calotype.learning import bundle as bundles
from calotype.learning.bundle import Bundle
from calotype.learning.inference import Classifier
from calotype.learning.run_record import RunRecord
from calotype.pages import gallery, report, report_files
from calotype.params import Params
from calotype.project import Project
from calotype.provenance import git_state
from calotype.releases import model_card
from calotype.releases.model_card import Card


def run(params: Params, project: Project) -> None:
    """Score ``models/model`` on the test split, and on nothing else; then tell MLflow.

    Raises
    ------
    DataError
        If the model's classes are not the data set's labels, or its answers are no probabilities.
    ParamsError
        If ``evaluate.slices`` names a column that the data do not have.
    """
    found = score(params, project)
    for line in findings.summary(found):
        say("evaluate", line)
    say("evaluate", f"{'report':<16} {project.relative(project.reports / 'report.html')}")
    _log(project, found)
    accuracy = found.evaluation.headline["accuracy"].value
    line = git_state.commit_line(project.root, f"Train {params.name}: accuracy {accuracy:.1%}")
    if line:
        say("evaluate", f"{'to keep it':<16} {line}")


def score(params: Params, project: Project) -> Findings:
    """Score the model and write everything under ``reports/``."""
    bundle = bundles.load(project.bundle)
    training = RunRecord.read(project.run_json)
    _check_training(project, training)
    classifier = scoring.classifier_of(params, bundle)
    answers = _answer(params, project, bundle, classifier)
    found = findings.measure(
        answers,
        bundle.classes,
        params.evaluate,
        temperature=bundle.temperature,
        abstain_below=bundle.abstain_below,
        answer=classifier.probabilities,
        watch=_watched,
    )
    _write(params, project, bundle, training, answers, found)
    return found


def _answer(params: Params, project: Project, bundle: Bundle, classifier: Classifier) -> Answers:
    """Go through the test images once: answers, brightness, and a sample to be changed later."""
    test = scoring.test_images(project, bundle, project.relative(project.bundle))
    if test.is_empty():
        raise DataError("the test split holds no images; expected some. Raise split.test in params.yaml.")
    sampled = robustness.sample(test.height, params.evaluate.robustness_images)
    probabilities = np.empty((test.height, len(bundle.classes)), dtype=np.float32)
    greys = np.empty(test.height)
    kept, timed = [], None
    for place, images in scoring.chunks(params, project, bundle.image, test["image_id"].to_list()):
        probabilities[place] = classifier.probabilities(images)
        greys[place] = robustness.brightness(images)
        kept.append(images[sampled[(sampled >= place.start) & (sampled < place.stop)] - place.start])
        timed = images[: params.predict.batch_size] if timed is None else timed
    assert timed is not None
    return Answers(
        test=test,
        actual=scoring.label_indices(test["label"].to_list(), bundle.classes),
        probabilities=probabilities,
        brightness=greys,
        sampled=sampled,
        sample=np.concatenate(kept),
        cost=throughput.measure(bundle, classifier, timed, params.predict.batch_size),
    )


def _watched(changes: Sequence[robustness.Change]) -> Iterable[robustness.Change]:
    return track(changes, prefix="evaluate", unit="changes", total=len(changes))


def _write(
    params: Params, project: Project, bundle: Bundle, training: RunRecord, answers: Answers, found: Findings
) -> None:
    # That it is the digest of the bundle in place, _check_training has seen.
    digest, reports = training.bundle_digest, project.reports
    rows = report_files.predictions(answers, bundle.classes, bundle.abstain_below)
    about = {
        "bundle_digest": digest,
        "splits_sha256": sha256_of(project.splits),
        "split_digest": split_digest(rows["image_id"].to_list(), rows["label"].to_list()),
    }
    report_files.write_predictions(rows, about, bundle.classes, reports)
    report_files.write_golden(rows, project.dataset, digest, bundle.classes, reports)
    report_files.write_plots(reports / "plots", found, rows, training.history)
    write_json(reports / "metrics.json", findings.as_metrics(found))
    card = _card(params, project, bundle, training, found)
    write_text(reports / "card.md", card.markdown())
    page = _report(params, project, bundle, training, found, rows, card)
    write_text(reports / "report.html", report.render(page))


def _check_training(project: Project, training: RunRecord) -> None:
    found = bundles.digest(project.bundle)
    if found != training.bundle_digest:
        raise DataError(
            f"{project.relative(project.run_json)} tells of the bundle {training.bundle_digest[:12]}…, found "
            f"{found[:12]}… in {project.relative(project.bundle)}. Run `dvc repro` to make both anew."
        )


def _card(params: Params, project: Project, bundle: Bundle, training: RunRecord, found: Findings) -> Card:
    drops = dataset.read_manifest(project.dataset)["drop"].value_counts().sort("drop")
    return model_card.of(
        params,
        bundle,
        training,
        found.evaluation,
        drops=dict(drops.iter_rows()),
        slicing=found.slicing,
        abstention=found.abstention,
        calibration=found.calibration,
    )


def _report(
    params: Params,
    project: Project,
    bundle: Bundle,
    training: RunRecord,
    found: Findings,
    rows: pl.DataFrame,
    card: Card,
) -> report.Report:
    return report.Report(
        title=training.experiment,
        findings=found,
        history=training.history,
        facts=_facts(project, bundle, training, found),
        parameters=training.params,
        mistakes=_mistakes(project, rows, params.ingest.max_megapixels),
        promised=bundle.trained_with.get("calibration", {}),
        card=card,
    )


def _mistakes(project: Project, predictions: pl.DataFrame, max_megapixels: float) -> list[report.Mistake]:
    wrong = predictions.filter(pl.col("label") != pl.col("predicted"))
    worst = wrong.sort("confidence", "image_id", descending=[True, False]).head(report.MOST_MISTAKES)
    drawn = gallery.pictures(project.dataset, worst["image_id"].to_list(), max_megapixels=max_megapixels)
    mistakes = []
    for row in worst.iter_rows(named=True):
        picture = drawn[row["image_id"]]
        words = row["path"], row["label"], row["predicted"]
        mistakes.append(report.Mistake(*words, row["confidence"], picture.uri, picture.is_small))
    return mistakes


def _facts(project: Project, bundle: Bundle, training: RunRecord, found: Findings) -> dict[str, str]:
    """Words and values about model and data, as far as they are known."""
    environment, image = training.environment, bundle.image
    changed = ", with changes" if environment.get("git_dirty") else ""
    commit = environment.get("git_commit")
    facts = {
        "Network": f"{bundle.network.name}, {found.cost.parameters:,} parameters",
        "Input": f"{image.size}×{image.size} pixels, {'grey' if image.channels == 1 else 'colour'}, {image.resize}",
        "Images": _split_counts(project),
        "Data digest": dataset.digest(project.dataset),
        "Model digest": training.bundle_digest,
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


def _when(training: RunRecord) -> str:
    seconds = round(training.ended_at - training.started_at)
    end = datetime.fromtimestamp(training.ended_at, UTC)
    kept = f"best epoch {training.best_epoch}"
    if training.environment.get("weights_from"):
        return f"calibrated {end:%Y-%m-%d %H:%M} UTC, with the weights of an earlier, equal training, {kept}"
    took = f"{seconds} s" if seconds < 120 else f"{seconds // 60} min {seconds % 60} s"
    return f"{end:%Y-%m-%d %H:%M} UTC, {len(training.history)} epochs in {took}, {kept}"


def _log(project: Project, found: Findings) -> None:
    # MLflow costs seconds to import and may be unreachable: by now every file is in its place.
    from calotype import tracking

    reports = project.reports
    names = ("report.html", "data.html", "card.md")
    readable = [reports / name for name in names if (reports / name).is_file()]
    artifacts = {
        "report": readable,
        "plots": sorted((reports / "plots").iterdir()),
        "predictions": [reports / "predictions.parquet"],
        "golden": [reports / "golden.parquet"],
    }
    run_id = tracking.log_evaluation(project, findings.as_logged(found), artifacts)
    say("evaluate", f"{'MLflow run':<16} {run_id}")
