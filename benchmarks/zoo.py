"""Every classification network of torchvision (and of timm, where it is installed), cut by every method.

    python -m benchmarks.zoo [--networks NAME ...] [--most-parameters 60e6] [--seconds 600]

Each network has random weights and images of the smallest size that it takes. It goes through the gate; then each
importance cuts it in two steps with local scope, each pruner that regularises trains it a step, and one importance cuts it
globally. Every cut is compared by the oracle, written, and read back. A row of ``benchmarks/tables/zoo.csv`` is a network;
those that have one are passed over, so the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import copy
import csv
import importlib.util
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torchvision
from torch import nn

from trainables.data.dataset import Data
from trainables.networks import oracle
from trainables.networks.anatomy import Removed
from trainables.networks.factory import TIMM, TORCHVISION, ModelSettings
from trainables.networks.network import Network, decode, encode
from trainables.problem import Problem
from trainables.pruning import channels
from trainables.pruning.channel_importances import CHANNEL_IMPORTANCES
from trainables.pruning.channel_scopes import CHANNEL_SCOPES
from trainables.pruning.compatibility import refusals
from trainables.pruning.pruners import PRUNERS
from trainables.pruning.sample import Sample
from trainables.records import names as n
from trainables.records.names import InputError

SIDES = (32, 64, 96, 128, 160, 224, 299)
TARGETS = (300_000, 510_000)
"""Two steps, in millionths of the channels."""
TABLE = Path(__file__).parent / "tables" / "zoo.csv"
CLASSES, IMAGES = 10, 12
COLUMNS = (
    "network", "side", "parameters", "families", "protected_weights", "protected_macs", "cuts", "refused", "asked",
    "achieved_local", "achieved_global", "oracle", "seconds", "fault",
)  # fmt: skip


def main() -> None:
    """Look at the networks that have no row yet, and write both tables after each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="*", help="such as torchvision:resnet18; all without it")
    parser.add_argument("--most-parameters", type=float, default=60e6)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no network after this time")
    given = parser.parse_args()
    done = set(pd.read_csv(TABLE)["network"]) if TABLE.exists() else set()
    began = time.monotonic()
    for name in given.networks or [*_names()]:
        if name in done or time.monotonic() - began > given.seconds:
            continue
        row = look_at(name, given.most_parameters)
        if row is not None:
            _append(row)
            print(json.dumps(row))
    write_markdown()


def _names() -> Iterator[str]:
    yield from (TORCHVISION + name for name in torchvision.models.list_models(module=torchvision.models))
    if importlib.util.find_spec("timm") is not None:
        import timm  # noqa: PLC0415

        # One network a module of timm's, the smallest by its name's length: families, not sizes.
        modules = sorted({timm.models.model_entrypoint(name).__module__ for name in timm.list_models()})
        for module in modules:
            yield TIMM + min(timm.list_models(module=module.rpartition(".")[2]), key=lambda name: (len(name), name))


def look_at(name: str, most_parameters: float) -> dict[str, Any] | None:
    """The network's row; None if it has too many parameters."""
    began = time.monotonic()
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | {"network": name, "asked": TARGETS[-1] / 1e6}
    try:
        problem, side = _smallest(name)
        model = problem.build()
        row |= {"side": side, "parameters": sum(p.numel() for p in model.parameters())}
        if row["parameters"] > most_parameters:
            return None
        row |= _cut(problem)
    except Exception as error:  # the table is there to show what goes wrong
        row["fault"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return row | {"seconds": round(time.monotonic() - began, 1)}


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
        return found | {"refused": refused[n.STRUCTURED]}
    out = refusals(problem, CHANNEL_IMPORTANCES, PRUNERS)
    usable = [name for name in CHANNEL_IMPORTANCES if name not in out[n.IMPORTANCE]]
    torch.manual_seed(0)
    dense = problem.build()
    local = [_chain(problem, dense, name, "local") for name in usable]
    overall = _chain(problem, dense, "magnitude_l2" if "magnitude_l2" in usable else n.RANDOM, "global")
    return found | {
        "cuts": len(local) + 1,
        "refused": " ".join(name for by in out.values() for name in by),
        "achieved_local": round(float(np.mean([achieved for achieved, _ in local])), 4),
        "achieved_global": round(overall[0], 4),
        "oracle": max(error for _, error in [*local, overall]),
    }


def _chain(problem: Problem, dense: nn.Module, importance: str, scope: str) -> tuple[float, float]:
    """(channels achieved, the oracle's difference) of two steps; what was written must come back as it was."""
    model, removed, anatomy = copy.deepcopy(dense), Removed(), problem.anatomy
    method = CHANNEL_IMPORTANCES.make(importance, {"score_images": 4})
    for target in TARGETS:
        sample = Sample(problem.data, target)
        removed += channels.cut(model, anatomy, method, CHANNEL_SCOPES.make(scope), target, 1, sample)
        model.zero_grad()
    error = oracle.compare(dense, removed, anatomy)
    stored = decode(encode(Network(model, {}, removed)), problem.build, anatomy).model
    inputs, _ = Sample(problem.data, 0).images(2)
    with torch.no_grad():
        torch.testing.assert_close(stored.eval()(inputs), model.eval()(inputs))
    return anatomy.channel_sparsity(model), error


def _append(row: dict[str, Any]) -> None:
    there = TABLE.exists()
    with TABLE.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not there:
            writer.writeheader()
        writer.writerow(row)


def write_markdown() -> None:
    """The table as Markdown, beside the other."""
    with suppress(FileNotFoundError):
        table = pd.read_csv(TABLE).astype(object).fillna("")
        lines = [table.columns, ["---"] * len(table.columns), *table.itertuples(index=False)]
        text = "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
        TABLE.with_suffix(".md").write_text(text + "\n")


if __name__ == "__main__":
    main()
