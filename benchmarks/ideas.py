"""What single ideas give: fixed chains that differ in one setting, paired by seed, at equal epochs.

    python -m benchmarks.ideas --work FOLDER [--seeds 3] [--only NAME ...]

Each seed has its own dense network; of each level the difference in validation accuracy is told in points, with its mean, a
95 % interval (Student's t) and the number of pairs. What ``--work`` holds is not computed again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from search.session import problem_of
from search.study import Study, load_study
from trainables.records import names as n
from trainables.schedule import FAMILIES
from trainables.storage.store import Store
from trainables.tree import Tree, walk

STUDY = Path(__file__).parent.parent / "search" / "studies" / "quickstart.yaml"
FIGURES = Path(__file__).parent / "figures" / "ideas.json"
RESNET = ("model={name: resnet20, arguments: {width: 8}}",)
SIDES = (("tried", "compression"), ("control", "control_compression"))
WEIGHTS: Mapping[str, Any] = {n.FAMILY: n.UNSTRUCTURED, "levels": (0.9, 0.95, 0.98), n.FINE_TUNE_EPOCHS: 2}
AT_ONCE: Mapping[str, Any] = {n.FAMILY: n.UNSTRUCTURED, "levels": (0.95,), n.FINE_TUNE_EPOCHS: 2}
HALF: Mapping[str, Any] = {n.FAMILY: n.UNSTRUCTURED, "levels": (0.5,), n.FINE_TUNE_EPOCHS: 2}
CHANNELS: Mapping[str, Any] = {n.FAMILY: n.STRUCTURED, "levels": (0.25, 0.5, 0.7), n.FINE_TUNE_EPOCHS: 2}


@dataclass(frozen=True)
class Idea:
    """Two schedules that differ in ``tried`` against ``control``; ``study`` and ``retraining`` are overrides."""

    base: Mapping[str, Any]
    tried: Mapping[str, Any]
    control: Mapping[str, Any]
    study: tuple[str, ...] = ()
    retraining: tuple[str, ...] = ()
    """Settings of the idea alone."""


def _ideas() -> Iterator[tuple[str, Idea]]:
    for chain, base in (("chain", WEIGHTS), ("one-shot", AT_ONCE)):
        for scope in ("lamp", "erk"):
            for other in ("global", "layerwise"):
                yield f"{scope} against {other}, {chain}", Idea(base, {n.SCOPE: scope}, {n.SCOPE: other})
        yield f"distill against fine_tune, weights, {chain}", Idea(base, {n.RETRAIN: "distill"}, {n.RETRAIN: "fine_tune"})
    yield "distill against fine_tune, channels", Idea(CHANNELS, {n.RETRAIN: "distill"}, {n.RETRAIN: "fine_tune"})
    yield "2:4 against layerwise", Idea(HALF, {n.SCOPE: "2:4"}, {n.SCOPE: "layerwise"})
    for words, base in (("weights", WEIGHTS), ("channels", CHANNELS)):
        yield f"recalibrate against nothing, {words}", Idea(base, {n.RETRAIN: "recalibrate"}, {n.FINE_TUNE_EPOCHS: 0})
    for words, base in (("weights", WEIGHTS), ("channels", CHANNELS)):
        yield f"learning rate 0.1 against 0.05, {words}", Idea(base, {n.FINE_TUNE_LR: 0.1}, {n.FINE_TUNE_LR: 0.05})
    # 30 % of the channels are about half of the weights: both sides are left with as many, after as many epochs.
    weights = {n.FAMILY: n.UNSTRUCTURED, "levels": (0.51, 0.9, 0.95, 0.98)}
    mixed = {n.FAMILY: n.MIXED, n.CHANNEL_RATIO: 0.3, "levels": (0.796, 0.898, 0.959)}
    yield "mixed against weights", Idea({n.FINE_TUNE_EPOCHS: 2}, mixed, weights)
    for words, study in (("cnn", ()), ("resnet20", RESNET)):
        channels = {**CHANNELS, n.IMPORTANCE: "magnitude_l2"}
        yield f"isomorphic against global, {words}", Idea(channels, {n.SCOPE: "isomorphic"}, {n.SCOPE: "global"}, study)
        yield f"isomorphic against local, {words}", Idea(channels, {n.SCOPE: "isomorphic"}, {n.SCOPE: "local"}, study)
        cap = ("retraining.max_channel_share=0.8",)
        yield f"a cap of 80% against none, {words}", Idea(channels, {n.SCOPE: "global"}, {n.SCOPE: "global"}, study, cap)


IDEAS = dict(_ideas())


def compare(idea: Idea, work: Path, seeds: int) -> list[dict[str, float]]:
    """For each level the difference that the idea makes, and both sides' means, in points of accuracy."""
    plain = load_study(STUDY, idea.study)
    with_settings = load_study(STUDY, (*idea.study, *idea.retraining))
    told = [
        np.array([_chain(study, {**idea.base, **changes, n.SEED: seed}, work) for seed in range(seeds)])
        for study, changes in ((with_settings, idea.tried), (plain, idea.control))
    ]
    return [_row(*(100 * side[:, i, 0] for side in told), *(side[:, i, 1].mean() for side in told))
            for i in range(told[0].shape[1])]  # fmt: skip


def _chain(study: Study, fields: Mapping[str, Any], work: Path) -> list[tuple[float, float]]:
    """Accuracy and compression of each step."""
    tree = Tree(problem_of(study, trusted=False), Store(work))
    return [(point[n.ACCURACY], point[n.COMPRESSION]) for point in walk(FAMILIES[fields[n.FAMILY]](**fields), tree)]


def _row(tried: Any, control: Any, smaller: float, control_smaller: float) -> dict[str, float]:
    found = tried - control
    half = stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found)) if len(found) > 1 else np.inf
    values = {
        "difference": found.mean(), "half_width": half, "n": len(found), "tried": tried.mean(), "control": control.mean(),
        "compression": smaller, "control_compression": control_smaller,
    }  # fmt: skip
    return {key: round(float(value), 3) for key, value in values.items()}


def _words(row: Mapping[str, float]) -> str:
    sides = (f"{row[side]:.2f} at {row[size]:.1f}x" for side, size in SIDES)
    return f"{row['difference']:+.2f} ± {row['half_width']:.2f} points, n = {row['n']:g} ({' against '.join(sides)})"


def main() -> None:
    """Compute, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of steps")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(IDEAS), help="names, or beginnings of names")
    arguments = parser.parse_args()
    found = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    for name, idea in IDEAS.items():
        if not name.startswith(tuple(arguments.only)):
            continue
        found[name] = compare(idea, arguments.work.absolute(), arguments.seeds)
        for level, row in zip({**idea.base, **idea.control}["levels"], found[name], strict=True):
            print(f"{name} at {level:.0%}: {_words(row)}", flush=True)
        FIGURES.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
