"""One network of the zoo, cut by every method: its row of the table, as JSON.

    python -m benchmarks.zoo_row NAME MOST_PARAMETERS

The network has random weights and images of the smallest size that it takes. It goes through the gate; then each importance
cuts it in two steps with local scope, and after a step of each pruner's training one importance cuts it with global scope.
Every cut is compared by the oracle, and the network is written and read back.
"""

from __future__ import annotations

import copy
import json
import resource
import sys
import warnings
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from trainables.data.dataset import Data
from trainables.networks import oracle
from trainables.networks.anatomy import Anatomy, Removed, widths
from trainables.networks.factory import ModelSettings
from trainables.networks.network import Network, decode, encode
from trainables.problem import Problem
from trainables.pruning import channels
from trainables.pruning.channel_importances import CHANNEL_IMPORTANCES
from trainables.pruning.channel_scopes import CHANNEL_SCOPES
from trainables.pruning.compatibility import refusals
from trainables.pruning.pruners import PRUNERS, Regulariser
from trainables.pruning.sample import Sample
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.training.kernels import trainable

SIDES = (32, 64, 96, 128, 160, 192, 224, 240, 256, 299)
TARGETS = (300_000, 510_000)
"""Two steps, in millionths of the channels."""
CLASSES, IMAGES, SCORED = 10, 12, 4
NOT_LOOKED_AT = "not looked at"
PREFERRED = "magnitude_l2"
"""The importance that cuts with global scope."""
Cut = tuple[float, float, set[str]]
"""The share of channels that went, the oracle's difference, and the layers that lost none."""


def look_at(name: str, most_parameters: float) -> dict[str, Any]:
    """The network's row; what is wrong is its fault."""
    row: dict[str, Any] = {"network": name}
    try:
        problem, row["side"] = _smallest(name)
        row["parameters"] = sum(p.numel() for p in problem.build().parameters())
        if row["parameters"] > most_parameters:
            return row | {"fault": f"{NOT_LOOKED_AT}: more than {most_parameters:.0f} parameters"}
        row |= _cut(problem)
    except Exception as error:  # the table is there to show what goes wrong
        row["fault"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return row | {"core_seconds": round(_core_seconds(), 1)}


def _core_seconds() -> float:
    """What this process and the gate's have taken of a core, which other work beside them hardly changes."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _smallest(name: str) -> tuple[Problem, int]:
    """The network on the smallest images that it takes."""
    refusal = InputError(f"{name}: takes no images")
    for side in SIDES:
        problem = Problem(_images(side), ModelSettings(name=name))
        try:
            problem.build(check=True)
        except InputError as error:
            refusal = error
            continue
        return problem, side
    raise refusal


def _images(side: int) -> Data:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (IMAGES, 3, side, side), dtype=np.uint8)
    labels = np.arange(IMAGES) % CLASSES
    names = tuple(str(label) for label in range(CLASSES))
    return Data(images, labels, images, labels, names, (0.5,) * 3, (0.25,) * 3, 0, False, f"noise {side}")


def _cut(problem: Problem) -> dict[str, Any]:
    refused = {family: reason for family in n.FAMILIES if (reason := problem.refuse(family))}
    found: dict[str, Any] = {"families": " ".join(family for family in n.FAMILIES if family not in refused)}
    found |= {"protected_weights": problem.gate.weights, "protected_macs": problem.gate.macs}
    if n.STRUCTURED in refused:
        return found | {"protected_channels": 1.0, "refused": refused[n.STRUCTURED]}
    out = refusals(problem, CHANNEL_IMPORTANCES, PRUNERS)
    usable = [name for name in CHANNEL_IMPORTANCES if name not in out[n.IMPORTANCE]]
    torch.manual_seed(0)
    dense = problem.build()
    local = [_chain(problem, dense, name, "local") for name in usable]
    across = PREFERRED if PREFERRED in usable else n.RANDOM
    overall = [_chain(problem, dense, across, "global", name) for name in PRUNERS if name not in out[n.PRUNER]]
    return found | {
        "protected_channels": _share(problem.anatomy, set.intersection(*(whole for _, _, whole in local))),
        "cuts": len(local) + len(overall),
        "importances_refused": " ".join(out[n.IMPORTANCE]),
        "pruners_refused": " ".join(out[n.PRUNER]),
        "asked": TARGETS[-1] / 1e6,
        "achieved_local": _range([achieved for achieved, _, _ in local]),
        "achieved_global": _range([achieved for achieved, _, _ in overall]),
        "oracle": f"{max(error for _, error, _ in [*local, *overall]):.0e}",
    }


def _chain(problem: Problem, dense: nn.Module, importance: str, scope: str, pruner: str = "base") -> Cut:
    """Two steps; what is written must come back as it was."""
    model, removed, anatomy = copy.deepcopy(dense), Removed(), problem.anatomy
    method = CHANNEL_IMPORTANCES.make(importance, {"score_images": SCORED})
    for target in TARGETS:
        sample = Sample(problem.data, target)
        _regularise(problem, model, pruner, sample)
        removed += channels.cut(model, anatomy, method, CHANNEL_SCOPES.make(scope), target, 1, sample)
        model.zero_grad()
    error = oracle.compare(dense, removed, anatomy)
    _read_back(problem, Network(model, {}, removed))
    now = widths(model)
    return anatomy.channel_sparsity(model), error, {name for name in now if now[name] == anatomy.widths[name]}


def _regularise(problem: Problem, model: nn.Module, pruner: str, sample: Sample) -> None:
    """An update of the pruner's training, if it has one."""
    method = PRUNERS.make(pruner)
    if not isinstance(method, Regulariser):
        return
    hook = method.penalty(model, problem.anatomy)
    images, labels = sample.images(SCORED)
    model.train()
    with trainable(model):
        loss = F.cross_entropy(model(images), labels)
    loss.backward()
    hook(model)
    torch.optim.SGD(model.parameters(), method.learning_rate).step()
    model.zero_grad()


def _read_back(problem: Problem, network: Network) -> None:
    stored = decode(encode(network), problem.build, problem.anatomy).model
    inputs, _ = Sample(problem.data, 0).images(2)
    with torch.no_grad():
        one, other = stored.eval()(inputs), network.model.eval()(inputs)
    torch.testing.assert_close(one, other, equal_nan=True)  # untrained networks can put out anything after a step


def _share(anatomy: Anatomy, whole: set[str]) -> float:
    """The share of channels in layers that lost none, those of one channel and of the outputs left out."""
    sizes = {name: width for name, width in anatomy.widths.items() if name not in anatomy.keep and width > 1}
    return round(sum(size for name, size in sizes.items() if name in whole) / max(1, sum(sizes.values())), 4)


def _range(shares: list[float]) -> str:
    least, most = (f"{share:.3f}" for share in (min(shares), max(shares)))
    return least if least == most else f"{least} to {most}"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with redirect_stdout(sys.stderr):  # whatever libraries print
        answer = look_at(sys.argv[1], float(sys.argv[2]))
    print(json.dumps(answer))
