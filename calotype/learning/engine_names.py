"""The engines by name, for those who need not import torch."""

from __future__ import annotations

REFERENCE = "float32"

LARGEST_DIFFERENCE = 0.02
"""Largest difference of a probability from float32's at which `calotype tune` accepts an engine."""

TOLERANCES = {REFERENCE: 1e-4, "onnx": 1e-4, "bf16": LARGEST_DIFFERENCE}
"""Engines, and the largest difference of a probability from the logged one that a load check passes.

Another batch size, thread count or processor adds in another order and moves a float32 probability by some 1e-6;
bfloat16 keeps 8 bits of each number and moves it by some 1e-2, and `calotype tune` accepts it up to this. Other
weights, classes in another order or another preprocessing move it further.
"""


def names(device: str) -> tuple[str, ...]:
    """The engines that a kind of device has: ``cpu``, ``cuda`` or ``mps``."""
    return tuple(name for name in TOLERANCES if name != "onnx" or device == "cpu")
