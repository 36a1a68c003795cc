"""A network as it stands between two steps, and the file that holds it.

One byte axis for both families: each tensor is stored in the cheapest of three encodings, dense (NaN where a weight is
masked), bitmask with values, or indices with values. The file is plain safetensors; what it takes to rebuild the network
(which tensors are masked, which channels were removed) is JSON in its metadata, so loading it runs no stored code.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from trainables.networks.anatomy import Anatomy, Removed, replay
from trainables.networks.parameters import aliases
from trainables.records.names import InputError
from trainables.records.untrusted import parse_json

Masks = dict[str, Tensor]
"""Weight name -> boolean tensor of its shape, True where the weight is kept."""

BITMASK, INDICES, VALUES = ".bitmask", ".indices", ".values"
DENSE = ".dense"
"""Dense values, NaN where the mask removes one: a mask must be told from zeros that training made."""
INDEX_TYPES = ((1 << 8, torch.uint8), (1 << 16, torch.uint16), (1 << 32, torch.uint32))


@dataclass
class Network:
    """A model with the masks of its removed weights and the record of its removed channels."""

    model: nn.Module
    masks: Masks = field(default_factory=dict)
    removed: Removed = field(default_factory=list)


def encode(network: Network, extra: dict[str, Any] | None = None) -> bytes:
    """The bytes of the network's file; ``extra`` is JSON-able and goes into its metadata.

    What stands in the network under several names is stored under the first.
    """
    tensors: dict[str, Tensor] = {}
    state = network.model.state_dict()
    repeated = aliases(network.model)
    for name, tensor in state.items():
        if name in repeated:
            continue
        plain = tensor.detach().cpu().contiguous()
        mask = network.masks.get(name)
        tensors |= {name: plain} if mask is None else _encode_masked(name, plain, mask)
    record = {"removed": network.removed, **(extra or {})}
    return safetensors.torch.save(tensors, {"pruning": json.dumps(record, separators=(",", ":"), sort_keys=True)})


def _encode_masked(name: str, tensor: Tensor, mask: Tensor) -> dict[str, Tensor]:
    flat = mask.flatten()
    index_type = _index_type(flat.numel())
    kept = int(flat.sum())
    costs = {
        BITMASK: (flat.numel() + 7) // 8 + kept * tensor.element_size(),
        INDICES: kept * (index_type.itemsize + tensor.element_size()),
        DENSE: flat.numel() * tensor.element_size(),
    }
    if kept == flat.numel():
        return {name: tensor}
    values = tensor.flatten()[flat]
    if values.isnan().any():  # which would be taken for masked
        del costs[DENSE]
    cheapest = min(costs, key=lambda encoding: costs[encoding])
    if cheapest == DENSE:
        return {name + DENSE: tensor.masked_fill(~mask, torch.nan)}
    if cheapest == BITMASK:
        return {name + VALUES: values, name + BITMASK: torch.from_numpy(np.packbits(flat.numpy()))}
    return {name + VALUES: values, name + INDICES: flat.nonzero().flatten().to(index_type)}


def metadata(content: bytes) -> dict[str, Any]:
    """The JSON that :func:`encode` put into the file's header; InputError if there is none."""
    try:
        (length,) = struct.unpack("<Q", content[:8])
        record = parse_json(parse_json(content[8 : 8 + length])["__metadata__"]["pruning"])
    except (struct.error, ValueError, KeyError, TypeError):
        raise InputError("the file holds no network written by this program; give it a file of `export`") from None
    if not isinstance(record, dict):
        raise InputError("the file's metadata is damaged; export it again")
    return record


def decode(content: bytes, build: Callable[[], nn.Module], anatomy: Anatomy) -> Network:
    """The network that :func:`encode` wrote. ``build`` makes the dense architecture, with any weights.

    Shapes come from the rebuilt architecture and never from the file, so that a hostile file cannot ask for memory.
    Raises InputError if the content doesn't fit the architecture.
    """
    model, removed = rebuilt(metadata(content), build, anatomy)
    try:
        stored = safetensors.torch.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"the file is damaged ({error}); make it again") from None
    # The model's own dictionary is filled, because layers tell by its metadata which version of them it is of.
    state, masks, repeated = model.state_dict(), {}, aliases(model)
    for name, like in list(state.items()):
        if name in repeated:
            state[name] = state[repeated[name]]
            continue
        state[name], mask = _decode_tensor(name, like, stored)
        if mask is not None:
            masks[name] = mask
    model.load_state_dict(state)
    return Network(model, masks, removed)


def rebuilt(record: Mapping[str, Any], build: Callable[[], nn.Module], anatomy: Anatomy) -> tuple[nn.Module, Removed]:
    """The architecture without the channels that a file's metadata says were removed, and which these are."""
    model, removed = build(), _removed(record)
    try:
        replay(model, removed, anatomy)
    except Exception as error:  # torch-pruning checks nothing: what a damaged record raises in it can be anything
        raise InputError(f"the channels that the file says were removed don't fit the network ({error!r})") from error
    return model, removed


def _removed(record: Mapping[str, Any]) -> Removed:
    try:
        return [(str(name), bool(out), [int(i) for i in indices]) for name, out, indices in record["removed"]]
    except (KeyError, TypeError, ValueError):
        raise InputError("the file's record of removed channels is damaged; make it again") from None


def _decode_tensor(name: str, like: Tensor, stored: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    if name + DENSE in stored:
        dense = _expect(stored, name + DENSE, like.shape, like.dtype)
        return dense.masked_fill(dense.isnan(), 0.0), ~dense.isnan()
    mask = _decode_mask(name, like, stored)
    if mask is None:
        return _expect(stored, name, like.shape, like.dtype), None
    tensor = torch.zeros(like.shape, dtype=like.dtype)
    tensor[mask] = _expect(stored, name + VALUES, (int(mask.sum()),), like.dtype)
    return tensor, mask


def _decode_mask(name: str, like: Tensor, stored: dict[str, Tensor]) -> Tensor | None:
    count = like.numel()
    if name + BITMASK in stored:
        packed = _expect(stored, name + BITMASK, ((count + 7) // 8,), torch.uint8)
        return torch.from_numpy(np.unpackbits(packed.numpy(), count=count).astype(bool)).view(like.shape)
    if name + INDICES in stored:
        kept = stored[name + INDICES]
        indices = _expect(stored, name + INDICES, (kept.numel(),), _index_type(count)).to(torch.int64)
        if len(indices) and int(indices.max()) >= count:
            raise InputError(f"tensor {name!r}: an index lies outside its {count} weights; the file is damaged")
        mask = torch.zeros(count, dtype=torch.bool)
        mask[indices] = True
        return mask.view(like.shape)
    return None


def _expect(stored: dict[str, Tensor], name: str, shape: Sequence[int], kind: torch.dtype) -> Tensor:
    """The stored tensor of this name, which must have this shape and type."""
    tensor = stored.get(name)
    if tensor is None:
        raise InputError(f"tensor {name!r} is missing in the file; make it again")
    if tensor.shape != torch.Size(shape) or tensor.dtype != kind:
        given, wanted = ([list(size), str(some)] for size, some in ((tensor.shape, tensor.dtype), (shape, kind)))
        raise InputError(f"tensor {name!r} is {given} in the file and not {wanted}; make the file again")
    return tensor


def _index_type(count: int) -> torch.dtype:
    return next(kind for limit, kind in INDEX_TYPES if count <= limit)
