"""Networks by name: what runs, what is refused, and how weights come in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from calotype.errors import CalotypeError, ParamsError
from calotype.learning import network
from calotype.params import ImageParams, NetworkParams


def image(size: int, channels: int = 1) -> ImageParams:
    return ImageParams(size=size, channels=channels, resize="stretch")  # type: ignore[arg-type]


def named(name: str, **more: object) -> NetworkParams:
    values = {"weights": "random", "widths": [8, 16], "convs": 1, "hidden": [32], "dropout": 0.1} | more
    return NetworkParams.model_validate({"name": name} | values)


@pytest.mark.parametrize("size", [8, 28, 32, 64, 224])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_cnn_runs_from_8_to_224_pixels_grey_and_colour(size: int, channels: int) -> None:
    model = network.build(named("cnn"), image(size, channels), classes=5).eval()
    assert model(torch.rand(2, channels, size, size)).shape == (2, 5)


def test_the_cnn_is_convolutions_pooling_and_fully_connected_layers() -> None:
    kinds = {type(module).__name__ for module in network.build(named("cnn"), image(8), classes=3).modules()}
    assert {"Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Flatten", "Linear"} <= kinds


def test_an_image_too_small_for_the_blocks_names_the_smallest_size() -> None:
    with pytest.raises(ParamsError, match=r"expected image.size ≥ 16"):
        network.check(named("cnn", widths=[8, 8, 8, 8]), image(8))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny", "googlenet"])
def test_networks_of_torchvision_run_on_grey_images(name: str) -> None:
    network.check(named(name), image(64))


@pytest.mark.parametrize(
    ("name", "size", "says"),
    [("vit_b_16", 64, "the only size is 224"), ("convnext_tiny", 28, "the smallest size is 32")],
)
def test_a_network_that_does_not_run_names_the_sizes_that_do(name: str, size: int, says: str) -> None:
    with pytest.raises(ParamsError, match=says):
        network.check(named(name), image(size))


def test_an_unknown_network_names_its_neighbours() -> None:
    with pytest.raises(ParamsError, match="did you mean resnet18"):
        network.check(named("resnet81"), image(32))


def test_probabilities_sum_to_one_and_normalise_inside() -> None:
    model = network.Probabilities(network.build(named("cnn"), image(8), 4), (0.3,), (0.2,), 1.0).eval()
    given = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    logits = model.network((given.float() / 255 - 0.3) / 0.2)
    assert torch.allclose(model(given), logits.softmax(1), atol=1e-6)


def test_a_local_file_brings_all_weights_but_the_head(tmp_path: Path) -> None:
    torch.manual_seed(1)
    donor = network.build(named("resnet18"), image(32, 3), classes=7)
    save_file(donor.state_dict(), tmp_path / "donor.safetensors")
    model = network.build(named("resnet18"), image(32), classes=3)
    said = network.load_initial_weights(model, named("resnet18", weights="donor.safetensors"), tmp_path)
    assert torch.equal(model[1].conv1.weight, donor.conv1.weight)  # type: ignore[index, union-attr]
    assert model[1].fc.out_features == 3  # type: ignore[index, union-attr]
    assert "120 of 122 tensors" in said


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(3)}, tmp_path / "x.safetensors")
    model = network.build(named("cnn"), image(8), 2)
    with pytest.raises(ParamsError, match=r"fits 0 of"):
        network.load_initial_weights(model, named("cnn", weights="x.safetensors"), tmp_path)


@pytest.mark.parametrize("content", [None, b"no safetensors"])
def test_a_weights_file_that_is_absent_or_broken_is_said(tmp_path: Path, content: bytes | None) -> None:
    if content:
        (tmp_path / "w.safetensors").write_bytes(content)
    model = network.build(named("cnn"), image(8), 2)
    with pytest.raises(ParamsError, match="cannot be read as safetensors"):
        network.load_initial_weights(model, named("cnn", weights="w.safetensors"), tmp_path)


def test_pretrained_weights_of_the_cnn_are_refused() -> None:
    model = network.build(named("cnn"), image(8), 2)
    with pytest.raises(ParamsError, match="for which none are published"):
        network.load_initial_weights(model, named("cnn", weights="pretrained"), Path())


def test_pretrained_weights_come_from_torchvisions_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made here in place of the download, under the name and in the form that torchvision looks for."""
    from torchvision.models import SqueezeNet1_1_Weights

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(2)
    donor = network.build(named("squeezenet1_1"), image(64, 3), classes=1000)
    name = SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2]
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(donor.state_dict(), tmp_path / "hub" / "checkpoints" / name)
    model = network.build(named("squeezenet1_1"), image(64, 3), classes=4)
    network.load_initial_weights(model, named("squeezenet1_1", weights="pretrained"), tmp_path)
    key = "features.0.weight"
    assert torch.equal(model.state_dict()[key], donor.state_dict()[key])
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 4)


def test_weights_that_cannot_be_downloaded_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    model = network.build(named("squeezenet1_1"), image(64, 3), classes=4)
    with pytest.raises(CalotypeError, match="cannot be downloaded"):
        network.load_initial_weights(model, named("squeezenet1_1", weights="pretrained"), tmp_path)
