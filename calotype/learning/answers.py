"""Asking a network for probabilities, batch by batch; by onnxruntime without any torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
from numpy.typing import NDArray

from calotype.learning.bundle import Bundle

Answer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""From uint8 images (N, C, S, S) to probabilities (N, K); quick where the pixels of a row lie together (NHWC)."""


class GraphClassifier:
    """The onnx engine of a bundle, by the graph that `calotype tune` kept; several threads may ask it at once.

    Parameters
    ----------
    bundle
        What the graph was made of; its weights are not needed.
    graph
        In ONNX's form, from uint8 images (N, S, S, C) to probabilities (N, K).
    batch_size
        Images in one forward pass.
    threads
        Of onnxruntime.
    """

    engine = "onnx"

    def __init__(self, bundle: Bundle, graph: bytes, *, batch_size: int, threads: int) -> None:
        self.classes = bundle.classes
        self.abstain_below = bundle.abstain_below
        self._answer = by_onnxruntime(graph, threads)
        self._batch_size = batch_size

    def probabilities(self, images_nchw: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities, float32 (N, K), in the order of ``classes``, for uint8 images (N, C, S, S)."""
        return in_batches(self._answer, images_nchw, self._batch_size, len(self.classes))


def by_onnxruntime(graph: bytes, threads: int) -> Answer:
    """Ask a graph in ONNX's form, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Waiting threads sleep: the cores belong to decoding as well.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        rows = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        return cast("NDArray[np.float32]", session.run(None, {"images": rows})[0])

    return answer


def in_batches(answer: Answer, images: NDArray[np.uint8], batch_size: int, classes: int) -> NDArray[np.float32]:
    """Ask for so many images at a time."""
    results = np.empty((len(images), classes), dtype=np.float32)
    for start in range(0, len(images), batch_size):
        place = slice(start, start + batch_size)
        results[place] = answer(images[place])
    return results
