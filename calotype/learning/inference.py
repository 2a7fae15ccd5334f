"""From a bundle and stored images to class probabilities: the one way, for evaluation, gate and batch prediction."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from calotype.learning import engines
from calotype.learning.answers import in_batches
from calotype.learning.bundle import Bundle
from calotype.learning.device import choose_device
from calotype.learning.engine_names import REFERENCE
from calotype.learning.network import Probabilities, build


def probability_model(bundle: Bundle) -> Probabilities:
    """Build the module that maps uint8 images (N, C, S, S) to probabilities (N, K), in evaluation mode."""
    network = build(bundle.network, bundle.image, len(bundle.classes))
    network.load_state_dict(bundle.weights)
    model = Probabilities(network, bundle.mean, bundle.std, bundle.temperature)
    return model.eval()


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
        return in_batches(self._answer, images_nchw, self._batch_size, len(self.classes))

    def logits(self, images_nchw: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the network gives before temperature and softmax, float32 (N, K), by the reference engine."""
        answer = engines.by_torch(self._model.logits, self._device)
        return in_batches(answer, images_nchw, self._batch_size, len(self.classes))
