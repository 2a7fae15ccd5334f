"""Peer: the loop that tutorials teach. ImageFolder, DataLoader, torchvision's transforms, float32.

Arguments: the folder with ``train/``, the network, the workers, the epochs, and ``shift`` (crop with padding, for small
images) or ``crop`` (RandomResizedCrop to 128 pixels, for photographs; the input pipeline alone, no network).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from plain import MEAN, STD, Clock, build, report
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

BATCH = 128
CHANGES = {
    "shift": [transforms.RandomCrop(32, padding=4)],
    "crop": [transforms.RandomResizedCrop(128)],
}


def main(folder: str, network: str, workers: str, epochs: str, change: str) -> None:
    """Train, and report each epoch's cost and how many images it saw."""
    torch.manual_seed(0)
    steps = [
        *CHANGES[change],
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    data = ImageFolder(str(Path(folder, "train")), transforms.Compose(steps))
    loader = DataLoader(data, BATCH, shuffle=True, num_workers=int(workers), drop_last=True)
    model = build(network, len(data.classes)) if change == "shift" else None
    costs = []
    for _ in range(int(epochs)):
        clock = Clock()
        if model is None:
            for _images, _labels in loader:
                pass
        else:
            train_epoch(model, loader)
        costs.append(clock.read())
    report(images=len(loader) * BATCH, epochs=costs)


def train_epoch(model: nn.Module, loader: DataLoader) -> None:
    """One epoch of AdamW, the loss printed now and then."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003, weight_decay=0.01)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    model.train()
    for step, (images, labels) in enumerate(loader):
        optimizer.zero_grad()
        loss = loss_of(model(images), labels)
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step}: loss {loss.item():.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
