"""A checkpoint with random weights for timm's inference.py, which would fetch pretrained ones otherwise.

Arguments: the model and the file.
"""

from __future__ import annotations

import sys

import timm
import torch

if __name__ == "__main__":
    model, file = sys.argv[1:]
    torch.save(timm.create_model(model, pretrained=False, num_classes=10).state_dict(), file)
