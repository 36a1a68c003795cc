"""Compact files: what comes back computes the same, they are small, and damaged ones take no memory."""

from __future__ import annotations

import copy
import json
import tracemalloc
import zlib

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import MakeProblem, cut_weights, same_state, state_of
from trainables.forms import compact, entropy, norms
from trainables.forms.forms import FORMS, Fp32, Int8
from trainables.networks.network import Network, encode
from trainables.problem import Problem
from trainables.pruning.masks import masking
from trainables.pruning.sample import Sample
from trainables.records.names import InputError
from trainables.schedule import StructuredSchedule
from trainables.tree import Tree, walk

SPARSITIES = [0, 1_000, 200_000, 500_000, 900_000, 980_000, 999_999]


@pytest.fixture(scope="module")
def made(problem: MakeProblem) -> Problem:
    return problem()


def pruned(made: Problem, removed_ppm: int) -> Network:
    """A network whose BatchNorm has seen images."""
    torch.manual_seed(0)
    model = made.build()
    masks = cut_weights(model, {}, "magnitude", "global", removed_ppm, seed=0) if removed_ppm else {}
    masking(model, masks)(model)
    images, _ = Sample(made.data, 0).images(64)
    model.train()(images)
    return Network(model.eval(), masks)


def outputs(network: Network, made: Problem) -> Tensor:
    images, _ = Sample(made.data, 0).images(64)
    with torch.inference_mode():
        found: Tensor = network.model.eval()(images)
    return found


def read(content: bytes, made: Problem) -> Network:
    return compact.decode(content, made.build, made.skeleton)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("removed_ppm", SPARSITIES)
def test_there_and_back(removed_ppm: int, form: type, made: Problem) -> None:
    network = pruned(made, removed_ppm)
    content = compact.encode(network, form())
    found = read(content, made)
    partly = {name: mask for name, mask in network.masks.items() if not mask.all()}
    assert found.masks.keys() == partly.keys()
    assert all(torch.equal(found.masks[name], mask) for name, mask in partly.items())
    assert all(not bool(found.model.state_dict()[name][~mask].any()) for name, mask in partly.items())
    exact = {"fp32": 1e-6, "fp16": 2e-2, "int8": 2e-1}
    assert torch.allclose(outputs(found, made), outputs(network, made), rtol=0, atol=exact[form.name])
    assert compact.encode(found, form()) == content  # what was rounded once is rounded no further


@pytest.mark.parametrize("removed_ppm", SPARSITIES)
def test_no_sparsity_takes_more_than_the_step_s_own_file(removed_ppm: int, made: Problem) -> None:
    network = pruned(made, removed_ppm)
    sizes = [len(encode(network)), *(len(compact.encode(network, form())) for form in FORMS.values())]
    assert sizes == sorted(sizes, reverse=True)


def test_fp32_keeps_every_weight_to_the_last_bit_and_norms_within_rounding(made: Problem) -> None:
    network = pruned(made, 500_000)
    found, own = state_of(read(compact.encode(network, Fp32()), made).model), state_of(network.model)
    normed = {start + name for start, _ in norms.reducible(network.model) for name in ("weight", "bias", *norms.IMPLIED)}
    assert normed
    assert normed < own.keys()
    assert same_state(*({name: one for name, one in some.items() if name not in normed} for some in (found, own)))


def test_channels_that_were_removed_there_and_back(tree: Tree) -> None:
    schedule = StructuredSchedule(levels=(0.25, 0.5), importance="magnitude_l2", fine_tune_epochs=0)
    *_, point = walk(schedule, tree)
    network = tree.network(tree.node(point["step_id"]))
    content = compact.encode(network, Fp32(), {"told": "so"})
    found = read(content, tree.problem)
    assert found.removed == network.removed
    assert torch.allclose(outputs(found, tree.problem), outputs(network, tree.problem), atol=1e-6)
    assert compact.metadata(content)["told"] == "so"
    assert len(content) < len(encode(network, {"told": "so"}))


class Odd(nn.Module):
    """Layers of all sorts: norms that must stay whole, shared tensors, types that aren't fp32, a mask over a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.shared, self.also = nn.BatchNorm1d(6), nn.BatchNorm1d(6), nn.BatchNorm1d(6)
        self.also.weight = self.shared.weight
        self.bare, self.now = nn.BatchNorm1d(6, affine=False), nn.BatchNorm1d(6, track_running_stats=False)
        self.masked, self.lazy, self.again = nn.BatchNorm1d(6), nn.Linear(6, 6), self.plain
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("wide", torch.rand(3, 2, dtype=torch.float64))
        self.register_buffer("brain", torch.rand(5).bfloat16())
        self.register_buffer("none", torch.zeros(0, 4))

    def forward(self, x: Tensor) -> Tensor:
        for one in (self.plain, self.shared, self.also, self.bare, self.masked, self.lazy, self.again):
            x = one(x)
        return x * self.count + self.wide.sum() + self.brain.sum()


def test_layers_of_all_sorts(made: Problem) -> None:
    torch.manual_seed(0)
    model = Odd()
    with torch.no_grad():
        model.masked.weight[2] = 0
        model.train()(3 * torch.randn(50, 6) + 1)
    network = Network(model.eval(), {"masked.weight": model.masked.weight != 0})
    found = compact.decode(compact.encode(network, Fp32()), Odd, made.skeleton)
    assert [start for start, _ in norms.reducible(model)] == ["plain.", "masked."]
    inputs = torch.randn(20, 6)
    assert torch.allclose(found.model.eval()(inputs), model(inputs), atol=1e-5)
    assert torch.equal(found.masks["masked.weight"], network.masks["masked.weight"])
    assert torch.equal(found.model.masked.running_var, model.masked.running_var)  # type: ignore[union-attr]
    assert found.model.plain.running_mean.eq(0).all()  # type: ignore[union-attr]
    for name in ("count", "flags", "wide", "brain"):
        assert torch.equal(getattr(found.model, name), getattr(model, name))


def test_a_norm_that_would_come_out_infinite_stays_whole() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2))
    model[0].running_var.fill_(-1.0)
    assert norms.reduced(model, but=()) == {}


def test_tiny_variances_survive_half_precision(made: Problem) -> None:
    """fp16 itself can't hold 1e-9, which a scale needs not."""
    network = pruned(made, 0)
    for module in network.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(1e-9)
    found = read(compact.encode(network, FORMS["fp16"]()), made)
    assert torch.allclose(
        outputs(found, made), outputs(network, made), rtol=5e-2, atol=5e-2 * float(outputs(network, made).std())
    )


def test_damaged_files_are_refused_in_one_line(made: Problem) -> None:
    content = compact.encode(pruned(made, 900_000), Int8())
    for end in range(0, len(content), 7):
        with pytest.raises(InputError, match="damaged"):
            read(content[:end], made)
    with pytest.raises(InputError, match="longer"):
        read(content + b"x", made)


def test_flipped_bytes_give_a_network_of_the_same_shape_or_one_line(made: Problem) -> None:
    network = pruned(made, 900_000)
    content, refused = compact.encode(network, Int8()), 0
    for at in range(4, len(content), 11):
        damaged = content[:at] + bytes([content[at] ^ 0xA5]) + content[at + 1 :]
        try:
            found = read(damaged, made)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert {name: one.shape for name, one in found.model.state_dict().items()} == {
                name: one.shape for name, one in network.model.state_dict().items()
            }
    assert refused > 10


def test_a_file_of_another_network_is_refused(made: Problem, problem: MakeProblem) -> None:
    for other in (problem(width=8), problem("resnet20")):
        with pytest.raises(InputError, match="damaged"):
            read(compact.encode(Network(other.build()), Fp32()), made)


@pytest.mark.parametrize("how", [entropy.HUFFMAN, entropy.LZMA])
def test_what_unpacks_to_more_than_expected_is_not_unpacked(how: int) -> None:
    bomb = bytes(50_000_000)
    packed = zlib.compress(bomb, wbits=entropy.RAW_DEFLATE) if how == entropy.HUFFMAN else entropy._lzma(bomb)
    del bomb
    reader = entropy.Reader(bytes([how]) + entropy.varint(len(packed)) + packed)
    tracemalloc.start()
    with pytest.raises(InputError, match="holds more than the network"):
        reader.exactly(1000)
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


def test_each_way_of_writing_bytes_is_the_shortest_somewhere() -> None:
    draw = torch.Generator().manual_seed(0)
    uneven = (40 * torch.randn(5000, generator=draw)).to(torch.int8).numpy().tobytes()
    changing = bytes(i // 500 * 20 + i % 3 for i in range(5000))
    whole = torch.randint(0, 256, (5000,), generator=draw).to(torch.uint8).numpy().tobytes()
    for how, content in ((entropy.HUFFMAN, uneven), (entropy.LZMA, changing), (entropy.STORED, whole)):
        packed = entropy.pack(content)
        assert packed[0] == how
        assert entropy.Reader(packed).exactly(len(content)) == content


def test_metadata_that_is_no_mapping_is_refused(made: Problem) -> None:
    for told in (b"[]", b"{", b"\xff", json.dumps({"removed": [["no such layer", True, [0]]]}).encode()):
        with pytest.raises(InputError):
            read(compact.MARK + entropy.pack(told), made)


def test_encoding_leaves_the_network_as_it_was(made: Problem) -> None:
    network = pruned(made, 500_000)
    before = copy.deepcopy(state_of(network.model))
    for form in FORMS.values():
        compact.encode(network, form())
    assert same_state(state_of(network.model), before)
