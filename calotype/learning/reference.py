"""The reference: what a model answered for its validation images, which later images are compared with.

Validation images, since the network was not trained on them: its answers for training images differ from those for
new ones by overfitting alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MOST_IMAGES = 10_000


@dataclass(frozen=True, eq=False)
class Reference:
    """Answers for M validation images, the first of them in the order of their ids.

    Attributes
    ----------
    embedding
        float16 (M, D).
    probabilities
        float32 (M, K).
    appearance
        float32 (M, 3), as `calotype.data.appearance` measures it.
    labels
        int64 (M,): places among the classes.
    """

    embedding: NDArray[np.float16]
    probabilities: NDArray[np.float32]
    appearance: NDArray[np.float32]
    labels: NDArray[np.int64]


def write(reference: Reference, path: Path) -> None:
    """Write as safetensors; equal references give equal bytes."""
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(values) for name, values in vars(reference).items()}, path)


def parse(data: bytes) -> Reference:
    """Read what `write` wrote.

    Raises
    ------
    safetensors.SafetensorError, TypeError
        If it is something else.
    """
    from safetensors.numpy import load

    return Reference(**load(data))
