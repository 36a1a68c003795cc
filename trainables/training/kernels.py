"""A convolution that oneDNN gets wrong on processors, in another way.

Its kernel for the weights' gradient of a 1x1 convolution with a stride writes past its workspace where channels-last images
have fewer channels than a vector register (https://github.com/uxlfoundation/oneDNN/issues/6035): the process dies, or other
values are overwritten. Shortcuts of ResNets come to that once enough of their channels are cut.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair
from torch.overrides import TorchFunctionMode

REGISTER = 16 if torch.cpu.get_capabilities().get("avx512_f") else 8
"""Values of 32 bits in a vector register."""


class _Strided(TorchFunctionMode):
    """Takes every so many pixels before such a convolution, and not in it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_conv2d if func is torch.conv2d else func)(*args, **(kwargs or {}))


def _conv2d(
    x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    rows, columns = _pair(stride)
    if _is_narrow(weight, groups) and (padding == "valid" or not any(_pair(padding))):
        x, stride = x[..., ::rows, ::columns], 1
    return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)


def _is_narrow(weight: Tensor, groups: int) -> bool:
    return weight.device.type == "cpu" and weight.shape[2:] == (1, 1) and weight.shape[1] < REGISTER and groups == 1


def trainable(model: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """A context for forward passes of ``model`` that are differentiated; it can be entered again and again."""
    convolutions = (one for one in model.modules() if isinstance(one, nn.Conv2d))
    if any(_is_narrow(one.weight, one.groups) and one.stride != (1, 1) for one in convolutions):
        return _Strided()
    return contextlib.nullcontext()
