"""Embeddings: the input of any network's last layer, projected by a matrix that is drawn once and keeps distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from calotype.learning import network
from calotype.learning.embedding import SIZE, draw, last_layer
from calotype.learning.network import Probabilities
from calotype.params import ImageParams, NetworkParams

FAMILIES = [
    "cnn",
    "fast",
    "resnet18",
    "mobilenet_v3_small",
    "squeezenet1_1",
    "densenet121",
    "shufflenet_v2_x0_5",
    "vgg11",
]


def built(name: str, channels: int = 3) -> nn.Module:
    values = {"weights": "random", "widths": [8, 16], "convs": 1, "hidden": [], "dropout": 0.1}
    image = ImageParams(size=64, channels=channels, resize="stretch")  # type: ignore[arg-type]
    torch.manual_seed(0)
    return network.build(NetworkParams.model_validate({"name": name} | values), image, 5).eval()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", FAMILIES)
def test_an_embedding_is_the_projected_input_of_the_layer_that_gives_the_logits(name: str, channels: int) -> None:
    model = built(name, channels)
    given: list[torch.Tensor] = []
    layer = last_layer(model)
    layer.register_forward_hook(lambda _, inputs, output: given.extend((inputs[0], output)))
    projection = draw(model)
    answering = Probabilities(model, (0.5,) * channels, (0.2,) * channels, 1.0, projection).eval()
    images = torch.randint(0, 256, (3, channels, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        probabilities, embedding = answering.answers(images)
        plain = Probabilities(model, (0.5,) * channels, (0.2,) * channels, 1.0).eval()(images)
    features, output = given[:2]
    pooled = features.mean((2, 3)) if features.dim() == 4 else features
    assert output.shape[:2] == (3, 5)
    assert embedding.shape == (3, min(SIZE, pooled.shape[1]))
    assert torch.equal(embedding, pooled @ projection)
    assert torch.equal(probabilities, plain)


@pytest.mark.parametrize("features", [3, 64, 65, 4096])
def test_the_columns_of_a_projection_are_orthonormal(features: int) -> None:
    projection = draw(nn.Linear(features, 10)).double()
    assert projection.shape == (features, min(SIZE, features))
    torch.testing.assert_close(
        projection.T @ projection, torch.eye(projection.shape[1], dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_a_projection_depends_on_the_number_of_features_alone_to_the_last_bit() -> None:
    first = draw(nn.Linear(300, 10))
    np.random.seed(1)
    torch.manual_seed(1)
    assert torch.equal(draw(nn.Conv2d(300, 7, 1)), first)


def test_distances_are_kept_whatever_the_points_are() -> None:
    """Of few columns, of one direction far from all others, of noise."""
    random = np.random.default_rng(0)
    sparse = np.zeros((40, 1000))
    sparse[:, :5] = random.random((40, 5))
    for points in (sparse, sparse + 100, random.normal(size=(40, 1000))):
        before, after = (
            np.linalg.norm(of[:, None] - of[None], axis=2)[np.triu_indices(40, 1)]
            for of in (points, points @ draw(nn.Linear(1000, 2)).numpy() * np.sqrt(1000 / SIZE))
        )
        assert np.abs(after / before - 1).max() < 0.5
        assert abs(np.mean(after / before) - 1) < 0.15


def test_up_to_64_features_no_distance_changes() -> None:
    points = np.random.default_rng(0).normal(size=(20, 48)).astype(np.float32)
    turned = points @ draw(nn.Linear(48, 2)).numpy()
    np.testing.assert_allclose(
        np.linalg.norm(points[:, None] - points[None], axis=2),
        np.linalg.norm(turned[:, None] - turned[None], axis=2),
        atol=1e-4,
    )
