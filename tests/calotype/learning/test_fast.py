"""The `fast` network and Muon: what whitening, dirac kernels and orthogonal steps promise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from calotype import params as parameters
from calotype.errors import ParamsError
from calotype.learning import network, training
from calotype.learning.fast import Fast, patch_edge
from calotype.learning.muon import Muon, orthogonalised
from calotype.learning.training import Labelled, State, Trainer
from calotype.params import ImageParams, NetworkParams, Params

SHIPPED = parameters.load(Path(__file__).parents[3] / "params.yaml")


def shape(**changes: object) -> NetworkParams:
    return SHIPPED.network.model_copy(update={"name": "fast", "widths": [16, 32], "convs": 2, "dropout": 0.0} | changes)


def image(size: int = 16, channels: int = 3) -> ImageParams:
    return SHIPPED.image.model_copy(update={"size": size, "channels": channels})


@pytest.mark.parametrize("channels", [1, 3])
def test_whitened_patches_are_uncorrelated_and_of_unit_variance(channels: int) -> None:
    model = network.build(shape(), image(channels=channels), classes=4)
    assert isinstance(model, Fast)
    noise = torch.randn(500, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.avg_pool2d(noise, 3, stride=1, padding=1) + noise / 3
    model.whiten(smooth)
    answers = model.whitening(smooth)
    half = channels * patch_edge(channels) ** 2
    flat = answers[:, :half].permute(1, 0, 2, 3).flatten(1)
    assert torch.allclose(flat @ flat.T / flat.shape[1], torch.eye(half), atol=0.05)
    assert torch.equal(answers[:, half:], -answers[:, :half])


def test_an_image_too_small_is_refused_with_the_smallest_size() -> None:
    with pytest.raises(ParamsError, match=r"expected image\.size ≥ 9"):
        network.check(shape(widths=[8, 8, 8]), image(size=8))
    network.check(shape(widths=[8, 8, 8]), image(size=9))


@pytest.mark.parametrize(("rows", "columns"), [(8, 4), (4, 8), (16, 16)])
def test_an_orthogonalised_kernel_has_singular_values_near_one(rows: int, columns: int) -> None:
    kernel = torch.randn(rows, columns, 3, 3, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(kernel).reshape(rows, -1))
    assert values.min() > 0.5
    assert values.max() < 1.5


def test_kernels_keep_their_norm_and_frozen_ones_their_values() -> None:
    model = network.build(shape(), image(), classes=4)
    assert isinstance(model, Fast)
    model.whiten(torch.randn(100, 3, 16, 16))
    before = model.whitening.weight.clone()
    optimizer = Muon(
        [{"params": [p for p in model.parameters() if p.requires_grad and p.ndim == 4], "orthogonal": True}],
        lr=0.1,
        momentum=0.6,
    )
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(8, 3, 16, 16)).square().mean().backward()
        optimizer.step()
    assert torch.equal(model.whitening.weight, before)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 4 and parameter.requires_grad:
            assert float(parameter.detach().norm()) == pytest.approx(len(parameter) ** 0.5, rel=0.2), name


def test_it_learns_digits_in_three_epochs() -> None:
    data = load_digits()
    images = torch.from_numpy((data.images * 255 / 16).round().astype("uint8"))[:, None]
    images = nn.functional.interpolate(images.float(), size=16, mode="bilinear").round().to(torch.uint8)
    labels = torch.from_numpy(data.target).long()
    params = recipe()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    trainer = Trainer(
        network.build(params.network, params.image, classes=10),
        Labelled(images[:1400], labels[:1400]),
        Labelled(images[1400:], labels[1400:]),
        training.pixel_statistics(images[:1400]),
        train=params.train,
        augmentation=params.augment,
        device=torch.device("cpu"),
        classes=10,
    )
    state = training.train(trainer, State(), on_step=lambda _: None, on_epoch=lambda _: None)
    assert state.history[-1].val_accuracy > 0.95


def recipe() -> Params:
    values = {"epochs": 3, "batch_size": 50, "optimizer": "muon", "lr": 0.24, "momentum": 0.6, "schedule": "linear"}
    train = SHIPPED.train.model_copy(update=values | {"weight_decay": 0.002, "warmup_epochs": 0, "threads": 1})
    augmentation = SHIPPED.augment.model_copy(update={"flip": 0.0})
    return SHIPPED.model_copy(
        update={"network": shape(), "image": image(channels=1), "train": train, "augment": augmentation}
    )
