"""Network files: exact round trips, the cheapest encoding, honest sizes; and damaged ones are refused, never obeyed."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from tests.conftest import MakeProblem, cut_weights, same_state, state_of
from trainables.networks.anatomy import Anatomy, weights
from trainables.networks.network import BITMASK, DENSE, INDICES, VALUES, Network, decode, encode, metadata
from trainables.problem import Problem
from trainables.pruning.masks import masking
from trainables.pruning.sample import Sample
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.schedule import StructuredSchedule, UnstructuredSchedule
from trainables.tree import Tree, walk

Tensors = dict[str, Tensor]
LAYER = "features.0.weight"  # 4, 1, 3, 3 of the cnn of width 4
WIDE = "features.3.weight"  # 4, 4, 3, 3


@pytest.fixture
def made(problem: MakeProblem) -> Problem:
    return problem()


def masked(made: Problem, removed_ppm: int) -> Network:
    torch.manual_seed(0)
    model = made.build()
    masks = cut_weights(model, {}, "magnitude", "layerwise", removed_ppm, seed=0)
    masking(model, masks)(model)
    return Network(model, masks)


def with_mask(made: Problem, mask: Callable[[Tensor], Tensor]) -> Network:
    """A network with one masked layer, ``WIDE``, of 144 weights."""
    torch.manual_seed(0)
    model = made.build()
    masks = {WIDE: mask(torch.ones(4, 4, 3, 3, dtype=torch.bool))}
    masking(model, masks)(model)
    return Network(model, masks)


def keep(count: int) -> Callable[[Tensor], Tensor]:
    return lambda ones: (torch.arange(ones.numel()) < count).view(ones.shape)


def read(content: bytes, made: Problem) -> Network:
    return decode(content, made.build, made.anatomy)


def assert_same(found: Network, original: Network, made: Problem) -> None:
    assert same_state(state_of(found.model), state_of(original.model))
    images, _ = Sample(made.data, 0).images(8)
    assert torch.equal(found.model.eval()(images), original.model.eval()(images))
    partly = {name: mask for name, mask in original.masks.items() if not mask.all()}
    assert {name for name, mask in found.masks.items() if not mask.all()} == set(partly)
    assert all(torch.equal(found.masks[name], mask) for name, mask in partly.items())
    assert found.removed == original.removed


def tampered(content: bytes, change: Callable[[Tensors], None], **metadata_changes: Any) -> bytes:
    tensors = safetensors.torch.load(content)
    change(tensors)
    record = metadata(content) | metadata_changes
    return safetensors.torch.save({k: t.contiguous() for k, t in tensors.items()}, {"pruning": json.dumps(record)})


def test_dense_round_trip(made: Problem) -> None:
    network = Network(made.build())
    assert_same(read(encode(network), made), network, made)


@pytest.mark.parametrize("removed_ppm", [1_000, 10_000, 200_000, 500_000, 900_000, 990_000, 999_999])
def test_masked_round_trip(removed_ppm: int, made: Problem) -> None:
    network = masked(made, removed_ppm)
    assert_same(read(encode(network), made), network, made)


@pytest.mark.parametrize(
    ("kept", "encoding"),
    [
        (144, ""),
        (143, DENSE),
        (140, DENSE),
        (139, BITMASK),
        (100, BITMASK),
        (19, BITMASK),
        (17, INDICES),
        (1, INDICES),
        (0, INDICES),
    ],
)
def test_each_encoding_is_used_where_it_is_cheapest(kept: int, encoding: str, made: Problem) -> None:
    # dense 4 bytes a weight; bitmask 18 bytes and 4 for each weight kept; indices 1 + 4 for each weight kept
    network = with_mask(made, keep(kept))
    content = encode(network)
    stored = {name: tensor for name, tensor in safetensors.torch.load(content).items() if name.startswith(WIDE)}
    assert set(stored) == ({WIDE + encoding} if encoding in ("", DENSE) else {WIDE + VALUES, WIDE + encoding})
    size = sum(tensor.numel() * tensor.element_size() for tensor in stored.values())
    assert size == min(4 * 144, 18 + 4 * kept, 5 * kept)
    assert_same(read(content, made), network, made)


SPARSITIES = (0.001, 0.003, 0.01, 0.02, 0.031, 0.032, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.97, 0.99, 0.999)
HEADER = 100
"""Bytes of a file's header that a second tensor, or a longer name, may take."""


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("inputs", [200, 4000, 70_000])
def test_a_masked_tensor_is_never_larger_than_a_dense_one_at_any_sparsity(inputs: int, sparsity: float) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, 1, bias=False))

    model = build()
    order = torch.randperm(inputs, generator=torch.Generator().manual_seed(0))
    removed = max(1, round(sparsity * inputs))
    mask = torch.ones(1, inputs, dtype=torch.bool)
    mask[0, order[:removed]] = False
    weights(model)["0.weight"].data[0, order[removed : removed + 5]] = 0.0  # which training left there
    masking(model, {"0.weight": mask})(model)
    content, dense = encode(Network(model, {"0.weight": mask})), encode(Network(build()))
    kept, index = inputs - removed, 1 if inputs <= 256 else 2 if inputs <= 65_536 else 4
    assert len(content) - len(dense) <= HEADER
    size = sum(tensor.numel() * tensor.element_size() for tensor in safetensors.torch.load(content).values())
    assert size == min(4 * inputs, (inputs + 7) // 8 + 4 * kept, (4 + index) * kept)
    found = decode(content, build, Anatomy(torch.zeros(1, inputs), ("0",), {"0": 1}))
    assert torch.equal(found.masks["0.weight"], mask)
    assert same_state(state_of(found.model), state_of(model))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_no_numbers_are_kept_as_they_are(value: float, made: Problem) -> None:
    network = with_mask(made, keep(143))
    weights(network.model)[WIDE].data[0, 0, 0, 0] = value
    found = read(encode(network), made)
    assert torch.equal(found.masks[WIDE], network.masks[WIDE])
    stored, given = weights(found.model)[WIDE], weights(network.model)[WIDE]
    assert torch.allclose(stored, given, rtol=0, atol=0, equal_nan=True)


FILES = {  # of what is stored in the encodings that were there before light masks had theirs
    500_000: "582152b81cc35854", 980_000: "c77b9fbb9ad1ac98"
}  # fmt: skip


@pytest.mark.parametrize("removed_ppm", FILES)
def test_files_of_heavier_masks_are_those_that_were_always_written(removed_ppm: int, made: Problem) -> None:
    model = made.build()
    for name, tensor in model.state_dict().items():
        tensor.copy_(torch.arange(1, tensor.numel() + 1, dtype=torch.float32).view(tensor.shape) / (len(name) + 1))
    masks = cut_weights(model, {}, "magnitude", "layerwise", removed_ppm, seed=0)
    assert hashlib.sha256(encode(Network(model, masks))).hexdigest()[:16] == FILES[removed_ppm]


@pytest.mark.parametrize(("inputs", "index"), [(256, torch.uint8), (257, torch.uint16), (70_000, torch.uint32)])
def test_indices_are_as_narrow_as_the_layer_allows(inputs: int, index: torch.dtype) -> None:
    mask = torch.zeros(1, inputs, dtype=torch.bool)
    mask[0, -1] = True
    model = nn.Sequential(nn.Linear(inputs, 1, bias=False))
    content = encode(Network(model, {"0.weight": mask}))
    stored = safetensors.torch.load(content)
    assert stored["0.weight" + INDICES].dtype == index
    anatomy = Anatomy(torch.zeros(1, inputs), ("0",), {"0": 1})
    found = decode(content, lambda: nn.Sequential(nn.Linear(inputs, 1, bias=False)), anatomy)
    assert torch.equal(found.masks["0.weight"], mask)
    assert found.model[0].weight[0, -1] == model[0].weight[0, -1]  # type: ignore[index]


def test_a_layer_that_lost_everything(made: Problem) -> None:
    network = with_mask(made, torch.zeros_like)
    found = read(encode(network), made)
    assert not found.masks[WIDE].any()
    assert_same(found, network, made)


@pytest.mark.parametrize("kept", [140, 100, 5])
def test_a_weight_that_training_left_at_zero_is_not_masked(kept: int, made: Problem) -> None:
    network = with_mask(made, keep(kept))
    weights(network.model)[WIDE].data.flatten()[2] = 0.0
    assert weights(network.model)[WIDE].flatten()[2] == 0
    assert read(encode(network), made).masks[WIDE].flatten()[2]


def test_structured_round_trip_after_several_steps(tree: Tree) -> None:
    schedule = StructuredSchedule(step_ratio=0.3, steps=3, fine_tune_epochs=1, importance="taylor")
    list(walk(schedule, tree))
    for node in tree.chain(schedule):
        network = tree.network(node)
        assert network.removed
        assert_same(read(encode(network), tree.problem), network, tree.problem)
        assert encode(network) == tree.content(node)


@pytest.mark.parametrize(
    "schedule",
    [StructuredSchedule(step_ratio=0.5, fine_tune_epochs=0), UnstructuredSchedule(step_ratio=0.9, fine_tune_epochs=0)],
)
def test_stored_bytes_are_those_on_disk(schedule: Any, tree: Tree) -> None:
    (point,) = walk(schedule, tree)
    (node,) = tree.chain(schedule)
    size = (Path(tree.store.place) / node.id / n.WEIGHTS_FILE).stat().st_size
    dense = (Path(tree.store.place) / node.root.id / n.WEIGHTS_FILE).stat().st_size
    assert point["stored_bytes"] == size
    assert point["compression"] == dense / size > 1


def test_more_sparsity_is_fewer_bytes_and_zeros_alone_save_nothing(made: Problem) -> None:
    sizes = [len(encode(masked(made, removed))) for removed in (100_000, 300_000, 500_000, 700_000, 900_000, 980_000)]
    assert sizes == sorted(sizes, reverse=True)
    network = masked(made, 900_000)
    assert len(encode(Network(network.model))) == len(encode(Network(made.build())))


def remove(name: str) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.__delitem__(name)


def put(name: str, tensor: Tensor) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.__setitem__(name, tensor)


DAMAGES: dict[str, tuple[int, Callable[[Tensors], None]]] = {
    "a missing tensor": (0, remove("features.1.weight")),
    "a missing buffer": (0, remove("features.1.running_mean")),
    "another shape": (0, put("features.1.weight", torch.zeros(5))),
    "a shape that would broadcast": (0, put("features.1.weight", torch.zeros(1))),
    "another type": (0, put("features.1.weight", torch.zeros(4, dtype=torch.float64))),
    "missing values": (500_000, remove(WIDE + VALUES)),
    "a missing bitmask": (500_000, remove(WIDE + BITMASK)),
    "a short bitmask": (500_000, put(WIDE + BITMASK, torch.zeros(17, dtype=torch.uint8))),
    "a long bitmask": (500_000, put(WIDE + BITMASK, torch.zeros(19, dtype=torch.uint8))),
    "an empty bitmask": (500_000, put(WIDE + BITMASK, torch.zeros(0, dtype=torch.uint8))),
    "a bitmask of floats": (500_000, put(WIDE + BITMASK, torch.zeros(18))),
    "a bitmask of bfloat16": (500_000, put(WIDE + BITMASK, torch.zeros(18, dtype=torch.bfloat16))),
    "a bitmask that keeps too many": (500_000, put(WIDE + BITMASK, torch.full((18,), 255, dtype=torch.uint8))),
    "values of no dimension": (500_000, put(WIDE + VALUES, torch.tensor(1.0))),
    "values of two dimensions": (500_000, put(WIDE + VALUES, torch.zeros(72, 1))),
    "an index out of range": (980_000, put(WIDE + INDICES, torch.tensor([0, 1, 144], dtype=torch.uint8))),
    "a negative index": (980_000, put(WIDE + INDICES, torch.tensor([-1, 0, 1], dtype=torch.int64))),
    "an index twice": (980_000, put(WIDE + INDICES, torch.tensor([1, 1, 2], dtype=torch.uint8))),
    "fractional indices": (980_000, put(WIDE + INDICES, torch.tensor([0.0, 1.5, 2.0]))),
    "dense values of another shape": (5_000, put(WIDE + DENSE, torch.zeros(144))),
    "dense values of another type": (5_000, put(WIDE + DENSE, torch.zeros(4, 4, 3, 3, dtype=torch.float64))),
    "a single index of no dimension": (980_000, put(WIDE + INDICES, torch.tensor(3, dtype=torch.uint8))),
}


def test_the_file_that_is_damaged_below_is_good(made: Problem) -> None:
    for removed_ppm, encoding in ((5_000, DENSE), (500_000, BITMASK), (980_000, INDICES)):
        content = tampered(encode(masked(made, removed_ppm)), lambda _: None)
        assert WIDE + encoding in safetensors.torch.load(content)
        assert_same(read(content, made), masked(made, removed_ppm), made)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_tensors_are_refused(damage: str, made: Problem) -> None:
    removed_ppm, change = DAMAGES[damage]
    content = tampered(encode(masked(made, removed_ppm)), change)
    with pytest.raises(InputError) as error:
        read(content, made)
    assert "\n" not in str(error.value)


HEADERS: dict[str, bytes] = {
    "nothing": b"",
    "less than a length": b"1234",
    "a length beyond the file": struct.pack("<Q", 2**63) + b"{}",
    "no JSON": struct.pack("<Q", 4) + b"{{{{",
    "no text": struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc",
    "a list": struct.pack("<Q", 2) + b"[]",
    "no metadata": struct.pack("<Q", 2) + b"{}",
    "deep nesting": struct.pack("<Q", 200_000) + b"[" * 200_000,
}


@pytest.mark.parametrize("header", HEADERS)
def test_what_is_no_network_is_refused(header: str, made: Problem) -> None:
    with pytest.raises(InputError, match="no network"):
        read(HEADERS[header], made)


RECORDS: dict[str, Any] = {
    "no list": 5,
    "no triples": [["features.0", True]],
    "indices that are none": [["features.0", True, "abc"]],
    "no indices": [["features.0", True, None]],
    "an unknown module": [["features.99", True, [0]]],
    "an unknown attribute": [["features.0.nothing", True, [0]]],
    "a module without channels": [["flatten", True, [0]]],
    "an empty name": [["", True, [0]]],
    "channels that aren't there": [["features.0", True, [400]]],
    "every channel": [["features.0", True, [0, 1, 2, 3]]],
    "another history": [["features.0", True, [0]]],
}


@pytest.mark.parametrize("record", RECORDS)
def test_a_false_record_of_removed_channels_is_refused(record: str, made: Problem) -> None:
    content = encode(Network(made.build()))
    with pytest.raises(InputError):
        read(tampered(content, lambda _: None, removed=RECORDS[record]), made)


def test_a_record_without_removed_channels_is_refused(made: Problem) -> None:
    tensors = safetensors.torch.load(encode(Network(made.build())))
    for record in ("{}", "[]", "5"):
        with pytest.raises(InputError):
            read(safetensors.torch.save(tensors, {"pruning": record}), made)


@pytest.mark.parametrize("part", [0.01, 0.2, 0.5, 0.99])
def test_truncated_files_are_refused(part: float, made: Problem) -> None:
    content = encode(masked(made, 500_000))
    with pytest.raises(InputError):
        read(content[: int(len(content) * part)], made)


def test_a_flipped_byte_of_the_header_is_refused_or_harmless(made: Problem) -> None:
    content = encode(masked(made, 500_000))
    header = 8 + struct.unpack("<Q", content[:8])[0]
    refused = 0
    for place in range(0, header, 7):
        damaged = content[:place] + bytes([content[place] ^ 0x15]) + content[place + 1 :]
        try:
            read(damaged, made)
        except InputError:
            refused += 1
    assert refused > header // 7 // 2


def test_a_declared_shape_asks_for_no_memory(made: Problem) -> None:
    content = encode(masked(made, 500_000))
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header[WIDE + VALUES]["shape"] = [2**40]
    text = json.dumps(header).encode()
    with pytest.raises(InputError):
        read(struct.pack("<Q", len(text)) + text + content[8 + length :], made)
    with pytest.raises(InputError, match=r"is \[\[4, 2\]"):
        read(tampered(content, put("features.1.weight", torch.zeros(4, 2))), made)


def test_extra_metadata_is_kept(made: Problem) -> None:
    assert metadata(encode(Network(made.build()), {"note": {"a": 1}}))["note"] == {"a": 1}
    assert LAYER in made.build().state_dict()
