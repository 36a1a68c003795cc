"""Strided 1x1 convolutions of few channels, whose kernel for channels-last images writes past its memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.training.kernels import REGISTER, trainable


def shortcut(inputs: int, **settings: Any) -> nn.Module:
    body = nn.Sequential(nn.Conv2d(3, inputs, 3, padding=1), nn.Conv2d(inputs, 12, 1, **{"stride": 2, **settings}))
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10))


def gradients(model: nn.Module, images: Tensor) -> list[Tensor]:
    with trainable(model):
        loss = F.cross_entropy(model(images), torch.arange(len(images)) % 10)
    model.zero_grad()
    loss.backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("inputs", [1, 2, REGISTER - 1, REGISTER])
def test_gradients_are_those_of_double_precision_however_often_they_are_computed(inputs: int) -> None:
    torch.manual_seed(0)
    images, model = torch.randn(8, 3, 32, 32), shortcut(inputs)
    exact = gradients(copy.deepcopy(model).double(), images.double())
    model, images = (one.to(memory_format=torch.channels_last) for one in (model, images))  # type: ignore[attr-defined]
    for _ in range(20):
        for found, wanted in zip(gradients(model, images), exact, strict=True):
            torch.testing.assert_close(found.double(), wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "otherwise"),
    [
        (lambda: shortcut(REGISTER - 1), True),
        (lambda: shortcut(4, stride=(1, 3), padding="valid"), True),
        (lambda: shortcut(REGISTER), False),
        (lambda: shortcut(4, stride=1), False),
        (lambda: shortcut(4, groups=2), False),
    ],
)
def test_only_what_the_kernel_gets_wrong_is_computed_otherwise(make: Callable[[], nn.Module], otherwise: bool) -> None:
    model, images = make(), torch.randn(2, 3, 8, 8)
    context = trainable(model)
    assert isinstance(context, nullcontext) != otherwise
    with context:
        one = model(images)
    torch.testing.assert_close(one, model(images))
    assert ("SliceBackward0" in steps_of(one)) == otherwise


def steps_of(output: Tensor) -> set[str]:
    """The names of the steps that autograd will go back through."""
    found, waiting = set[str](), [output.grad_fn]
    while waiting:
        step = waiting.pop()
        if step is not None:
            found.add(type(step).__name__)
            waiting += [one for one, _ in step.next_functions]
    return found


def test_a_convolution_with_padding_or_of_an_image_alone_is_as_before() -> None:
    model = nn.Conv2d(3, 5, 1, (2, 1), padding=1)
    with trainable(model):
        padded = model(torch.ones(1, 3, 5, 5))
    torch.testing.assert_close(padded, model(torch.ones(1, 3, 5, 5)))
    model = nn.Conv2d(3, 5, 1, (2, 3))
    with trainable(model):
        alone = model(torch.ones(3, 5, 7))
    torch.testing.assert_close(alone, model(torch.ones(3, 5, 7)))
