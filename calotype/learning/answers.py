"""Asking a network for probabilities and embeddings, batch by batch; by its graph in ONNX's form without any torch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import cast

import numpy as np
from numpy.typing import NDArray

from calotype import machine
from calotype.learning.bundle import Bundle
from calotype.learning.engine_names import CLOSE, OF_GRAPH

Floats = NDArray[np.float32]
Answer = Callable[[NDArray[np.uint8]], tuple[Floats, Floats]]
"""From uint8 images (N, C, S, S) to probabilities (N, K) and embeddings (N, D), where D may be 0.

Quick where the pixels of a row lie together (NHWC).
"""


class GraphClassifier:
    """An engine that runs the graph which `calotype tune` kept; several threads may ask it at once.

    Parameters
    ----------
    engine
        A key of `GRAPH_ENGINES`.
    bundle
        What the graph was made of; its weights are not needed.
    graph
        In ONNX's form, from uint8 images (N, S, S, C) to probabilities (N, K) and, if the bundle has them, embeddings.
    batch_size
        Images in one forward pass.
    threads
        Of one forward pass.
    """

    def __init__(self, engine: str, bundle: Bundle, graph: bytes, *, batch_size: int, threads: int) -> None:
        self.engine = engine
        self.classes = bundle.classes
        self.abstain_below = bundle.abstain_below
        self._answer = GRAPH_ENGINES[engine](graph, threads)
        self._batch_size = batch_size
        self._widths = (len(bundle.classes), bundle.embedding_size)

    def probabilities(self, images_nchw: NDArray[np.uint8]) -> Floats:
        """Class probabilities, float32 (N, K), in the order of ``classes``, for uint8 images (N, C, S, S)."""
        return self.answers(images_nchw)[0]

    def answers(self, images_nchw: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Class probabilities as above, and embeddings, (N, D), of one forward pass."""
        return in_batches(self._answer, images_nchw, self._batch_size, self._widths)


def by_onnxruntime(graph: bytes, threads: int) -> Answer:
    """Ask a graph in ONNX's form, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Waiting threads sleep: the cores belong to decoding as well.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def answer(images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        rows = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        return _pair(cast("list[Floats]", session.run(None, {"images": rows})))

    return answer


def by_openvino(graph: bytes, threads: int) -> Answer:
    """Ask a graph in ONNX's form compiled for bfloat16, where the processor has it, and for float32 about close calls.

    As many forward passes as the cores allow run at once; each thread that asks has its own place for the images.
    """
    import openvino

    core = openvino.Core()
    model = core.read_model(graph)
    quick = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"

    def compiled(precision: str) -> Answer:
        streams = max(1, machine.cores() // threads)
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * threads,
            "ENABLE_CPU_PINNING": False,
        }
        network = core.compile_model(model, "CPU", settings)
        of_thread = threading.local()

        def answer(images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
            if not hasattr(of_thread, "request"):
                of_thread.request = network.create_infer_request()
            rows = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
            found = of_thread.request.infer([_filled(rows)], share_inputs=True)
            return _pair([cast("Floats", found[place][: len(images)]) for place in range(len(network.outputs))])

        return answer

    return settled(compiled(quick), compiled("f32"))


def _pair(outputs: list[Floats]) -> tuple[Floats, Floats]:
    """What a graph gave; one without embeddings gives probabilities alone."""
    probabilities, *embedding = outputs
    return probabilities, embedding[0] if embedding else probabilities[:, :0]


def _filled(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Black images behind the others up to a multiple of four: each number of images that is new takes milliseconds."""
    missing = -len(rows) % 4
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), dtype=np.uint8)]) if missing else rows


GRAPH_ENGINES: dict[str, Callable[[bytes, int], Answer]] = dict(
    zip(OF_GRAPH, (by_onnxruntime, by_openvino), strict=True)
)
"""Engines that need a graph alone, and threads; on a CPU."""


def settled(quick: Answer, exact: Answer) -> Answer:
    """Ask one engine, and another one about the images whose two likeliest classes it finds closer than `CLOSE`."""

    def answer(images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        probabilities, embedding = quick(images)
        likeliest = np.partition(probabilities, -2, axis=1)
        close = np.flatnonzero(likeliest[:, -1] - likeliest[:, -2] < CLOSE)
        if len(close):
            probabilities[close], embedding[close] = exact(images[close])
        return probabilities, embedding

    return answer


def in_batches(
    answer: Answer, images: NDArray[np.uint8], batch_size: int, widths: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Ask for so many images at a time: two tables of the given widths, the embeddings rounded to float16."""
    first, embedding = (np.empty((len(images), width), dtype=np.float32) for width in widths)
    for start in range(0, len(images), batch_size):
        place = slice(start, start + batch_size)
        first[place], embedding[place] = answer(images[place])
    largest = np.finfo(np.float16).max
    return first, embedding.clip(-largest, largest).astype(np.float16).astype(np.float32)
