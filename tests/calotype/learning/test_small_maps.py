"""A convolution over a few pixels gives the same, forwards and backwards, as a product with a matrix."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from calotype.learning.small_maps import LARGEST, SmallMapConv2d, multiplied

SIZES = [(1, 1), (2, 2), (2, 3), (3, 3), (4, 4)]
KERNELS = [(3, 1, 1), (3, 2, 1), (5, 1, 2), (7, 2, 3), (2, 1, 0), (3, 1, 0)]
CASES = [(size, *kernel) for size in SIZES for kernel in KERNELS if min(size) + 2 * kernel[2] >= kernel[0]]


@pytest.mark.parametrize(("size", "edge", "stride", "padding"), CASES)
def test_answers_and_gradients_are_those_of_torch(size: tuple[int, int], edge: int, stride: int, padding: int) -> None:
    torch.manual_seed(0)
    expected = nn.Conv2d(5, 7, edge, stride, padding).to(memory_format=torch.channels_last)
    found = multiplied(nn.Sequential(copy.deepcopy(expected)))[0]
    assert isinstance(found, SmallMapConv2d)
    maps = torch.randn(4, 5, *size).contiguous(memory_format=torch.channels_last)
    for one, other in zip(_worked(expected, maps), _worked(found, maps), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def _worked(convolution: nn.Module, maps: Tensor) -> list[Tensor]:
    maps = maps.clone().requires_grad_()
    answers = convolution(maps)
    (answers * torch.linspace(-1, 1, answers.numel()).view_as(answers)).sum().backward()
    gradients = [parameter.grad for parameter in (maps, *convolution.parameters())]
    return [answers.detach(), *(gradient for gradient in gradients if gradient is not None)]


def test_other_convolutions_and_the_names_of_weights_stay() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, (3, 1), padding=(1, 0)),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 8, 3, padding=1),
    )
    names = list(model.state_dict())
    kinds = [type(module) for module in multiplied(model)]
    assert kinds == [nn.Conv2d] * 6 + [SmallMapConv2d]
    assert list(model.state_dict()) == names


def test_larger_maps_are_left_to_torch() -> None:
    edge = int(LARGEST**0.5) + 1
    convolution = nn.Conv2d(2, 3, 3, padding=1)
    maps = torch.randn(2, 2, edge, edge)
    expected = convolution(maps)
    assert torch.equal(multiplied(convolution)(maps), expected)
