"""Out-of-fold probabilities: each image is judged by a network that trained on the other folds.

Images that share a key, such as near-duplicates, share a fold: a network that has seen an image's twin would repeat
the twin's label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calotype.errors import DataError
from calotype.learning.network import Probabilities
from calotype.learning.training import Labelled, Statistics, Trainer, pixel_statistics
from calotype.params import AugmentParams, Params, TrainParams

Ints = NDArray[np.int64]


class Progress(NamedTuple):
    """An epoch that ended; fold and epoch count from 1."""

    fold: int
    epoch: int
    loss: float
    accuracy: float


def recipe(params: Params) -> TrainParams:
    """The training's recipe with the epochs of the audit."""
    epochs = params.audit.epochs
    return params.train.model_copy(
        update={"epochs": epochs, "warmup_epochs": min(params.train.warmup_epochs, epochs - 1), "early_stopping": 0}
    )


def assign(keys: Sequence[str], folds: int) -> Ints:
    """The fold of each image, int64 (N,): drawn from SHA-256 of its key, whatever other images there are."""
    digests = (hashlib.sha256(f"fold\n{key}".encode()).digest()[:8] for key in keys)
    return np.fromiter((int.from_bytes(digest, "big") % folds for digest in digests), dtype=np.int64, count=len(keys))


def out_of_fold(
    data: Labelled,
    folds: Ints,
    build: Callable[[], nn.Module],
    *,
    train: TrainParams,
    augmentation: AugmentParams,
    device: torch.device,
    classes: int,
    on_epoch: Callable[[Progress], None],
) -> NDArray[np.float32]:
    """Train one network for each fold, on all others, and let it judge the fold.

    The last epoch's weights judge: choosing the best epoch would need labels that are not in doubt.

    Parameters
    ----------
    data
        All images and labels.
    folds
        The fold of each image, int64 (N,).
    build
        Makes a network with its first weights; called once a fold, right after torch was seeded.
    train, augmentation
        The recipe.
    device
        Where to train.
    classes
        Number of classes.
    on_epoch
        Called after each epoch.

    Returns
    -------
    numpy.ndarray
        Probabilities, float32 (N, K).

    Raises
    ------
    DataError
        If all images are in one fold.
    NonFiniteLossError
        As soon as a loss is not finite.
    """
    probabilities = np.zeros((len(data), classes), dtype=np.float32)
    present = np.unique(folds)
    if len(present) < 2:
        raise DataError(
            "audit: all images share one fold, because they are one group; expected several. Add images, or name "
            "smaller groups in the source."
        )
    for number, fold in enumerate(present, 1):
        held_out = torch.from_numpy(np.flatnonzero(folds == fold))
        kept = torch.from_numpy(np.flatnonzero(folds != fold))
        part = Labelled(data.images[kept], data.labels[kept])
        judged = Labelled(data.images[held_out], data.labels[held_out])
        statistics = pixel_statistics(part.images)
        torch.manual_seed(train.seed)
        trainer = Trainer(
            build(),
            part,
            judged,
            statistics,
            train=_for_part(train, part, classes),
            augmentation=augmentation,
            device=device,
            classes=classes,
        )
        for epoch in range(train.epochs):
            loss, accuracy, _ = trainer.train_epoch(epoch, lambda _: None)
            on_epoch(Progress(number, epoch + 1, loss, accuracy))
        probabilities[held_out.numpy()] = _judge(trainer, statistics)
    return probabilities


def _for_part(train: TrainParams, part: Labelled, classes: int) -> TrainParams:
    """Weigh no classes where one is missing: its weight would be infinite."""
    is_whole = bool(torch.bincount(part.labels, minlength=classes).all())
    return train if is_whole else train.model_copy(update={"class_weights": "none"})


def _judge(trainer: Trainer, statistics: Statistics) -> NDArray[np.float32]:
    model = Probabilities(trainer.model, statistics.mean, statistics.std, 1.0).to(trainer.device).eval()
    judged: list[Tensor] = []
    with torch.inference_mode():
        for images in torch.split(trainer.validation_set.images, 4 * trainer.micro_batch):
            on_device = images.to(trainer.device).contiguous(memory_format=torch.channels_last)
            judged.append(model(on_device).float().cpu())
    return np.asarray(torch.cat(judged).numpy(), dtype=np.float32)
