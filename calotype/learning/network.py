"""Networks by name: our `cnn` and `fast`, and every classification model of torchvision that runs at the size."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from calotype.errors import CalotypeError, ParamsError
from calotype.learning.embedding import Embedding
from calotype.learning.fast import Fast, smallest_size
from calotype.params import ImageParams, NetworkParams

OWN = ("cnn", "fast")
"""Networks of our own; all other names are torchvision's."""

LARGEST_MAP = 7
"""`cnn`: larger feature maps are averaged down to this height and width before the fully connected layers."""

SIZES = (8, 16, 24, 28, 32, 48, 64, 75, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 448, 512)
"""Sizes tried to say which ones a network runs at."""


class Cnn(nn.Module):
    """Blocks of convolution, batch normalisation and ReLU, each ended by max pooling; then fully connected layers.

    The last ReLU of a block follows the pooling: the same numbers, for a quarter of the pixels.
    Takes float images (N, C, S, S), returns logits (N, K); the softmax is applied by the loss and by `Probabilities`.
    """

    def __init__(self, network: NetworkParams, *, channels: int, size: int, classes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        width_in, edge = channels, size
        for width in network.widths:
            for _ in range(network.convs):
                blocks += [nn.Conv2d(width_in, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                width_in = width
            blocks.insert(-1, nn.MaxPool2d(2))
            edge //= 2
        if edge > LARGEST_MAP:
            blocks.append(nn.AdaptiveAvgPool2d(LARGEST_MAP))
            edge = LARGEST_MAP
        self.features = nn.Sequential(*blocks)
        layers: list[nn.Module] = [nn.Flatten()]
        features = width_in * edge * edge
        for hidden in network.hidden:
            layers += [nn.Dropout(network.dropout), nn.Linear(features, hidden), nn.ReLU()]
            features = hidden
        layers += [nn.Dropout(network.dropout), nn.Linear(features, classes)]
        self.classifier = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return logits


class GreyAsColour(nn.Module):
    """Repeat a grey image's one channel for a network that wants three."""

    def forward(self, images: Tensor) -> Tensor:
        return images.expand(-1, 3, -1, -1)


def normalised(images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Multiply uint8 images (N, C, H, W) by ``scale`` and add ``shift``, both by channel (C,): float32, channels last.

    In rows of width × channels: broadcasting over three channels alone would cost as much as a convolution.
    """
    count, channels, height, width = images.shape
    rows = images.permute(0, 2, 3, 1).reshape(count, height, width * channels).float()
    rows = torch.addcmul(shift.repeat(width), rows, scale.repeat(width))
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


class Probabilities(nn.Module):
    """From stored images to class probabilities: normalisation, network, temperature and softmax in one module.

    Takes uint8 (N, C, S, S), returns float32 (N, K) that sum to one.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        temperature: float,
        projection: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature
        self.embedding = None if projection is None else Embedding(network, projection)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.answers(images)[0]

    def answers(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities, float32 (N, K), and embeddings, float32 (N, D); D is 0 without a projection."""
        logits, embedding = self.outputs(images)
        return torch.softmax(logits / self.temperature, dim=1), embedding

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the network gives, float32 (N, K), before temperature and softmax; and embeddings, float32 (N, D)."""
        normalised = (images.float() / 255 - self.mean) / self.std
        logits: Tensor = self.network(normalised).float()
        return logits, logits[:, :0] if self.embedding is None else self.embedding()


def build(network: NetworkParams, image: ImageParams, classes: int) -> nn.Module:
    """Build a network with a head of ``classes`` outputs, its weights drawn from torch's global generator.

    Raises
    ------
    ParamsError
        If the name is unknown, or the network does not run at the image size.
    """
    if network.name in OWN:
        is_fast = network.name == "fast"
        smallest = smallest_size(network, image.channels) if is_fast else 2 ** len(network.widths)
        if image.size < smallest:
            raise ParamsError(
                f"network.widths: {len(network.widths)} blocks halve an image of {image.size} pixels to nothing; "
                f"expected image.size ≥ {smallest}, or fewer widths."
            )
        if is_fast:
            return Fast(network, channels=image.channels, classes=classes)
        return Cnn(network, channels=image.channels, size=image.size, classes=classes)
    model = _torchvision_model(network.name, classes)
    return nn.Sequential(GreyAsColour(), model) if image.channels == 1 else model


def load_initial_weights(model: nn.Module, network: NetworkParams, root: Path) -> str:
    """Load the weights that ``network.weights`` names, the head excepted; say in a few words what was loaded.

    Parameters
    ----------
    model
        What `build` returned.
    network
        Its parameters: ``random`` leaves the weights as they are, ``pretrained`` takes torchvision's, anything else
        is the path of a safetensors file.
    root
        The folder at which a relative path starts.

    Raises
    ------
    ParamsError
        If the file is absent, unreadable or fits another network.
    CalotypeError
        If torchvision's weights cannot be downloaded.
    """
    if network.weights == "random":
        return "random weights"
    state = _pretrained(network.name) if network.weights == "pretrained" else _read_weights(root / network.weights)
    target = model[1] if isinstance(model, nn.Sequential) else model
    own = target.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    if len(fitting) * 2 < len(own):
        raise ParamsError(
            f"network.weights: {network.weights} fits {len(fitting)} of {len(own)} tensors of {network.name}; "
            "expected weights of the same network. Correct network.name or network.weights."
        )
    target.load_state_dict(own | fitting)
    return f"{network.weights} weights: {len(fitting)} of {len(own)} tensors, the others start at random"


def check(network: NetworkParams, image: ImageParams) -> None:
    """Run the network once without data (on torch's meta device), so that a misfit is met before any work.

    Raises
    ------
    ParamsError
        Naming the smallest or only size at which the network runs.
    """
    if network.name in OWN:
        build(network, image, classes=2)
        return
    if _runs(network, image):
        return
    sizes = [size for size in SIZES if _runs(network, image.model_copy(update={"size": size}))]
    works = f"the only size is {sizes[0]}" if len(sizes) == 1 else f"the smallest size is {min(sizes, default='none')}"
    raise ParamsError(f"image.size: {network.name} does not run at {image.size} pixels; {works}. Change image.size.")


def count_parameters(model: nn.Module) -> int:
    """How many numbers the network learns."""
    return sum(parameter.numel() for parameter in model.parameters())


def _runs(network: NetworkParams, image: ImageParams) -> bool:
    with torch.device("meta"), torch.no_grad():
        model = build(network, image, classes=2)
        try:
            for mode in (True, False):
                model.train(mode)(torch.empty(2, image.channels, image.size, image.size))
        except (RuntimeError, ValueError, AssertionError):
            return False
    return True


def _torchvision_model(name: str, classes: int) -> nn.Module:
    builder = _builder(name)
    options: dict[str, Any] = {"weights": None, "num_classes": classes}
    # googlenet and inception_v3 return auxiliary logits beside the logits unless told not to.
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": True}
    model: nn.Module = builder(**options)
    return model


def _builder(name: str) -> Callable[..., Any]:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        close = difflib.get_close_matches(name, [*OWN, *known], n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "expected cnn, fast, resnet18, mobilenet_v3_small …"
        raise ParamsError(f"network.name: found {name!r}, which is no network known here; {hint}")
    builder: Callable[..., Any] = models.get_model_builder(name)
    return builder


def _pretrained(name: str) -> dict[str, Tensor]:
    if name in OWN:
        raise ParamsError(
            f"network.weights: found 'pretrained' for {name}, for which none are published; expected random, a path, "
            "or a torchvision network such as resnet18."
        )
    from torchvision.models import get_model_weights

    weights = get_model_weights(_builder(name)).DEFAULT
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise CalotypeError(
            f"network.weights: torchvision's weights of {name} cannot be downloaded from {weights.url} ({error}). "
            "Connect to the network, or name a local .safetensors file."
        ) from error
    return state


def _read_weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ParamsError(
            f"network.weights: {path} cannot be read as safetensors ({error}); expected random, pretrained, or the "
            "path of a .safetensors file."
        ) from error
