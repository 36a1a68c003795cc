"""When a trial is given up: decisions with closed forms, and the scheduler that Tune asks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import TrialScheduler

from search.records.ledger import Ledger
from search.sampling.outlook import Outlook, all_beaten, halvings
from search.stages.trials import scheduler_of
from search.study import SearchSettings
from search.tune.live_trials import LiveFifo
from search.tune.scheduler import FrontScheduler
from tests.search_helpers import DENSE_POINT, point
from trainables.records import names as n
from trainables.trainable import gain_metric

IMAGES = 1000
KIND = ("unstructured", "global")
REFERENCE = (0.8, 0.0)
"""A dense network of 0.9, and no reduction."""


def outlook(*points: Sequence[float], objectives: Sequence[str] = ("accuracy", "compression")) -> Outlook:
    """Points as (sparsity, accuracy above the reference, reductions...)."""
    made = Outlook(objectives, IMAGES)
    for sparsity, *gains in points:
        made.add(KIND, sparsity, gains)
    return made


def noise(*accuracies: float) -> float:
    """Two standard errors of the difference of two measured accuracies."""
    return 2 * math.sqrt(sum(accuracy * (1 - accuracy) / IMAGES for accuracy in accuracies))


def test_each_step_ahead_must_be_beaten_on_every_objective() -> None:
    front, none = np.array([[0.9, 2.0], [0.8, 3.0]]), np.zeros((2, 2))
    assert all_beaten(np.array([[0.9, 2.0]]), front, none)
    assert all_beaten(np.array([[0.85, 1.0], [0.7, 3.0]]), front, none)
    assert not all_beaten(np.array([[0.85, 1.0], [0.85, 3.0]]), front, none)
    assert not all_beaten(np.array([[0.7, 3.1]]), front, none)
    assert not all_beaten(np.array([[0.9, 2.0]]), front, np.array([[0.01, 0.0]] * 2))
    assert all_beaten(np.array([[0.85, 2.0, 5.0]]), np.array([[0.9, 2.0, 5.0]]), np.zeros((1, 3)))
    assert not all_beaten(np.array([[0.85, 2.0, 5.1]]), np.array([[0.9, 2.0, 5.0]]), np.zeros((1, 3)))


def test_accuracy_within_the_noise_of_the_front_goes_on() -> None:
    """The front has 0.88 at three quarters gone; the trial stands at a half and is going there."""
    seen = outlook((0.75, 0.08, 2.0))
    limit = 0.08 - noise(0.88, 0.88)
    assert not seen.hopeless(KIND, [limit + 0.002, 1.0], [0.75], REFERENCE)
    assert seen.hopeless(KIND, [limit - 0.002, 1.0], [0.75], REFERENCE)


def test_more_images_mean_less_noise() -> None:
    few, many = Outlook(("accuracy", "compression"), 100), Outlook(("accuracy", "compression"), 100_000)
    for seen in (few, many):
        seen.add(KIND, 0.75, [0.08, 2.0])
    assert not few.hopeless(KIND, [0.06, 1.0], [0.75], REFERENCE)
    assert many.hopeless(KIND, [0.06, 1.0], [0.75], REFERENCE)


def test_compression_that_the_front_has_not_reached_goes_on() -> None:
    seen = outlook((0.75, 0.08, 2.0))
    assert seen.hopeless(KIND, [0.02, 1.0], [0.7, 0.75], REFERENCE)
    assert not seen.hopeless(KIND, [0.02, 1.0], [0.7, 0.75, 0.8], REFERENCE)
    # Another kind of cut may reduce more.
    seen.add(("structured", "local"), 0.5, [0.02, 1.5])
    assert not seen.hopeless(("structured", "local"), [0.02, 1.5], [0.75], REFERENCE)


def test_what_a_step_ahead_reduces_is_foreseen_from_the_best_point_of_its_kind() -> None:
    seen = outlook((0.5, 0.09, 0.5), (0.75, 0.08, 2.0))  # at most one for each halving
    assert halvings(0.875) == pytest.approx(3)
    assert not seen.hopeless(KIND, [0.02, 0.5], [0.76], REFERENCE)
    seen.add(("structured", "local"), 0.5, [0.08, 3.0])
    assert seen.hopeless(KIND, [0.02, 0.5], [0.76, 0.874], REFERENCE)
    assert not seen.hopeless(KIND, [0.02, 0.5], [0.76, 0.876], REFERENCE)


def test_first_cuts_that_say_little_do_not_end_a_chain() -> None:
    """Rounded to 16 channels, 10 % of them are hardly any; three quarters are 16 times, and the front is at 6 times."""
    structured, after = ("structured", "local"), [0.3, 0.5, 0.75]
    seen = outlook((0.85, 0.09, math.log2(6)))
    seen.add(structured, 0.1, [0.03, math.log2(1.02)])
    assert not seen.hopeless(structured, [0.03, math.log2(1.02)], after, REFERENCE)
    assert seen.hopeless(structured, [0.03, math.log2(1.02)], after[:2], REFERENCE)  # 4 times at best


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9, 0.99])
def test_no_file_of_masked_weights_beats_what_is_foreseen(sparsity: float) -> None:
    """Nor does a chain whose layers lose unequal shares: what is foreseen is one over the weights left."""
    seen = outlook((0.05, 0.05, 0.0))
    seen.add(("structured", "local"), sparsity, [0.09, halvings(sparsity) - 1e-3])
    assert not seen.hopeless(KIND, [0.01, 0.0], [sparsity], REFERENCE)


def test_below_the_reference_no_reduction_is_worth_anything() -> None:
    seen = outlook((0.75, 0.08, 2.0))
    margin = noise(0.8, 0.8)
    assert seen.hopeless(KIND, [-margin - 0.005, 1.0], [0.99], REFERENCE)
    assert not seen.hopeless(KIND, [-margin + 0.005, 1.0], [0.99], REFERENCE)


def test_three_objectives_are_all_looked_at() -> None:
    objectives, reference = ("macs", "accuracy", "params"), (0.0, 0.8, 0.0)
    seen = outlook((0.75, 2.0, 0.09, 2.0), objectives=objectives)
    assert seen.hopeless(KIND, [1.0, 0.02, 0.5], [0.75], reference)
    seen.add(KIND, 0.75, [1.0, 0.01, 2.5])  # parameters may fall farther than the front's best point has them
    assert not seen.hopeless(KIND, [1.0, 0.02, 0.5], [0.75], reference)
    seen.add(KIND, 0.75, [2.0, 0.09, 2.5])
    assert seen.hopeless(KIND, [1.0, 0.02, 0.5], [0.75], reference)


def test_without_accuracy_among_the_objectives_nothing_is_stopped() -> None:
    seen = outlook((0.75, 5.0, 5.0), objectives=("compression", "macs"))
    assert not seen.hopeless(KIND, [0.1, 0.1], [0.5], (0.0, 0.0))


def ledger(folder: Path) -> Ledger:
    """Two seeds whose dense networks differ by ten points, and a front of one point on each."""
    made = Ledger(folder, ("accuracy", "compression"), 0.1)
    if not made.points:
        for seed, accuracy in ((0, 0.9), (1, 0.8)):
            made.add_dense({**DENSE_POINT, n.STEP_ID: f"dense{seed}", n.SEED: seed, n.ACCURACY: accuracy})
        made.add(point("a", 0.89, 4.0, **{n.SCOPE: "global", n.REQUESTED_SPARSITY: 0.75}))
    return made


@pytest.mark.parametrize(("seed", "accuracy", "decision"), [
    (0, 0.82, TrialScheduler.STOP), (0, 0.88, TrialScheduler.CONTINUE), (1, 0.72, TrialScheduler.STOP),
    (1, 0.78, TrialScheduler.CONTINUE),
])  # fmt: skip
def test_the_scheduler_judges_by_the_ledger_and_the_seed_s_own_dense_network(
    seed: int, accuracy: float, decision: str, tmp_path: Path
) -> None:
    ledger(tmp_path)
    again = ledger(tmp_path)  # as after a restart
    scheduler = FrontScheduler(again, ("accuracy", "compression"), IMAGES)
    config = {n.TRIAL: 1, "family": "unstructured", "step_ratio": 0.5, "steps": 2, n.SEED: seed}
    result = {n.STEP: 1, gain_metric("accuracy"): accuracy, gain_metric("compression"): 1.0}
    controller: Any = None
    trial: Any = SimpleNamespace(config=config)
    assert scheduler.on_trial_result(controller, trial, result) == decision
    longer: Any = SimpleNamespace(config={**config, "steps": 3})  # beyond what was seen, while it is above the reference
    assert scheduler.on_trial_result(controller, longer, result) == TrialScheduler.CONTINUE


def test_the_scheduler_learns_from_points_that_come(tmp_path: Path) -> None:
    known = ledger(tmp_path)
    scheduler = FrontScheduler(known, ("accuracy", "compression"), IMAGES)
    trial: Any = SimpleNamespace(config={n.TRIAL: 1, "family": "unstructured", "step_ratio": 0.5, "steps": 3})
    result = {n.STEP: 1, gain_metric("accuracy"): 0.83, gain_metric("compression"): 1.0}
    controller: Any = None
    assert scheduler.on_trial_result(controller, trial, result) == TrialScheduler.CONTINUE
    known.add({**known.points[-1], n.STEP_ID: "b", n.REQUESTED_SPARSITY: 0.875, n.COMPRESSION: 8.0})
    assert scheduler.on_trial_result(controller, trial, result) == TrialScheduler.STOP
    assert isinstance(scheduler, LiveFifo)


@pytest.mark.parametrize(("stop", "size", "kind"), [
    ("front", None, FrontScheduler), ("none", None, LiveFifo), ("front", 7, LiveFifo), ("none", 7, LiveFifo),
])  # fmt: skip
def test_only_a_search_that_asks_for_it_is_stopped(stop: str, size: int | None, kind: type, tmp_path: Path) -> None:
    """A sweep, whose space has a size, never is."""
    study = SimpleNamespace(search=SearchSettings(stop=stop), goals=("accuracy", "compression"))
    data = SimpleNamespace(validation_labels=np.zeros(IMAGES))
    session: Any = SimpleNamespace(
        study=study, space=SimpleNamespace(size=size), tree=SimpleNamespace(problem=SimpleNamespace(data=data))
    )
    assert type(scheduler_of(session, ledger(tmp_path))) is kind
