"""The end of a training: validation images give the temperature and the confidence below which the model abstains.

What the model then answers for them is its reference.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calotype.console import say
from calotype.data.appearance import appearance
from calotype.errors import CalotypeError
from calotype.evaluation import abstention, calibration
from calotype.evaluation.abstention import Threshold
from calotype.evaluation.calibration import Temperature
from calotype.learning.bundle import Bundle
from calotype.learning.inference import Classifier, with_embedding
from calotype.learning.reference import MOST_IMAGES, Reference
from calotype.learning.training import Labelled
from calotype.params import Params


def calibrated(made: Bundle, validation: Labelled, params: Params) -> tuple[Bundle, Reference]:
    """The bundle with temperature, threshold and projection, and its reference.

    All but the projection come of validation images, in the order of their ids, that it was not trained on.

    Raises
    ------
    CalotypeError
        If the network answers NaN or infinity.
    """
    made = with_embedding(made)
    classifier = Classifier(
        made, device=params.train.device, batch_size=params.train.batch_size, threads=params.train.threads
    )
    images, labels = validation.images.numpy(), validation.labels.numpy()
    logits, embedding = classifier.outputs(images)
    if not np.isfinite(logits).all():
        raise CalotypeError(
            "train: the best weights answer NaN or infinity for validation images; expected finite numbers. Lower "
            "train.lr, or set train.precision: float32."
        )
    temperature = calibration.fit_temperature(logits, labels)
    shares = calibration.softmax(logits.astype(np.float64) / temperature.value)
    threshold = abstention.choose_threshold(
        shares.max(axis=1), shares.argmax(axis=1) == labels, params.evaluate.target_precision
    )
    for line in (_of_temperature(temperature), _of_threshold(threshold)):
        say("train", line)
    whole = replace(
        made,
        temperature=temperature.value,
        abstain_below=threshold.value,
        trained_with=made.trained_with | {"calibration": _facts(temperature, threshold)},
    )
    return whole, _reference(embedding, shares, images, labels)


def _reference(
    embedding: NDArray[np.float32],
    shares: NDArray[np.float64],
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
) -> Reference:
    first = slice(MOST_IMAGES)
    return Reference(
        embedding=embedding[first].astype(np.float16),
        probabilities=shares[first].astype(np.float32),
        appearance=appearance(images[first]),
        labels=labels[first],
    )


def _facts(temperature: Temperature, threshold: Threshold) -> dict[str, float]:
    return {
        "images": temperature.images,
        "log_loss_before": round(temperature.log_loss_before, 6),
        "log_loss_after": round(temperature.log_loss_after, 6),
        "target_precision": threshold.target,
        "answered": threshold.answered,
        "right": threshold.right,
        "best_precision": round(threshold.best, 6),
        "fewest_answers": threshold.fewest,
    }


def _of_temperature(found: Temperature) -> str:
    change = f"{found.log_loss_before:.4f} → {found.log_loss_after:.4f}"
    return f"temperature {found.value:g}: log loss of {found.images:,} validation images {change}"


def _of_threshold(found: Threshold) -> str:
    target = f"evaluate.target_precision {found.target:g}"
    if not found.is_reached:
        reason = f"no confidence keeps {target} on {found.images:,} validation images"
        best = f"{found.fewest:,} answers or more reach {found.best:.1%} at best"
        few = f"that takes {found.fewest:,} answers or more"
        return f"abstains always: {reason}; {best if found.images >= found.fewest else few}"
    kept = f"{found.right / found.answered:.1%} right, {target}"
    answered = f"{found.answered:,} of {found.images:,} validation images answered"
    return (
        f"abstains below {found.value:.4g}: {answered}, {kept}"
        if found.value
        else f"never abstains: {answered}, {kept}"
    )
