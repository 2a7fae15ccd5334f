"""From a bundle and stored images to class probabilities: the one way, for evaluation, gate and batch prediction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from calotype.learning import engines
from calotype.learning.answers import in_batches
from calotype.learning.bundle import Bundle
from calotype.learning.device import choose_device
from calotype.learning.embedding import PROJECTION, draw
from calotype.learning.engine_names import REFERENCE
from calotype.learning.network import Probabilities, build


def probability_model(bundle: Bundle) -> Probabilities:
    """Build the module that maps uint8 images (N, C, S, S) to probabilities (N, K), in evaluation mode."""
    network = build(bundle.network, bundle.image, len(bundle.classes))
    network.load_state_dict({name: tensor for name, tensor in bundle.weights.items() if name != PROJECTION})
    projection = bundle.weights[PROJECTION] if bundle.embedding_size else None
    return Probabilities(network, bundle.mean, bundle.std, bundle.temperature, projection).eval()


def with_embedding(bundle: Bundle) -> Bundle:
    """The bundle with a projection, so that its network gives embeddings as well."""
    with torch.device("meta"):
        network = build(bundle.network, bundle.image, len(bundle.classes))
    projection = draw(network)
    return replace(bundle, weights=bundle.weights | {PROJECTION: projection}, embedding_size=projection.shape[1])


class Classifier:
    """A bundle's network on a device; several threads may ask it at once.

    Parameters
    ----------
    bundle
        What to classify with.
    device
        ``auto | cpu | cuda | mps``.
    batch_size
        Images in one forward pass.
    threads
        Threads of a CPU; torch's own choice if not given.
    engine
        How probabilities are computed, a key of `engine_names.TOLERANCES`.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "auto",
        batch_size: int,
        threads: int | None = None,
        engine: str = REFERENCE,
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.classes = bundle.classes
        self.abstain_below = bundle.abstain_below
        self.engine = engine
        self._device = choose_device(device)
        self._batch_size = batch_size
        self._widths = (len(bundle.classes), bundle.embedding_size)
        model = probability_model(bundle).to(self._device)
        self._model = model.to(memory_format=torch.channels_last)
        self._answer = engines.build(engine, self._model, bundle.image, self._device, torch.get_num_threads())

    @property
    def where(self) -> str:
        """The device, and a CPU's threads: ``cpu, 2 threads``."""
        if self._device.type != "cpu":
            return self._device.type
        threads = torch.get_num_threads()
        return f"cpu, {threads} thread{'s' if threads > 1 else ''}"

    def probabilities(self, images_nchw: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities, float32 (N, K), in the order of ``classes``, for uint8 images (N, C, S, S)."""
        return self.answers(images_nchw)[0]

    def answers(self, images_nchw: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Class probabilities as above, and embeddings, (N, D), of one forward pass."""
        return in_batches(self._answer, images_nchw, self._batch_size, self._widths)

    def outputs(self, images_nchw: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits, float32 (N, K), before temperature and softmax, and embeddings, by the reference engine."""
        answer = engines.by_torch(self._model.outputs, self._device)
        return in_batches(answer, images_nchw, self._batch_size, self._widths)
