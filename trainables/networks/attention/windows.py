"""The window attention of torchvision's Swin for any number of heads: torchvision's takes as many as its width holds.

Imported only where torchvision's own module is: torchvision takes a second and a half.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2


class Windows(ShiftedWindowAttention):  # type: ignore[misc]
    """Attention within windows of a map (Liu et al. 2021, arXiv:2103.14030), from [N, H, W, C] to the same."""

    head_dim: int
    relative_position_bias_table: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """As torchvision's."""
        return _windowed(self, x)

    def keep_heads(self, left: list[int]) -> None:
        """Keep the biases of these heads."""
        table = self.relative_position_bias_table
        self.relative_position_bias_table = nn.Parameter(table.detach()[:, left], table.requires_grad)


class WindowsV2(ShiftedWindowAttentionV2):  # type: ignore[misc]
    """The same with cosines for scores (Liu et al. 2022, arXiv:2111.09883)."""

    head_dim: int
    logit_scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """As torchvision's."""
        return _windowed(self, x)

    def keep_heads(self, left: list[int]) -> None:
        """Keep the scales and the biases of these heads."""
        scale, last = self.logit_scale, self.cpb_mlp[2]
        self.logit_scale = nn.Parameter(scale.detach()[left], scale.requires_grad)
        last.weight = nn.Parameter(last.weight.detach()[left], last.weight.requires_grad)
        last.out_features = len(left)


def _windowed(module: Any, x: Tensor) -> Tensor:
    height, width = x.shape[1:3]
    rows, columns = module.window_size
    x = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
    sizes = x.shape[1:3]
    shifts = [0 if w >= size else s for w, s, size in zip(module.window_size, module.shift_size, sizes, strict=True)]
    x = x.roll((-shifts[0], -shifts[1]), (1, 2))
    mixed = module.proj(_mixed(module, _split(x, rows, columns), _apart(sizes, module.window_size, shifts, x)))
    mixed = F.dropout(mixed, module.dropout, module.training)
    x = mixed.view(len(x), sizes[0] // rows, sizes[1] // columns, rows, columns, -1).transpose(2, 3)
    x = x.flatten(3, 4).flatten(1, 2).roll((shifts[0], shifts[1]), (1, 2))
    whole: Tensor = x[:, :height, :width].contiguous()
    return whole


def _split(x: Tensor, rows: int, columns: int) -> Tensor:
    """From a map [N, H, W, C] to its windows [N · windows, rows · columns, C]."""
    windows: Tensor = x.unflatten(1, (-1, rows)).unflatten(3, (-1, columns)).transpose(2, 3).flatten(0, 2).flatten(1, 2)
    return windows


def _apart(sizes: Iterable[int], window: list[int], shifts: list[int], like: Tensor) -> Tensor | None:
    """-100 for each pair of places [windows, 1, places, places] that were not neighbours before the shift."""
    if not any(shifts):
        return None
    rows, columns = (
        (at >= size - w).long() + (at >= size - s).long() if s else torch.zeros_like(at)
        for size, w, s in zip(sizes, window, shifts, strict=True)
        for at in (torch.arange(size, device=like.device),)
    )
    regions = _split((3 * rows[:, None] + columns)[None, ..., None], *window)[..., 0]
    return like.new_zeros(()).masked_fill((regions[:, None, :] != regions[:, :, None])[:, None], -100.0)


def _mixed(module: Any, x: Tensor, apart: Tensor | None) -> Tensor:
    """The values that the places of each window attend to, [windows, places, heads · head_dim]."""
    parts = _projected(module, x).unflatten(-1, (3, module.num_heads, module.head_dim)).permute(2, 0, 3, 1, 4)
    q, k, v = parts
    if isinstance(module, WindowsV2):
        scale = module.logit_scale.clamp(max=math.log(100.0)).exp()
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * scale
    else:
        scores = q * module.head_dim**-0.5 @ k.transpose(-2, -1)
    scores = scores + module.get_relative_position_bias()
    if apart is not None:
        scores = (scores.unflatten(0, (-1, len(apart))) + apart).flatten(0, 1)
    weights = F.dropout(scores.softmax(-1), module.attention_dropout, module.training)
    mixed: Tensor = (weights @ v).transpose(1, 2).flatten(2)
    return mixed


def _projected(module: Any, x: Tensor) -> Tensor:
    """Query, key and value; in the second version keys have no bias."""
    bias = module.qkv.bias
    if not isinstance(module, WindowsV2) or bias is None:
        plain: Tensor = module.qkv(x)
        return plain
    third = len(bias) // 3
    without = torch.cat([bias[:third], torch.zeros_like(bias[:third]), bias[2 * third :]])
    made: Tensor = functional_call(module.qkv, {"bias": without}, (x,))
    return made


KINDS: dict[type[nn.Module], type[nn.Module]] = {ShiftedWindowAttention: Windows, ShiftedWindowAttentionV2: WindowsV2}


def adapt(module: Any) -> None:
    """Let a window attention of torchvision's take fewer heads, in place; any other module stays as it is."""
    if type(module) in KINDS:
        module.head_dim = module.qkv.in_features // module.num_heads
        module.__class__ = KINDS[type(module)]
