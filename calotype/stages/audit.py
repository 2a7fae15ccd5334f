"""audit: rank the images of train and val whose label is doubted by networks that did not train on them.

Off the main path: `dvc repro audit/dvc.yaml`. The test split is not read: labels changed after a look at what a network
answers for them would make its figure on them too good.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from calotype.console import LINE_EVERY_S, say
from calotype.data import dataset
from calotype.data.splitting import read_splits
from calotype.errors import DataError
from calotype.evaluation import suspects
from calotype.evaluation.suspects import Ints, Suspects
from calotype.files import replacing, write_text
from calotype.learning import folds, network
from calotype.learning.device import choose_device
from calotype.learning.training import Labelled
from calotype.pages import audit_page, gallery
from calotype.pages.audit_page import AuditPage, Doubt
from calotype.params import Params
from calotype.project import Project

PREFIX = "audit"
LEAST_ROWS = 100
LEAST_SHARE = 0.04
"""The CSV holds as many rows as there are suspects, and at least this share of the images, or ``LEAST_ROWS``."""
SIDE = 144


def run(params: Params, project: Project) -> None:
    """Judge each image by a network that did not train on it; write reports/suspects.csv and reports/audit.html.

    Raises
    ------
    ParamsError
        If the network does not run at the image size, or the device is absent.
    DataError
        If dataset and splits do not belong together, or if all images are one group.
    """
    network.check(params.network, params.image)
    rows = read_rows(project)
    classes = tuple(sorted(rows["label"].unique().to_list()))
    index = {name: place for place, name in enumerate(classes)}
    labels = np.array([index[label] for label in rows["label"]], dtype=np.int64)
    probabilities = _judge(params, project, rows, labels, len(classes))
    found = suspects.find(labels, probabilities.astype(np.float64))
    table = _table(rows, classes, found)
    with replacing(project.reports / "suspects.csv") as temporary:
        table.drop("split").write_csv(temporary)
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    page = _page(params, project, table, labels, classes, found, accuracy)
    write_text(project.reports / "audit.html", audit_page.render(page))
    _say_result(project, found, accuracy)


def read_rows(project: Project) -> pl.DataFrame:
    """Images of train and val: image_id, path, label, split, key; in the order of image_id.

    ``key`` is the group, or the image_id where there is none: images that share it share a fold.

    Raises
    ------
    DataError
        If the splits are not those of the dataset.
    """
    manifest = dataset.read_manifest(project.dataset).select("image_id", "path", "label")
    splits = read_splits(project.splits)
    rows = manifest.join(splits.select("image_id", "split", "group"), on="image_id", how="inner")
    if not len(rows) == len(splits) == len(manifest):
        raise DataError(f"{project.relative(project.splits)}: not the split of this dataset. Run `dvc repro split`.")
    key = pl.coalesce("group", "image_id").alias("key")
    chosen = rows.filter(pl.col("split").is_in(["train", "val"])).sort("image_id")
    return chosen.select("image_id", "path", "label", "split", key)


def _judge(params: Params, project: Project, rows: pl.DataFrame, labels: Ints, classes: int) -> NDArray[np.float32]:
    device = choose_device(params.train.device)
    torch.set_num_threads(params.train.threads)
    recipe = folds.recipe(params)
    say(
        PREFIX,
        f"{len(rows):,} images of train and val in {params.audit.folds} folds; {params.network.name}, "
        f"{recipe.epochs} epochs each; {device.type}, {params.train.threads} threads",
    )
    images = dataset.load_images(
        project.dataset,
        rows["image_id"].to_list(),
        params.image,
        max_megapixels=params.ingest.max_megapixels,
        prefix=PREFIX,
    )

    def build() -> torch.nn.Module:
        model = network.build(params.network, params.image, classes)
        network.load_initial_weights(model, params.network, project.root)
        return model

    return folds.out_of_fold(
        Labelled(torch.from_numpy(images), torch.from_numpy(labels)),
        folds.assign(rows["key"].to_list(), params.audit.folds),
        build,
        train=recipe,
        augmentation=params.augment,
        device=device,
        classes=classes,
        on_epoch=_progress(params.audit.folds, recipe.epochs),
    )


def _progress(fold_count: int, epochs: int) -> Callable[[folds.Progress], None]:
    """One line for each fold, and one every few seconds in between."""
    shown = time.monotonic()

    def show(now: folds.Progress) -> None:
        nonlocal shown
        if now.epoch == epochs or time.monotonic() - shown >= LINE_EVERY_S:
            shown = time.monotonic()
            place = f"fold {now.fold}/{fold_count}  epoch {now.epoch:>{len(str(epochs))}}/{epochs}"
            say(PREFIX, f"{place}  loss {now.loss:.4f}  accuracy on the other folds {now.accuracy:.2%}")

    return show


def _table(rows: pl.DataFrame, classes: Sequence[str], found: Suspects) -> pl.DataFrame:
    """The doubted images, most doubted first; ``corrected`` is empty, for a person to fill."""
    count = max(int(found.is_suspect.sum()), math.ceil(LEAST_SHARE * len(rows)), LEAST_ROWS)
    order = found.order[:count]
    doubted = rows.select(pl.all().gather(order.tolist()))
    return doubted.select(
        pl.int_range(1, pl.len() + 1).alias("rank"),
        "image_id",
        "path",
        "label",
        pl.Series("suggestion", [classes[place] for place in found.suggestion[order]], dtype=pl.String),
        pl.Series("score", np.round(found.score[order], 6), dtype=pl.Float64),
        pl.lit(None, pl.String).alias("corrected"),
        "split",
    )


def _page(
    params: Params,
    project: Project,
    table: pl.DataFrame,
    labels: Ints,
    classes: Sequence[str],
    found: Suspects,
    accuracy: float,
) -> AuditPage:
    first = table.head(audit_page.MOST_PICTURES)
    drawn = gallery.pictures(
        project.dataset,
        first["image_id"].to_list(),
        max_megapixels=params.ingest.max_megapixels,
        side=SIDE,
        most_characters=audit_page.MOST_PICTURE_CHARACTERS,
    )
    columns = ("rank", "path", "label", "suggestion", "score", "split")
    return AuditPage(
        title=params.name,
        images=len(labels),
        suspects=int(found.is_suspect.sum()),
        noise=found.noise,
        accuracy=accuracy,
        folds=params.audit.folds,
        epochs=params.audit.epochs,
        rows=len(table),
        doubts=[
            Doubt(**{name: row[name] for name in columns}, picture=drawn[row["image_id"]])
            for row in first.iter_rows(named=True)
            if row["image_id"] in drawn
        ],
        pairs=audit_page.pairs(labels, found, classes),
        classes=audit_page.by_class(labels, found, classes),
        class_count=len(classes),
    )


def _say_result(project: Project, found: Suspects, accuracy: float) -> None:
    count = int(found.is_suspect.sum())
    say(PREFIX, f"accuracy on images not trained on: {accuracy:.2%}")
    say(PREFIX, f"labels in doubt: {count:,} of {len(found.score):,}; at most about {found.noise:.1%} are wrong")
    say(PREFIX, f"see {project.relative(project.reports / 'audit.html')}; to correct: reports/suspects.csv")
