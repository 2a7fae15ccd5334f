"""How well a champion answers in production, by the labels that came later; and whether that calls for a training.

An answer counts for the version that gave it as champion, in the window (calendar week or month, UTC, half-open) in
which it was given; its truth is the label that holds today. Precision, recall, F1 and the bootstrap are those of
`calotype.evaluation.metrics`; accuracy is a share of few images at first, and has the exact interval of Clopper and
Pearson (1934), which never claims more than 95 %.

Labelled images are seldom a random sample: whoever labels looks at what was complained about, or was withheld. So each
figure says of how many answers it speaks, and how confident those were beside all.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

import numpy as np
import polars as pl
import pyarrow.dataset as ds
from deltalake.exceptions import CommitFailedError

from calotype import delta
from calotype.delta import batches
from calotype.errors import CalotypeError
from calotype.evaluation import metrics
from calotype.evaluation.metrics import ClassScore, Estimate, Floats, Ints
from calotype.params import Params
from calotype.predictions.reading import open_checked
from calotype.predictions.tables import CHAMPION, PREDICTIONS
from calotype.production import labels_table
from calotype.project import Project
from calotype.releases import ledger

By = Literal["week", "month"]
WINDOWS: dict[By, str] = {"week": "1w", "month": "1mo"}
"""Calendar windows in UTC, as polars writes them; a week begins on Monday."""

MACRO = ("precision_macro", "recall_macro", "f1_macro")
ALARMED = "calotype.alarmed"
ATTEMPTS = 30

COLUMNS = ("image_id", "label", "confidence", "model_version", "predicted_at")


@dataclass(frozen=True)
class Score:
    """Figures of labelled answers.

    Attributes
    ----------
    images, answers
        Labelled ones, of how many.
    right
        Labelled ones that were answered rightly.
    accuracy
        With the exact interval; macro figures with the bootstrap's.
    per_class
        In the order of ``classes``, with Wilson intervals; ``f1`` of each with the bootstrap's.
    confusion
        Counts, shape (K, K): true class down, answer across.
    confidence, confidence_of_all
        Mean confidence of the labelled answers, and of all.
    """

    images: int
    answers: int
    right: int
    accuracy: Estimate
    macro: dict[str, Estimate]
    per_class: tuple[ClassScore, ...]
    f1: tuple[Estimate, ...]
    classes: tuple[str, ...]
    confusion: Ints
    confidence: float
    confidence_of_all: float


@dataclass(frozen=True)
class Window:
    """Answers that one version gave from ``start`` to before ``end``, UTC; no score where none is labelled."""

    version: int
    start: date
    end: date
    answers: int
    score: Score | None


@dataclass(frozen=True)
class Production:
    """What the labels say.

    Attributes
    ----------
    labels
        Images with a label that holds.
    versions
        Figures by model version, rising; None where no answer of a version is labelled.
    windows
        Those in which anything was answered, in order.
    """

    by: By
    labels: int
    versions: dict[int, Score | None]
    windows: tuple[Window, ...]


@dataclass(frozen=True)
class Judgement:
    """Is the champion shown to be below `monitor.min_accuracy`?

    Attributes
    ----------
    version
        The champion; None if there is none.
    images
        Labelled answers that were judged.
    accuracy, low, high
        Share of right ones and its exact 95 % interval; None where nothing was judged.
    is_below
        Whether the interval's upper end lies below `monitor.min_accuracy`, by labels that raised no alarm before.
    reason
        One line.
    newest
        When the last of the judged labels was added.
    """

    version: int | None
    images: int
    accuracy: float | None
    low: float | None
    high: float | None
    is_below: bool
    reason: str
    newest: datetime | None = None


def measure(project: Project, params: Params, by: By = "week") -> Production:
    """Score every version in every window.

    Raises
    ------
    DataError
        If something else is at a table's place.
    CalotypeError
        If a place cannot be reached.
    """
    labels = labels_table.holding(labels_table.read(project))
    labelled, given = _answers(project, params, labels, by)
    resamples = params.evaluate.bootstrap
    versions: dict[int, Score | None] = {}
    windows: list[Window] = []
    for (version,), rows in given.sort("model_version", "window").group_by("model_version", maintain_order=True):
        mine = labelled.filter(pl.col("model_version") == version)
        versions[int(str(version))] = _score(mine, rows, resamples)
        for row in rows.iter_rows(named=True):
            inside = mine.filter(pl.col("window") == row["window"])
            score = _score(inside, rows.filter(pl.col("window") == row["window"]), resamples)
            start: datetime = row["window"]
            windows.append(Window(row["model_version"], start.date(), _end(start, by), row["answers"], score))
    windows.sort(key=lambda window: (window.start, window.version))
    return Production(by, labels.height, versions, tuple(windows))


def judge(project: Project, params: Params) -> Judgement:
    """Compare the champion's production accuracy with `monitor.min_accuracy`, by labels that raised no alarm before.

    Whoever raises the alarm says so by `remember`, which writes into the table of labels up to when its labels were
    added; only labels added after that are judged next time, so no label counts for two alarms of one version. Who asks
    after each addition asks often: a champion that is just good enough is called low in at most 2.5 % of the looks, not
    in 2.5 % of its life.

    Raises
    ------
    DataError
        If something else is at a table's place.
    CalotypeError
        If a place cannot be reached.
    """
    version = ledger.read(project.ledger, params.name).head
    if version is None:
        return _unjudged(None, f"{params.name} has no champion")
    title = f"{params.name} version {version}"
    labels = labels_table.holding(labels_table.read(project))
    alarmed = _alarmed(project, version)
    fresh = labels if alarmed is None else labels.filter(pl.col("added_at") > alarmed)
    mine = _answers(project, params, fresh, "month")[0].filter(pl.col("model_version") == version)
    since = f" since the alarm by the labels up to {alarmed:%Y-%m-%d %H:%M} UTC" if alarmed else ""
    if mine.is_empty():
        return _unjudged(version, f"no answer of {title} was labelled{since}")
    found = exact(int((mine["truth"] == mine["label"]).sum()), mine.height)
    least = params.monitor.min_accuracy
    is_below = found.high < least
    verdict = "is shown to be below" if is_below else "is not shown to be below"
    reason = (
        f"{title}: production accuracy {found.percent} on {mine.height:,} labelled images{since} {verdict} "
        f"monitor.min_accuracy {least:g}"
    )
    newest: datetime = mine["added_at"].max()  # type: ignore[assignment]
    return Judgement(version, mine.height, found.value, found.low, found.high, is_below, reason, newest)


def remember(project: Project, judgement: Judgement) -> None:
    """Let the labels of an alarm that was raised count for no other alarm of this version.

    Raises
    ------
    CalotypeError
        If the place cannot be reached, or other writers came first `ATTEMPTS` times.
    """
    if judgement.version is None or judgement.newest is None:
        return
    place = project.table(labels_table.NAME)
    for _ in range(ATTEMPTS):
        alarmed = _alarmed(project, judgement.version)
        if alarmed is not None and alarmed >= judgement.newest:
            return
        table = open_checked(project, labels_table.NAME, labels_table.LABELS)
        assert table is not None
        mark = {f"{ALARMED}.{judgement.version}": judgement.newest.isoformat()}
        with contextlib.suppress(CommitFailedError), delta.reaching(place, labels_table.LABELS):
            table.alter.set_table_properties(mark, raise_if_not_exists=False)
    raise CalotypeError(
        f"{place}: {ATTEMPTS} attempts to write met other writers, each ahead of this one. Run it again."
    )


def exact(right: int, images: int) -> Estimate:
    """A share with its Clopper-Pearson interval; nothing is known of no images."""
    from scipy.special import betaincinv

    tail = (1 - metrics.CONFIDENCE) / 2
    low = float(betaincinv(right, images - right + 1, tail)) if right else 0.0
    high = float(betaincinv(right + 1, images - right, 1 - tail)) if right < images else 1.0
    return Estimate(right / images if images else 0.0, low, high)


def _answers(project: Project, params: Params, labels: pl.DataFrame, by: By) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Labelled answers with their truth, and counts of all by version and window; memory holds the labelled ones."""
    truths = labels.select("image_id", "added_at", pl.col("label").alias("truth"))
    where = (ds.field("role") == CHAMPION) & (ds.field("model_name") == params.name)
    start = pl.col("predicted_at").dt.truncate(WINDOWS[by]).alias("window")
    empty = pl.DataFrame(PREDICTIONS.schema.empty_table()).select(COLUMNS).with_columns(start)
    found, counts = [empty.join(truths, on="image_id")], [_counted(empty)]
    for batch in batches(open_checked(project, "predictions", PREDICTIONS), PREDICTIONS, COLUMNS, where):
        rows = pl.DataFrame(batch).with_columns(start)
        counts.append(_counted(rows))
        found.append(rows.join(truths, on="image_id"))
    given = pl.concat(counts).group_by("model_version", "window").sum()
    # A version that was asked twice about an image gave one answer: the last.
    kept = pl.concat(found).sort("predicted_at", "image_id")
    return kept.unique(["image_id", "model_version"], keep="last", maintain_order=True), given


def _counted(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.group_by("model_version", "window").agg(
        pl.len().cast(pl.Int64).alias("answers"), pl.col("confidence").cast(pl.Float64).sum()
    )


def _score(labelled: pl.DataFrame, given: pl.DataFrame, resamples: int) -> Score | None:
    if labelled.is_empty():
        return None
    answers = int(given["answers"].sum())
    classes = sorted({*labelled["truth"], *labelled["label"]})
    places = {name: place for place, name in enumerate(classes)}
    actual, predicted = (
        labelled[name].replace_strict(places, return_dtype=pl.Int64).to_numpy() for name in ("truth", "label")
    )
    confusion = metrics.confusion_matrix(actual, predicted, len(classes))
    right = int(confusion.trace())
    macro, f1 = _resampled(confusion, resamples)
    return Score(
        images=labelled.height,
        answers=answers,
        right=right,
        accuracy=exact(right, labelled.height),
        macro=macro,
        per_class=metrics.per_class(confusion, classes),
        f1=f1,
        classes=tuple(classes),
        confusion=confusion,
        confidence=float(labelled["confidence"].cast(pl.Float64).mean()),  # type: ignore[arg-type]
        confidence_of_all=float(given["confidence"].sum()) / answers,
    )


def _resampled(confusion: Ints, resamples: int) -> tuple[dict[str, Estimate], tuple[Estimate, ...]]:
    """Macro figures, and F1 by class, with the bootstrap's intervals.

    A resample of the images is a multinomial draw of the confusion matrix's cells: no image is needed.
    """
    truths, answers = np.nonzero(confusion)
    cells = confusion[truths, answers]
    draws = np.random.default_rng(metrics.SEED).multinomial(cells.sum(), cells / cells.sum(), resamples)
    values = _figures(truths, answers, cells, len(confusion))
    drawn = np.array([_figures(truths, answers, draw, len(confusion)) for draw in draws])
    figures = [metrics.percentile_interval(float(value), column) for value, column in zip(values, drawn.T, strict=True)]
    return dict(zip(MACRO, figures, strict=False)), tuple(figures[len(MACRO) :])


def _figures(truths: Ints, answers: Ints, counts: Ints, classes: int) -> Floats:
    """The macro figures, then each class's F1."""
    is_right = truths == answers
    support = np.bincount(truths, counts, classes)
    predicted = np.bincount(answers, counts, classes)
    positives = np.bincount(truths[is_right], counts[is_right], classes)
    averages = metrics.averages(positives, support, predicted)
    f1 = 2 * positives / np.maximum(support + predicted, 1)
    return np.concatenate([[averages[name] for name in MACRO], f1])


def _end(start: datetime, by: By) -> date:
    if by == "week":
        return start.date() + timedelta(days=7)
    return (start.date().replace(day=28) + timedelta(days=4)).replace(day=1)


def _unjudged(version: int | None, reason: str) -> Judgement:
    return Judgement(version, 0, None, None, None, False, reason)


def _alarmed(project: Project, version: int) -> datetime | None:
    table = open_checked(project, labels_table.NAME, labels_table.LABELS)
    text = None if table is None else table.metadata().configuration.get(f"{ALARMED}.{version}")
    return datetime.fromisoformat(text) if text else None
