"""Attention that can lose heads computes what torch's and torchvision's computes, and without heads what is left of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

from tests.odd_networks import AttentionByChunks, AttentionOfFixedWidth, AttentionOfThree, SelfAttention
from trainables.networks.attention.heads import Heads, adapt, heads_of
from trainables.networks.attention.parts import Part
from trainables.networks.parameters import folded_state

BATCH, QUERIES, KEYS, WIDTH, HEADS = 3, 5, 7, 24, 4


def adapted(module: nn.Module) -> Any:
    """A copy of a module that can lose heads."""
    holder = nn.Sequential(copy.deepcopy(module))
    adapt(holder)
    return holder[0]


def with_heads(module: nn.Module) -> Heads:
    found = heads_of(module)
    assert found is not None
    return found


def drawn(module: nn.Module) -> nn.Module:
    """The module, whose constants are no longer such."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def mask_of(kind: str) -> dict[str, Tensor]:
    if kind == "boolean":
        return {"attn_mask": torch.rand(QUERIES, KEYS) > 0.7}
    if kind == "added":
        return {"attn_mask": torch.randn(BATCH * HEADS, QUERIES, KEYS)}
    if kind == "padding":
        return {"key_padding_mask": torch.arange(KEYS).expand(BATCH, -1) >= torch.tensor([[7], [5], [6]])}
    return mask_of("added") | mask_of("padding") if kind == "both" else {}


@pytest.mark.parametrize("kind", ["none", "boolean", "added", "padding", "both"])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_it_is_torch_s_attention(kind: str, need_weights: bool, batch_first: bool) -> None:
    theirs = drawn(nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first)).eval()
    ours = adapted(theirs)
    shapes = [(BATCH, QUERIES, WIDTH), *[(BATCH, KEYS, WIDTH)] * 2]
    inputs = [torch.randn(shape if batch_first else (shape[1], shape[0], shape[2])) for shape in shapes]
    given = {"need_weights": need_weights, **mask_of(kind)}
    for average in (True, False):
        expected, weights = theirs(*inputs, average_attn_weights=average, **given)
        found, ours_too = ours(*inputs, average_attn_weights=average, **given)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(ours_too, weights)


@pytest.mark.parametrize("need_weights", [True, False])
def test_self_attention_without_a_batch_and_without_biases(need_weights: bool) -> None:
    theirs = drawn(nn.MultiheadAttention(WIDTH, HEADS, bias=False)).eval()
    x = torch.randn(QUERIES, WIDTH)
    expected, found = (module(x, x, x, need_weights=need_weights) for module in (theirs, adapted(theirs)))
    torch.testing.assert_close(found, expected)


def test_attention_of_other_widths_stays_as_it_is() -> None:
    for given in ({"kdim": 8, "vdim": 8}, {"add_bias_kv": True}, {"add_zero_attn": True}):
        assert type(adapted(nn.MultiheadAttention(WIDTH, HEADS, **given))) is nn.MultiheadAttention


def test_weights_of_torch_s_attention_fit() -> None:
    theirs = nn.Sequential(nn.MultiheadAttention(WIDTH, HEADS))
    ours = nn.Sequential(adapted(drawn(nn.MultiheadAttention(WIDTH, HEADS))))
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours[0].in_proj.weight, theirs[0].in_proj_weight)
    assert folded_state(dict(theirs.state_dict()), ours.state_dict()).keys() == ours.state_dict().keys()


def test_torch_s_encoder_uses_it() -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, batch_first=True)
    theirs = nn.TransformerEncoder(drawn(layer), 2).eval()
    ours, x = adapted(theirs), torch.randn(BATCH, QUERIES, WIDTH)
    padding = mask_of("padding")["key_padding_mask"][:, :QUERIES]
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours(x, src_key_padding_mask=padding), theirs(x, src_key_padding_mask=padding))


@pytest.mark.parametrize("kind", [ShiftedWindowAttention, ShiftedWindowAttentionV2])
@pytest.mark.parametrize("shift", [[0, 0], [1, 1], [2, 1]])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (3, 8), (3, 2)])
def test_it_is_torchvision_s_window_attention(kind: Any, shift: list[int], size: tuple[int, int]) -> None:
    theirs = drawn(kind(WIDTH, [4, 3], shift, HEADS)).eval()
    x = torch.randn(2, *size, WIDTH)
    torch.testing.assert_close(adapted(theirs)(x), theirs(x))


MADE: dict[str, Any] = {
    "torch": lambda: nn.MultiheadAttention(WIDTH, HEADS, batch_first=True),
    "windows": lambda: ShiftedWindowAttention(WIDTH, [4, 3], [1, 1], HEADS),
    "windows_v2": lambda: ShiftedWindowAttentionV2(WIDTH, [4, 3], [1, 1], HEADS),
    "own": lambda: SelfAttention(WIDTH, HEADS),
    "three": lambda: AttentionOfThree(WIDTH, HEADS),
    "chunks": lambda: AttentionByChunks(WIDTH, HEADS),
    "fixed": lambda: AttentionOfFixedWidth(WIDTH, HEADS),
}
KNOWN = ("torch", "windows", "windows_v2")
"""Those that compute fewer heads, and take fewer inputs, as they are."""


def run(module: Any, x: Tensor) -> Tensor:
    """The outputs of any of these for x [N, H, W, C]."""
    if "Window" in type(module).__name__:
        return module(x)  # type: ignore[no-any-return]
    tokens = x.flatten(1, 2)
    if isinstance(module, AttentionByChunks):
        return module(x=tokens)  # type: ignore[no-any-return]
    alone = isinstance(module, SelfAttention | AttentionOfFixedWidth)
    return module(tokens) if alone else module(tokens, tokens, tokens)[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", MADE)
def test_without_heads_it_computes_what_their_zeros_compute(name: str) -> None:
    whole = adapted(drawn(MADE[name]()).eval())
    heads, size = with_heads(whole), WIDTH // HEADS
    assert (heads.size, heads.width) == (size, WIDTH)
    cut, zeroed, x = copy.deepcopy(whole), copy.deepcopy(whole), torch.randn(2, 8, 6, WIDTH)
    gone = [*range(size, 2 * size), *range(3 * size, 4 * size)]
    with torch.no_grad():
        inner = with_heads(zeroed)
        for layer, rows in inner.rows(gone):
            layer.weight[rows] = 0
            if layer.bias is not None:
                layer.bias[rows] = 0
        inner.last.weight[:, gone] = 0
    # One after the other: the last head is then the third of three.
    with_heads(cut).remove(gone[:size])
    with_heads(cut).remove(range(2 * size, 3 * size))
    torch.testing.assert_close(run(cut, x), run(zeroed, x))
    left = with_heads(cut)
    assert left.width == left.last.in_features == WIDTH // 2
    assert sum(len(one.weight) for one in left.firsts) == sum(one.out_features for one in left.firsts) == 3 * WIDTH // 2
    if name in KNOWN:
        assert cut.num_heads == HEADS // 2
    else:
        assert all(isinstance(one, Part) for one in (*left.firsts, left.last))


@pytest.mark.parametrize("name", [name for name in MADE if name not in KNOWN])
def test_without_inputs_and_outputs_it_computes_what_their_zeros_compute(name: str) -> None:
    """Twice each, before and after heads; what has lost some is copied as it is."""
    whole = drawn(MADE[name]()).eval()
    cut, zeroed, x = copy.deepcopy(whole), copy.deepcopy(whole), torch.randn(2, 8, 6, WIDTH)
    inputs, outputs = [i for i in range(WIDTH) if i not in (1, 5, 6)], [i for i in range(WIDTH) if i not in (0, 20)]
    with_heads(cut).remove_inputs([5, 6])
    with_heads(cut).remove_outputs([20])
    with_heads(cut).remove(range(WIDTH // HEADS))
    cut = copy.deepcopy(cut)
    with_heads(cut).remove_inputs([1])
    with_heads(cut).remove_outputs([0])
    with torch.no_grad():
        inner = with_heads(zeroed)
        for layer, rows in inner.rows(range(WIDTH // HEADS)):
            layer.weight[rows] = 0
            layer.weight[:, [1, 5, 6]] = 0
            if layer.bias is not None:
                layer.bias[rows] = 0
        inner.last.weight[[0, 20]] = 0
        if inner.last.bias is not None:
            inner.last.bias[[0, 20]] = 0
    x[..., [1, 5, 6]] = 0
    torch.testing.assert_close(run(cut, x[..., inputs]), run(zeroed, x)[..., outputs])
    left = with_heads(cut)
    assert {one.in_features for one in left.firsts} == {WIDTH - 3} and left.last.out_features == WIDTH - 2
    assert cut.state_dict().keys() == whole.state_dict().keys()


@pytest.mark.parametrize("name", MADE)
def test_what_is_frozen_stays_so_without_heads(name: str) -> None:
    module = adapted(MADE[name]()).requires_grad_(False)
    with_heads(module).remove(range(WIDTH // HEADS))
    assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("gone", [[0], [0, 1, 2, 3, 4, 5, 6], list(range(24)), list(range(24, 30)), list(range(-6, 0))])
def test_only_whole_heads_that_are_there_can_go_and_one_stays(gone: list[int]) -> None:
    module = adapted(nn.MultiheadAttention(WIDTH, HEADS))
    with pytest.raises(ValueError, match="there are 4 heads of 6 channels"):
        with_heads(module).remove(gone)


def test_what_has_other_layers_is_no_attention() -> None:
    module: Any = SelfAttention(WIDTH, HEADS)
    assert heads_of(module) is not None
    module.more = nn.Linear(WIDTH, WIDTH)
    assert heads_of(module) is None
    assert heads_of(nn.Linear(2, 2)) is None
