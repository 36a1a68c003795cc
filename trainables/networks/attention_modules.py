"""Attention modules of torch and torchvision, for any number of heads: theirs take as many as their width holds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2


class MultiheadAttention(nn.Module):
    """``nn.MultiheadAttention`` with heads that can be removed; what it gives and takes is the same."""

    _qkv_same_embed_dim = False  # torch's fused encoder layer looks here, and leaves attention to this module

    def __init__(self, given: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.embed_dim = given.num_heads, given.head_dim, given.embed_dim
        self.dropout, self.batch_first = given.dropout, given.batch_first
        self.in_proj = nn.Linear(given.embed_dim, 3 * given.embed_dim, device="meta")
        self.in_proj.weight = given.in_proj_weight
        self.in_proj.bias = given.in_proj_bias
        self.out_proj = nn.Linear(given.embed_dim, given.embed_dim, device="meta")
        self.out_proj.weight, self.out_proj.bias = given.out_proj.weight, given.out_proj.bias
        self.train(given.training)

    @staticmethod
    def takes(given: nn.MultiheadAttention) -> bool:
        """Whether it has nothing but one projection of query, key and value, and one of outputs."""
        return given.in_proj_weight is not None and given.bias_k is None and not given.add_zero_attn

    @property
    def in_proj_weight(self) -> Tensor:
        """The projections of query, key and value, one below the other."""
        return self.in_proj.weight

    @property
    def in_proj_bias(self) -> Tensor | None:
        """Their bias."""
        return self.in_proj.bias

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None, need_weights: bool = True,
        attn_mask: Tensor | None = None, average_attn_weights: bool = True, is_causal: bool = False,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """As of ``nn.MultiheadAttention``; ``is_causal`` is a hint there, which comes with an ``attn_mask``."""
        alone = query.dim() == 2
        q, k, v = (self._heads(part, alone) for part in self._projected(query, key, value))
        mask = _added(attn_mask, key_padding_mask, q)
        dropout, weights = self.dropout if self.training else 0.0, None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
            weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
            mixed = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        output = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if alone:
            return output[0], None if weights is None else weights[0]
        return output if self.batch_first else output.transpose(0, 1), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> Iterable[Tensor]:
        if query is key and key is value:
            return self.in_proj(query).chunk(3, -1)  # type: ignore[no-any-return]
        weights = self.in_proj.weight.chunk(3)
        biases = (None,) * 3 if self.in_proj.bias is None else self.in_proj.bias.chunk(3)
        return [F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)]

    def _heads(self, x: Tensor, alone: bool) -> Tensor:
        batched = x[None] if alone else x if self.batch_first else x.transpose(0, 1)
        return batched.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take the names of ``nn.MultiheadAttention`` too."""
        for name in ("weight", "bias"):
            if (old := f"{prefix}in_proj_{name}") in state_dict:
                state_dict[f"{prefix}in_proj.{name}"] = state_dict.pop(old)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _added(mask: Tensor | None, padding: Tensor | None, query: Tensor) -> Tensor | None:
    """What is added to scores [batch, heads, queries, keys]; True in a mask is what is not attended to."""
    found = None if mask is None else _numbers(mask, query)
    if found is not None and found.dim() == 3:  # one for each head that there was
        found = found.view(len(query), -1, *found.shape[-2:])
    if padding is None:
        return found
    padded = _numbers(padding, query).view(len(query), 1, 1, -1)
    return padded if found is None else found + padded


def _numbers(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return like.new_zeros(mask.shape).masked_fill(mask, -math.inf)


class Windows(ShiftedWindowAttention):
    """Attention within windows of a map (Liu et al. 2021, arXiv:2103.14030), from [N, H, W, C] to the same."""

    head_dim: int

    def forward(self, x: Tensor) -> Tensor:
        """As torchvision's."""
        return _windowed(self, x)

    def keep_heads(self, left: list[int]) -> None:
        """Keep the biases of these heads."""
        self.relative_position_bias_table = nn.Parameter(self.relative_position_bias_table.detach()[:, left])


class WindowsV2(ShiftedWindowAttentionV2):
    """The same with cosines for scores (Liu et al. 2022, arXiv:2111.09883)."""

    head_dim: int

    def forward(self, x: Tensor) -> Tensor:
        """As torchvision's."""
        return _windowed(self, x)

    def keep_heads(self, left: list[int]) -> None:
        """Keep the scales and the biases of these heads."""
        self.logit_scale = nn.Parameter(self.logit_scale.detach()[left])
        last = self.cpb_mlp[2]
        last.weight, last.out_features = nn.Parameter(last.weight.detach()[left]), len(left)


def _windowed(module: Windows | WindowsV2, x: Tensor) -> Tensor:
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
    return x[:, :height, :width].contiguous()


def _split(x: Tensor, rows: int, columns: int) -> Tensor:
    """From a map [N, H, W, C] to its windows [N · windows, rows · columns, C]."""
    return x.unflatten(1, (-1, rows)).unflatten(3, (-1, columns)).transpose(2, 3).flatten(0, 2).flatten(1, 2)


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


def _mixed(module: Windows | WindowsV2, x: Tensor, apart: Tensor | None) -> Tensor:
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
    return (weights @ v).transpose(1, 2).flatten(2)


def _projected(module: Windows | WindowsV2, x: Tensor) -> Tensor:
    """Query, key and value; in the second version keys have no bias."""
    bias = module.qkv.bias
    if not isinstance(module, WindowsV2) or bias is None:
        return module.qkv(x)  # type: ignore[no-any-return]
    third = len(bias) // 3
    without = torch.cat([bias[:third], torch.zeros_like(bias[:third]), bias[2 * third :]])
    made: Tensor = functional_call(module.qkv, {"bias": without}, (x,))
    return made
