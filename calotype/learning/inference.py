"""From a bundle and stored images to class probabilities: the one way, for evaluation, gate and batch prediction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calotype.learning.bundle import Bundle
from calotype.learning.device import choose_device
from calotype.learning.network import Probabilities, build


def probability_model(bundle: Bundle) -> Probabilities:
    """Build the module that maps uint8 images (N, C, S, S) to probabilities (N, K), in evaluation mode."""
    network = build(bundle.network, bundle.image, len(bundle.classes))
    network.load_state_dict(bundle.weights)
    model = Probabilities(network, bundle.mean, bundle.std, bundle.temperature)
    return model.eval()


class Classifier:
    """A bundle's network on a device.

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
    """

    def __init__(self, bundle: Bundle, *, device: str = "auto", batch_size: int, threads: int | None = None) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.classes = bundle.classes
        self.abstain_below = bundle.abstain_below
        self._device = choose_device(device)
        self._batch_size = batch_size
        model = probability_model(bundle).to(self._device)
        self._model = model.to(memory_format=torch.channels_last)

    @property
    def where(self) -> str:
        """The device, and a CPU's threads: ``cpu, 2 threads``."""
        if self._device.type != "cpu":
            return self._device.type
        threads = torch.get_num_threads()
        return f"cpu, {threads} thread{'s' if threads > 1 else ''}"

    def probabilities(self, images_nchw: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities, float32 (N, K), in the order of ``classes``, for uint8 images (N, C, S, S)."""
        return self._answers(self._model, images_nchw)

    def logits(self, images_nchw: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the network gives before temperature and softmax, float32 (N, K), for uint8 images (N, C, S, S)."""
        return self._answers(self._model.logits, images_nchw)

    def _answers(self, model: Callable[[Tensor], Tensor], images_nchw: NDArray[np.uint8]) -> NDArray[np.float32]:
        results = np.empty((len(images_nchw), len(self.classes)), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(images_nchw), self._batch_size):
                batch = torch.from_numpy(np.ascontiguousarray(images_nchw[start : start + self._batch_size]))
                batch = batch.to(self._device).contiguous(memory_format=torch.channels_last)
                results[start : start + self._batch_size] = model(batch).cpu().numpy()
        return results
