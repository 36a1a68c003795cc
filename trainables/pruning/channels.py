"""Structured pruning: whole channels are removed with torch-pruning (Fang et al. 2023, arXiv:2301.12900).

torch-pruning finds which layers must lose the same channel together (a group), scores the channels of each group, and
rewrites the layers. Which channels go is chosen here, because torch-pruning's own ratios are truncated, drift from step to
step, and miss their target where channels go several at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from trainables.networks.anatomy import (
    Anatomy,
    Graph,
    Group,
    Removed,
    families,
    going,
    groups_in,
    leader,
    member,
    of_heads,
    outputs_in,
    quiet,
    slots_of,
    trace,
    width,
)
from trainables.networks.attention.heads import settle
from trainables.networks.parameters import retie, ties
from trainables.networks.shuffles import families as shuffles
from trainables.networks.shuffles.families import Family
from trainables.networks.shuffles.moving import moves
from trainables.networks.torch_pruning_alone import tp
from trainables.pruning.channel_importances import ChannelImportance, Scorer
from trainables.pruning.channel_scopes import ChannelScope, Scored
from trainables.pruning.sample import Sample

Kin = tuple[Scored, Family, Mapping[str, torch.Tensor]]
"""A family as one, and the scores of its layers' channels."""


def cut(
    model: nn.Module, anatomy: Anatomy, importance: ChannelImportance, scope: ChannelScope, removed_ppm: int,
    round_to: int, sample: Sample,
) -> Removed:  # fmt: skip
    """Remove channels of ``model`` in place until ``removed_ppm`` millionths of the *dense* channels are gone.

    Returns the record of what was removed.
    """
    scorer = importance.scorer(model, sample)
    return cut_by(model, anatomy, scorer, scope, removed_ppm, round_to, sample.seed)


@torch.no_grad()
def cut_by(
    model: nn.Module, anatomy: Anatomy, scorer: Scorer, scope: ChannelScope, removed_ppm: int, round_to: int, seed: int
) -> Removed:
    """``cut`` with scores that are ready; ``seed`` is for torch-pruning's random ones, which torch's generator draws."""
    graph = trace(model, anatomy)
    found = groups_in(graph, model, anatomy)
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        scored = [one for group in found if (one := _score(group, graph, scorer, anatomy)) is not None]
    scored, kin = _united(scored, families(graph, model, anatomy))
    dense, current = anatomy.channels(model)
    chosen = scope.choose([*scored, *(one for one, _, _ in kin)], (dense, current), removed_ppm, round_to)
    moved = [_moved(model, anatomy, one, slots) for one, slots in zip(kin, chosen[len(scored) :], strict=True)]
    if kin:  # the others make up for what families can't lose
        taken = sum(round(lost) for _, lost in moved)
        chosen = scope.choose(scored, (dense, current - taken), removed_ppm, round_to)
    shared = ties(model)
    removed: Removed = []
    for one, slots in zip(scored, chosen, strict=False):
        if slots is not None:
            removed += _remove(graph, one, slots)
    for gone, _ in moved:
        if gone:
            shuffles.cut(model, anatomy.forward_example, gone)
            removed += [(name, True, indices) for name, indices in gone.items()]
    settle(model)
    retie(model, shared)
    return removed


def _united(scored: list[Scored], kin: list[Family]) -> tuple[list[Scored], list[Kin]]:
    """Those that stand alone; and families as one each, if all of a family have scores."""
    by_name = {leader(one.group): one for one in scored}
    related = {name for family in kin for name in family.blocks}
    return [one for name, one in by_name.items() if name not in related], [
        (_united_scores(family, by_name), family, {name: by_name[name].scores for name in family.blocks})
        for family in kin
        if family.blocks.keys() <= by_name.keys()
    ]


def _united_scores(family: Family, by_name: Mapping[str, Scored]) -> Scored:
    """The means of what the layers of a family lose first, second and so on: each loses channels of its own."""
    members = [by_name[name] for name in family.blocks]
    slots = [one.scores.sort().values.view(family.slots, -1).mean(dim=1) for one in members]
    together = sum(family.blocks.values())
    floor = max(math.ceil(one.floor / block) for one, block in zip(members, family.blocks.values(), strict=True)) * together
    dense, current = (sum(counts) for counts in zip(*((one.dense, one.current) for one in members), strict=True))
    cost = sum(one.cost * len(one.scores) for one in members) / family.slots
    nothing = torch.empty(0)  # which channels of which layer fill a slot is chosen at the cut
    return Scored(members[0].group, torch.stack(slots).mean(dim=0), dense, current, together, floor, nothing, cost)


def _moved(model: nn.Module, anatomy: Anatomy, kin: Kin, slots: torch.Tensor | None) -> tuple[dict[str, list[int]], float]:
    """What each layer of a family loses, in as many slots or as nearly as many as can go; and how many channels go."""
    one, family, scores = kin
    if slots is None:
        return {}, 0.0
    gone = shuffles.choose(model, anatomy.forward_example, family, scores, len(slots))
    count = max((len(indices) / family.blocks[name] for name, indices in gone.items()), default=0)
    return gone, one.cost * count


def scores_of(group: Group, scorer: Scorer) -> torch.Tensor | None:
    """The channels' scores, told by those layers of the group that the importance can score; None if there are none.

    torch-pruning's importances fail on the inputs of grouped convolutions and on channels that were moved about.
    """
    try:
        return scorer(group)  # type: ignore[no-any-return]
    except (IndexError, RuntimeError):
        known = [item for item in group if _scored_alone(item, group, scorer)]
        if not known:
            raise
        return scorer(_part(group, known))  # type: ignore[no-any-return]


def _scored_alone(item: Any, group: Group, scorer: Scorer) -> bool:
    try:
        scores = scorer(_part(group, [item]))
    except (IndexError, RuntimeError):
        return False
    return scores is not None and len(scores) == len(group[0].idxs)


def _part(group: Group, items: list[Any]) -> Group:
    part = tp.dependency.Group()
    part._group, part._DG = items, group._DG
    return part


def _sums_groups(module: Any) -> bool:
    """Whether a convolution makes one channel of several in each group, which torch-pruning takes for a depthwise one."""
    return isinstance(module, nn.modules.conv._ConvNd) and 1 < module.groups == module.out_channels != module.in_channels


def can_be_cut(group: Group, graph: Graph) -> bool:
    """Whether every layer of the group has channels to spare."""
    if len(group[0].idxs) // slots_of(group) < 2:
        return False
    if of_heads(group):
        return True
    for item in group:
        target, handler = item.dep.target, item.dep.handler
        if _sums_groups(target.module):
            return False
        count = graph.get_out_channels if graph.is_out_channel_pruning_fn(handler) else graph.get_in_channels
        if not isinstance(target.module, nn.Parameter) and count(target.module) == 1:
            return False
    return True


def _score(group: Group, graph: Graph, scorer: Scorer, anatomy: Anatomy) -> Scored | None:
    """The group's scores, a mean over the channels that must go together; None if none can go."""
    if not can_be_cut(group, graph):
        return None
    scores = scores_of(group, scorer)
    if scores is None:
        return None
    slots = _slots(group, graph)
    if slots is None or len(slots) < 2:
        return None
    dense, current = anatomy.widths[leader(group)], len(group[0].idxs)
    means = scores[slots].mean(dim=1).cpu() if slots.shape[1] > 1 else scores.cpu()
    cost = outputs_in(group, anatomy) / len(slots)
    return Scored(group, means, dense, current, slots.shape[1], _floor(group, anatomy), slots, cost)


def _slots(group: Group, graph: Graph) -> torch.Tensor | None:
    """The channels that go at once, [slots, channels]; None if they are not as many in each."""
    count, together = len(group[0].idxs), slots_of(group)
    if of_heads(group):
        return torch.arange(count).view(-1, together)
    if together > 1 or not (moves(graph) or joined(group)):
        return torch.arange(count).view(together, -1).T
    if parts := _parts(group):
        starts = [sum(parts[:i]) for i in range(len(parts))]
        return torch.arange(min(parts))[:, None] + torch.tensor(starts)
    left, found = set(range(count)), []
    while left:
        with_it = _closed(group, graph, min(left))
        found.append(sorted(with_it))
        if len(with_it) == 1 and len(found) == 1:  # as almost everywhere
            return torch.arange(count)[:, None]
        left -= with_it
    return torch.tensor(found) if len({len(some) for some in found}) == 1 else None


def joined(group: Group) -> bool:
    """Whether some of the group has fewer channels than its leader: two of the leader's may hang on one of them."""
    return any(0 < len(set(item.idxs)) < len(group[0].idxs) for item in group)


def _parts(group: Group) -> list[int]:
    """The sizes of the parts into which all channels of a group are split, as many each but the last; none if they aren't.

    A split into so many parts shares out what is left: each part must lose as many channels.
    """
    everything = list(range(len(group[0].idxs)))
    splits = {
        tuple(item.dep.target.module.split_sizes or ())
        for item in group
        if item.dep.target.type == tp.ops.OPTYPE.SPLIT and sorted(item.idxs) == everything
    }
    sizes = list(splits.pop()) if len(splits) == 1 else []
    alike = sizes and all(sizes) and len({*sizes[:-1]}) == 1 and sizes[-1] <= sizes[0] and sum(sizes) == len(everything)
    return sizes if alike else []


def _closed(group: Group, graph: Graph, channel: int) -> set[int]:
    """The channels of the leader that go with one of them."""
    dep = group[0].dep
    with quiet():
        return set(graph.get_pruning_group(dep.target.module, dep.handler, [channel])[0].idxs)


def _floor(group: Group, anatomy: Anatomy) -> int:
    """The channels that the leader keeps, so that no layer of the group has fewer than its own floor; 0 without one."""
    floors = [
        anatomy.floors[name]
        for item in group
        if (name := member(item)) in anatomy.floors
        and "out_channels" in item.dep.handler.__name__
        and width(item.dep.target.module) == len(group[0].idxs)
    ]
    return max(floors, default=0)


def _remove(graph: Graph, one: Scored, slots: torch.Tensor) -> Removed:
    """Cut these slots of a group, unless one of its layers would lose everything."""
    indices, dep = one.channels[slots].unique().tolist(), one.group[0].dep
    if of_heads(one.group):
        if indices:
            dep.handler(dep.target.module, indices)
        return [(leader(one.group), True, indices)]
    name, out = leader(one.group), bool(graph.is_out_channel_pruning_fn(dep.handler))
    group = going(graph, dep.target.module, indices, out=out)
    if not graph.check_pruning_group(group):
        return []
    group.prune(record_history=False)
    return [(name, out, [int(i) for i in indices])]
