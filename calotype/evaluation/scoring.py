"""From a model and the dataset to answers for stored images: the one way, for evaluation and for the gate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from calotype.data import dataset
from calotype.data.splitting import read_splits
from calotype.errors import DataError
from calotype.evaluation.metrics import Ints
from calotype.learning.bundle import Bundle
from calotype.learning.engine_names import REFERENCE
from calotype.learning.inference import Classifier
from calotype.params import ImageParams, Params
from calotype.project import Project

CHUNK_BYTES = 1 << 29
"""Pixels held at once."""


def test_images(project: Project, bundle: Bundle, model: str) -> pl.DataFrame:
    """Rows of the manifest that the test split holds, all columns, in the order of image_id.

    Parameters
    ----------
    project
        Whose dataset and splits.
    bundle
        The model that will answer.
    model
        What an error calls it.

    Raises
    ------
    DataError
        If the data set's labels are not exactly the model's classes.
    """
    manifest = dataset.read_manifest(project.dataset)
    check_classes(manifest["label"], bundle.classes, model)
    return of_test_split(project, manifest)


def of_test_split(project: Project, manifest: pl.DataFrame) -> pl.DataFrame:
    """Rows of the manifest that the test split holds, in the order of image_id."""
    splits = read_splits(project.splits).filter(pl.col("split") == "test").select("image_id")
    return manifest.join(splits, on="image_id", how="inner").sort("image_id")


def chunks(
    params: Params, project: Project, image: ImageParams, image_ids: Sequence[str], *, prefix: str = "evaluate"
) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
    """Decode stored images piece by piece, at most `CHUNK_BYTES` at once: their places in ``image_ids``, and pixels."""
    step = max(1, CHUNK_BYTES // (image.channels * image.size**2))
    for start in range(0, len(image_ids), step):
        place = slice(start, min(start + step, len(image_ids)))
        yield (
            place,
            dataset.load_images(
                project.dataset, image_ids[place], image, max_megapixels=params.ingest.max_megapixels, prefix=prefix
            ),
        )


def classifier_of(params: Params, bundle: Bundle, engine: str = REFERENCE) -> Classifier:
    """The model on the device, with the batch size and threads that params.yaml names."""
    return Classifier(
        bundle,
        device=params.train.device,
        batch_size=params.predict.batch_size,
        threads=params.train.threads,
        engine=engine,
    )


def classify(
    params: Params,
    project: Project,
    bundle: Bundle,
    image_ids: Sequence[str],
    *,
    prefix: str = "evaluate",
    engine: str = REFERENCE,
) -> NDArray[np.float32]:
    """Class probabilities of stored images, float32 (N, K), in the order of ``image_ids``."""
    classifier = classifier_of(params, bundle, engine)
    pieces = chunks(params, project, bundle.image, image_ids, prefix=prefix)
    parts = [classifier.probabilities(images) for _, images in pieces]
    return np.concatenate(parts) if parts else np.empty((0, len(bundle.classes)), dtype=np.float32)


def label_indices(labels: Sequence[str], classes: Sequence[str]) -> Ints:
    """Where each label stands among the model's classes."""
    places = {name: place for place, name in enumerate(classes)}
    return np.array([places[label] for label in labels], dtype=np.int64)


def check_classes(labels: pl.Series, classes: Sequence[str], model: str) -> None:
    """Refuse a model whose classes are not exactly the labels of the data.

    Raises
    ------
    DataError
        Naming the labels that one side lacks.
    """
    counts = dict(labels.value_counts().sort("label").iter_rows())
    unknown = [f"{label!r} ({count:,} images)" for label, count in counts.items() if label not in classes]
    absent = [repr(name) for name in classes if name not in counts]
    found = [f"{model} does not know the label {', '.join(unknown[:5])}"] if unknown else []
    found += [f"the data set has no images of {', '.join(absent[:5])}, which {model} knows"] if absent else []
    if found:
        raise DataError(f"{'; '.join(found)}. Expected equal classes: run `dvc repro` to train on these data.")
