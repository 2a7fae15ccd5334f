"""Peer: a DataLoader with torchvision's transforms and the network in eager float32.

Arguments: the bundle, the folder of images, the batch size, and the workers.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from folder import Trained, files, load, write
from PIL import Image
from plain import Clock, report
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class Pictures(Dataset[Tensor]):
    """Files as normalised tensors."""

    def __init__(self, paths: list[Path], trained: Trained) -> None:
        self.paths = paths
        normalise = transforms.Normalize(trained.mean.flatten().tolist(), trained.std.flatten().tolist())
        self.transform = transforms.Compose([transforms.ToTensor(), normalise])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> Tensor:
        pixels: Tensor = self.transform(Image.open(self.paths[place]).convert("RGB"))
        return pixels


def main(bundle: str, folder: str, batch: str, workers: str) -> None:
    """Classify every file and write a table."""
    trained, paths = load(bundle), files(folder)
    clock = Clock()
    labels: list[str] = []
    with torch.inference_mode():
        for images in DataLoader(Pictures(paths, trained), int(batch), num_workers=int(workers)):
            labels += [trained.classes[index] for index in trained.network(images).argmax(dim=1).tolist()]
    write(paths, labels)
    report(images=len(paths), loop=clock.read())


if __name__ == "__main__":
    main(*sys.argv[1:])
