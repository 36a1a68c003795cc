"""``nn.MultiheadAttention`` for any number of heads: torch's takes as many as its width holds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
            together: Tensor = self.in_proj(query)
            return together.chunk(3, -1)
        weights = self.in_proj.weight.chunk(3)
        biases = (None,) * 3 if self.in_proj.bias is None else self.in_proj.bias.chunk(3)
        return [F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)]

    def _heads(self, x: Tensor, alone: bool) -> Tensor:
        batched = x[None] if alone else x if self.batch_first else x.transpose(0, 1)
        heads: Tensor = batched.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
        return heads

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
