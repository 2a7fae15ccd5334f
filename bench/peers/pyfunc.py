"""Peer: MLflow's pyfunc, images read by PIL.

Arguments: ``save`` with a bundle and the folder of the model to make; ``predict`` with the bundle, that folder, the
folder of images, how many of them at most, and the images of a call.
"""

from __future__ import annotations

import sys
from pathlib import Path

import mlflow
import numpy as np
from folder import Trained, files, load, write
from PIL import Image
from plain import Clock, report


def save(bundle: str, model: str) -> None:
    """Save the network in MLflow's form, as `mlflow.pytorch.log_model` would."""
    import mlflow.pytorch

    example = np.zeros((2, 3, 32, 32), dtype=np.float32)
    mlflow.pytorch.save_model(load(bundle).network, model, input_example=example, pip_requirements=["torch"])


def predict(bundle: str, model: str, folder: str, most: str, batch: str) -> None:
    """Classify files, so many a call, and write a table."""
    trained, paths = load(bundle), files(folder)[: int(most)]
    loaded = mlflow.pyfunc.load_model(model)
    clock = Clock()
    labels: list[str] = []
    for start in range(0, len(paths), int(batch)):
        images = np.stack([read(path, trained) for path in paths[start : start + int(batch)]])
        labels += [trained.classes[index] for index in loaded.predict(images).argmax(axis=1)]
    write(paths, labels)
    report(images=len(paths), loop=clock.read())


def read(path: Path, trained: Trained) -> np.ndarray:
    """A file as normalised float32 (3, 32, 32)."""
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32).transpose(2, 0, 1) / 255
    normalised: np.ndarray = (pixels - trained.mean) / trained.std
    return normalised


if __name__ == "__main__":
    {"save": save, "predict": predict}[sys.argv[1]](*sys.argv[2:])
