"""Peer: fastai on image folders, one epoch of the same network.

Arguments: the folder with ``train/`` and ``val/``, and the workers.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fastai.vision.all import (
    CropPad,
    CrossEntropyLossFlat,
    Flip,
    ImageDataLoaders,
    Learner,
    Normalize,
    PadMode,
    RandomCrop,
    accuracy,
    imagenet_stats,
)
from plain import build, report

BATCH = 128


def main(folder: str, workers: str) -> None:
    """Train one epoch and validate."""
    data = ImageDataLoaders.from_folder(
        Path(folder),
        train="train",
        valid="val",
        bs=BATCH,
        num_workers=int(workers),
        item_tfms=[CropPad(40, pad_mode=PadMode.Zeros), RandomCrop(32)],
        batch_tfms=[Flip(), Normalize.from_stats(*imagenet_stats)],
        device="cpu",
    )
    learner = Learner(data, build("cnn", data.c), loss_func=CrossEntropyLossFlat(), metrics=accuracy, path=Path.cwd())
    with learner.no_bar():
        learner.fit_one_cycle(1, 3e-3)
    report(images=len(data.train_ds), accuracy=float(learner.recorder.values[-1][-1]))


if __name__ == "__main__":
    main(*sys.argv[1:])
