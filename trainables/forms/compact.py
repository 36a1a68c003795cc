"""``compact``, the file format of every stored form: what the architecture tells isn't in it, and the rest entropy-coded.

After a mark stand the JSON of what was removed, a byte for each tensor (how its mask and its values are written), the
masks, and the values in planes of bytes that are alike. Names, shapes and types come from the rebuilt architecture and
never from the file. BatchNorm is a scale and a shift (``norms``), so a network that was read is for inference: in eval mode
it computes what the written one does, as exactly as its form has it, but it can't be trained from where that one stood.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables.forms import masks as mask_coding
from trainables.forms import norms
from trainables.forms.entropy import Reader, damaged, pack, varint
from trainables.forms.forms import Form
from trainables.forms.values import PLANES, VALUES, Planes, Values, joined
from trainables.networks.anatomy import Anatomy
from trainables.networks.network import Masks, Network, rebuilt
from trainables.networks.parameters import aliases
from trainables.records.untrusted import parse_json

MARK = b"\x93PF1"
"""The first bytes of such a file. As the length of a safetensors header they would ask for 826 MB."""
MOST_METADATA = 1 << 24
MASKED, IMPLIED = 16, 32
"""What is added to the code of a tensor's values: that it has a mask; or that it isn't in the file."""


def is_compact(content: bytes) -> bool:
    """Whether a file is of this format."""
    return content.startswith(MARK)


def encode(network: Network, form: Form, extra: dict[str, Any] | None = None) -> bytes:
    """The bytes of the network in a form; ``extra`` is JSON-able and goes into its metadata."""
    repeated = aliases(network.model)
    changed = norms.reduced(network.model, but=network.masks)
    plan, masks, parts = bytearray(), bytearray(), list[Planes]()
    for name, own in network.model.state_dict().items():
        if name in repeated:
            continue
        tensor = changed.get(name, own)
        if tensor is None:
            plan.append(IMPLIED)
            continue
        tensor, mask = tensor.detach().cpu().contiguous(), network.masks.get(name)
        kept = torch.ones_like(tensor, dtype=torch.bool) if mask is None else mask.cpu()
        masked = not bool(kept.all())
        masks += mask_coding.write(kept) if masked else b""
        values, row = tensor[kept], _rows(kept)
        way = form.values(values, row, matrix=tensor.dim() > 1)
        plan.append(way.code + MASKED * masked)
        parts.append(way.write(values, row))
    told = json.dumps({"removed": network.removed, **(extra or {})}, separators=(",", ":"), sort_keys=True)
    planes = joined(parts)
    content = [pack(planes[name]) for name in PLANES if planes.get(name)]
    return b"".join([MARK, pack(told.encode()), pack(bytes(plan)), varint(len(masks)), bytes(masks), *content])


def metadata(content: bytes) -> dict[str, Any]:
    """The JSON that :func:`encode` put into the file; InputError if there is none."""
    return _metadata(Reader(content))


def decode(content: bytes, build: Callable[[], nn.Module], anatomy: Anatomy) -> Network:
    """The network that :func:`encode` wrote, its values in the types of the architecture that ``build`` makes.

    Everything that is read has a length that the architecture gives, so that a hostile file cannot ask for memory. Raises
    InputError if the content doesn't fit the architecture.
    """
    reader = Reader(content)
    model, removed = rebuilt(_metadata(reader), build, anatomy)
    state, repeated = model.state_dict(), aliases(model)
    plan = list(_plan(reader, {name: like for name, like in state.items() if name not in repeated}, model))
    planes = {name: reader.exactly(sum(one.lengths.get(name, 0) for one in plan)) for name in PLANES}
    if reader.left:
        raise damaged("it is longer than the network")
    filler, masks = norms.implied(model), Masks()
    at = dict.fromkeys(PLANES, 0)
    for one in plan:
        state[one.name] = filler[one.name] if one.way is None else _tensor(one, planes, at)
        if one.masked:
            masks[one.name] = one.kept
    state.update({name: state[first] for name, first in repeated.items()})
    model.load_state_dict(state)
    return Network(model, masks, removed)


@dataclass(frozen=True)
class _Planned:
    """What a file says of one tensor before its values; ``way`` is None for one that isn't stored."""

    name: str
    like: Tensor
    way: Values | None
    kept: Tensor
    masked: bool
    lengths: dict[str, int] = field(default_factory=dict)


def _metadata(reader: Reader) -> dict[str, Any]:
    if reader.take(len(MARK)) != MARK:
        raise damaged("it has another beginning")
    try:
        record = parse_json(reader.unpack(MOST_METADATA))
    except ValueError as error:
        raise damaged(str(error)) from None
    if not isinstance(record, dict):
        raise damaged("its metadata is no mapping")
    return record


def _plan(reader: Reader, tensors: dict[str, Tensor], model: nn.Module) -> Iterator[_Planned]:
    codes = reader.exactly(len(tensors))
    masks = Reader(reader.take(reader.varint()))
    implied = {start + name for start, _ in norms.reducible(model) for name in norms.IMPLIED}
    for (name, like), code in zip(tensors.items(), codes, strict=True):
        whole = torch.ones(like.shape, dtype=torch.bool)
        if code == IMPLIED and name in implied:
            yield _Planned(name, like, None, whole, masked=False)
            continue
        masked, way = code >= MASKED, VALUES.get(code % MASKED)
        if way is None or code >= IMPLIED or (way.code and like.dtype != torch.float32):
            raise damaged(f"tensor {name!r} is written in a way that isn't known ({code})")
        kept = mask_coding.read(masks, like) if masked else whole
        rows = int(kept.flatten(1).any(dim=1).sum()) if kept.dim() > 1 else int(kept.any())
        yield _Planned(name, like, way, kept, masked, dict(way.lengths(int(kept.sum()), rows, like.element_size())))
    if masks.left:
        raise damaged("it has more masks than the network")


def _tensor(one: _Planned, planes: dict[str, bytes], at: dict[str, int]) -> Tensor:
    """The tensor, from where the planes have been read up to."""
    assert one.way is not None
    own = dict[str, Any]()
    for name, length in one.lengths.items():
        own[name] = np.frombuffer(planes[name], np.uint8)[at[name] : at[name] + length].copy()
        at[name] += length
    tensor = torch.zeros(one.like.shape, dtype=one.like.dtype)
    tensor[one.kept] = one.way.read(own, _rows(one.kept), one.like.dtype)
    return tensor


def _rows(kept: Tensor) -> Tensor:
    """For each kept element its index along the first dimension."""
    places = kept.nonzero()
    return places[:, 0] if kept.dim() > 1 else torch.zeros(len(places), dtype=torch.int64)
