"""Engines: ways to run one network that answer alike, and differ in speed from processor to processor.

``float32`` is the reference: the network as it was trained, eager. ``bf16`` computes in bfloat16 with batch
normalisation folded into the convolutions, and asks the reference about close calls. On a CPU alone, ``onnx`` runs the
network's graph in float32 by onnxruntime, ``openvino`` compiles it for bfloat16 and for float32, which settles close
calls. Which of them a model may use, `calotype tune` finds.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from calotype.errors import CalotypeError, UsageError
from calotype.learning.answers import GRAPH_ENGINES, Answer, Floats, settled
from calotype.learning.engine_names import REFERENCE, names
from calotype.learning.network import Probabilities, normalised
from calotype.params import ImageParams


def build(engine: str, model: Probabilities, image: ImageParams, device: torch.device, threads: int) -> Answer:
    """Make an engine.

    Parameters
    ----------
    engine
        A key of `engine_names.TOLERANCES`.
    model
        In evaluation mode; on the device.
    image
        The form of the images.
    device
        Where it runs.
    threads
        Of one forward pass by a graph.

    Raises
    ------
    UsageError
        If there is no such engine, or not on this device.
    CalotypeError
        If the network cannot be brought into the engine's form.
    """
    if engine == REFERENCE:
        return by_torch(model.answers, device)
    if engine == "bf16":
        return settled(by_torch(Bfloat16(model), device), by_torch(model.answers, device))
    if engine in GRAPH_ENGINES and device.type == "cpu":
        return GRAPH_ENGINES[engine](export(model, image), threads)
    raise UsageError(f"engine {engine!r} is none for {device.type}; expected one of {', '.join(names(device.type))}.")


def by_torch(ask: Callable[[Tensor], tuple[Tensor, Tensor]], device: torch.device) -> Answer:
    """Ask a module of torch, on its device, for two tables of numbers."""

    def answer(images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        batch = torch.from_numpy(images).to(device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            first, embedding = ask(batch)
            return first.cpu().numpy(), embedding.cpu().numpy()

    return answer


class Bfloat16(nn.Module):
    """`Probabilities` with its network in bfloat16 and batch normalisation folded; normalised and answered in float32.

    Takes uint8 (N, C, S, S), returns float32 (N, K) that sum to one, and embeddings, float32 (N, D).
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: Probabilities) -> None:
        super().__init__()
        folded = fold(model.network).to(dtype=torch.bfloat16)
        if next(folded.parameters()).device.type == "cpu":
            _replace(folded, nn.MaxPool2d, _pool_of_rows)
        self.network = folded.to(memory_format=torch.channels_last)
        self.temperature = model.temperature
        self.embedding = model.embedding
        self.register_buffer("scale", (1 / (255 * model.std)).flatten())
        self.register_buffer("shift", (-model.mean / model.std).flatten())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = self.network(normalised(images, self.scale, self.shift).bfloat16()).float()
        embedding = found[:, :0] if self.embedding is None else self.embedding()
        return torch.softmax(found / self.temperature, dim=1), embedding


def fold(network: nn.Module) -> nn.Module:
    """Fold each batch normalisation into the convolution before it; a network that cannot be traced stays whole."""
    from torch.fx.experimental.optimization import fuse
    from torch.fx.proxy import TraceError

    try:
        return fuse(network)
    except TraceError:
        return copy.deepcopy(network)


def export(model: Probabilities, image: ImageParams) -> bytes:
    """Write the model as an ONNX graph from uint8 images (N, S, S, C) to probabilities (N, K) and embeddings (N, D).

    Raises
    ------
    CalotypeError
        If the network has an operation that ONNX lacks.
    """
    pixels = torch.zeros(2, image.size, image.size, image.channels, dtype=torch.uint8)
    buffer = io.BytesIO()
    outputs = ["probabilities"] if model.embedding is None else ["probabilities", "embedding"]
    with warnings.catch_warnings():
        # The newer exporter takes ten times as long, and two packages more.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", TracerWarning)
        try:
            torch.onnx.export(
                _Exported(model).eval(),
                (pixels,),
                buffer,  # type: ignore[arg-type]  # the stubs know paths alone
                dynamo=False,
                verbose=False,
                input_names=["images"],
                output_names=outputs,
                dynamic_axes={name: {0: "n"} for name in ("images", *outputs)},
            )
        except (torch.onnx.OnnxExporterError, RuntimeError) as error:
            reason = str(error).splitlines()[0][:200]
            raise CalotypeError(f"the network has no form in ONNX ({reason}). Use another engine.") from error
    return buffer.getvalue()


class _Exported(nn.Module):
    """A copy of the model that takes images as they lie in memory (N, S, S, C), of operations that ONNX has."""

    def __init__(self, model: Probabilities) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
        _replace(self.model, nn.AdaptiveAvgPool2d, _pool_by_matrix)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        rows = images.permute(0, 3, 1, 2)
        probabilities, embedding = self.model.answers(rows)
        return probabilities if self.model.embedding is None else (probabilities, embedding)


def _replace(model: nn.Module, kind: type[nn.Module], substitute: Callable[[Any], nn.Module]) -> None:
    """Put a substitute into the place of each module of a kind."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, kind):
                setattr(parent, name, substitute(child))


class _PoolOfRows(nn.Module):
    """The largest of each 2 × 2, of maps that lie in rows of pixels: twice as fast on a CPU as torch's, and equal."""

    def forward(self, maps: Tensor) -> Tensor:
        count, channels, height, width = maps.shape
        if height % 2 or width % 2:
            return nn.functional.max_pool2d(maps, 2)
        pairs = maps.permute(0, 2, 3, 1).reshape(count, height // 2, 2, width * channels)
        rows = torch.maximum(pairs[:, :, 0], pairs[:, :, 1]).view(count, height // 2, width // 2, 2, channels)
        return torch.maximum(rows[:, :, :, 0], rows[:, :, :, 1]).permute(0, 3, 1, 2)


def _pool_of_rows(pool: nn.MaxPool2d) -> nn.Module:
    plain = (2, (2, 2))
    is_plain = pool.kernel_size in plain and pool.stride in plain and pool.padding in (0, (0, 0))
    return _PoolOfRows() if is_plain and pool.dilation in (1, (1, 1)) and not pool.ceil_mode else pool


def _pool_by_matrix(pool: nn.AdaptiveAvgPool2d) -> nn.Module:
    return pool if pool.output_size in (1, (1, 1)) else _PoolByMatrix(pool)


class _PoolByMatrix(nn.Module):
    """Adaptive average pooling as two products with a matrix: ONNX has none for sizes that do not divide."""

    def __init__(self, pool: nn.AdaptiveAvgPool2d) -> None:
        super().__init__()
        size = pool.output_size
        self.height, self.width = size if isinstance(size, tuple) else (size, size)

    def forward(self, maps: Tensor) -> Tensor:
        down = _averages(int(maps.shape[2]), self.height)
        across = _averages(int(maps.shape[3]), self.width)
        return down @ maps @ across.T


def _averages(size: int, pooled: int | None) -> Tensor:
    """The matrix (pooled, size) that takes the means which torch's adaptive pooling takes."""
    pooled = pooled or size
    matrix = np.zeros((pooled, size), dtype=np.float32)
    for place in range(pooled):
        start, end = place * size // pooled, -(-(place + 1) * size // pooled)
        matrix[place, start:end] = 1 / (end - start)
    return torch.from_numpy(matrix)
