"""Peer: ultralytics classify. Settings stay in the folder that YOLO_CONFIG_DIR names, and nothing is sent or fetched.

Arguments: ``train`` with the folder of ``train/`` and ``val/``, the network and the workers; or ``predict`` with the
folder of images, the network and the batch size.
"""

from __future__ import annotations

import sys
from pathlib import Path

from plain import Clock, report
from ultralytics import YOLO, settings

# Nothing is reported, and no tracker that happens to be installed beside it slows it down.
settings.update({"sync": False, "mlflow": False})


def train(folder: str, network: str, workers: str) -> None:
    """Train one epoch from random weights, validated as it does by itself."""
    YOLO(f"{network}.yaml").train(
        data=folder,
        epochs=1,
        imgsz=32,
        batch=128,
        device="cpu",
        workers=int(workers),
        pretrained=False,
        plots=False,
        project=str(Path.cwd()),
        name="run",
        verbose=False,
    )
    report(images=sum(1 for _ in Path(folder, "train").glob("*/*")))


def predict(folder: str, network: str, batch: str) -> None:
    """Classify every file and write a table of names and classes."""
    model = YOLO(f"{network}.yaml")
    clock = Clock()
    results = model.predict(f"{folder}/**/*.jpg", imgsz=32, batch=int(batch), device="cpu", stream=True, verbose=False)
    lines = [f"{result.path},{result.probs.top1}" for result in results]
    Path("predictions.csv").write_text("\n".join(["path,label", *lines]))
    report(images=len(lines), loop=clock.read())


if __name__ == "__main__":
    {"train": train, "predict": predict}[sys.argv[1]](*sys.argv[2:])
