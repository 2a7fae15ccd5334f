"""The engines by name, for those who need not import torch."""

from __future__ import annotations

REFERENCE = "float32"

LARGEST_DIFFERENCE = 0.02
"""Largest difference of a probability from float32's at which `calotype tune` accepts an engine."""

CLOSE = 0.02
"""Difference of the two likeliest classes below which the reference settles what bf16 left open.

Where no probability moves by more than half of it, and bf16 moves them by less as a rule, all labels are equal.
"""

TOLERANCES = {REFERENCE: 1e-4, "onnx": 1e-4, "openvino": LARGEST_DIFFERENCE, "bf16": LARGEST_DIFFERENCE}
"""Engines, and the largest difference of a probability from the logged one that a load check passes.

Another batch size, thread count or processor adds in another order and moves a float32 probability by some 1e-6;
bfloat16 keeps 8 bits of each number and moves it by some 1e-2, and `calotype tune` accepts it up to this. Other
weights, classes in another order or another preprocessing move it further.
"""

OF_GRAPH = ("onnx", "openvino")
"""Engines that run the network's graph in ONNX's form, without torch; on a CPU."""


def names(device: str) -> tuple[str, ...]:
    """The engines that a kind of device has: ``cpu``, ``cuda`` or ``mps``."""
    return tuple(name for name in TOLERANCES if name not in OF_GRAPH or device == "cpu")
