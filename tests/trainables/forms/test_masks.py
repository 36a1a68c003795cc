"""Masks in bytes: there and back, next to their entropy, and damaged ones refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from trainables.forms import masks
from trainables.forms.entropy import Reader
from trainables.records.names import InputError


def mask_of(share: float, count: int = 20_000) -> Tensor:
    return (torch.rand(count, generator=torch.Generator().manual_seed(0)) < share).view(4, -1)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.02, 0.1, 0.3, 0.5, 0.8, 0.98, 0.9999, 1.0])
def test_there_and_back_within_four_percent_of_the_entropy(share: float) -> None:
    mask = mask_of(share)
    content = masks.write(mask)
    reader = Reader(content + b"rest")
    assert torch.equal(masks.read(reader, mask), mask)
    assert reader.left == 4
    kept = float(mask.float().mean())
    entropy = sum(-p * math.log2(p) for p in (kept, 1 - kept) if p) * mask.numel() / 8
    assert len(content) <= min(1.04 * entropy, mask.numel() / 8) + 6


@pytest.mark.parametrize("count", [1, 7, 8, 9, 1000])
def test_every_single_place_there_and_back(count: int) -> None:
    for place in {0, count // 2, count - 1}:
        for mask in ((one := torch.arange(count) == place), ~one):
            assert torch.equal(masks.read(Reader(masks.write(mask)), mask), mask)


def test_the_way_follows_the_sparsity() -> None:
    ways = {share: masks.write(mask_of(share))[0] for share in (0.02, 0.5, 0.98)}
    assert ways == {0.02: masks.KEPT_GAPS, 0.5: masks.BITS, 0.98: masks.REMOVED_GAPS}


def test_damaged_masks_are_refused_or_are_masks() -> None:
    """Whatever the bytes are, nothing but a mask of the tensor's shape or one line of error comes of them."""
    mask = mask_of(0.1, 400)
    content, refused = masks.write(mask), 0
    for at in range(len(content)):
        for value in (0, 1, 127, 255):
            damaged = content[:at] + bytes([value]) + content[at + 1 :]
            try:
                assert masks.read(Reader(damaged), mask).shape == mask.shape
            except InputError:
                refused += 1
    assert refused
    for end in range(len(content)):
        with pytest.raises(InputError, match="damaged"):
            masks.read(Reader(content[:end]), mask)
