"""The front on fresh seeds: what is told of made-up networks, and how sure a front is."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.made_up import dense, point
from trainables.records import names as n
from trainables.records.confirmation import AGAIN, CONTROL, Member, Terms, members_again, optimism
from trainables.records.fronts import on_front
from trainables.records.methods import measure_of
from trainables.records.names import InputError
from trainables.records.objectives import ACCURACY, COMPRESSION
from trainables.tasks.labels import Regression

TERMS = Terms((ACCURACY, COMPRESSION), ACCURACY, 0.1)


def test_what_no_seed_beats_is_on_the_front_and_what_every_seed_beats_is_not() -> None:
    better, worse = [[0.2, 1.0]] * 3, [[0.1, 0.5]] * 3
    assert on_front(np.array([better, worse])).tolist() == [1.0, 0.0]


def test_a_lead_within_the_spread_of_the_seeds_is_as_likely_as_its_t_value_says() -> None:
    # Equal compression, so the more accurate on average is on the front: differences of 1, 2, 3 have z = 2 / (1 / sqrt(3)).
    values = np.zeros((2, 3, 2))
    values[:, :, 1] = 1.0
    values[0, :, 0] = [1.0, 0.0, -1.0]
    assert on_front(values)[0] == pytest.approx(0.5, abs=0.15)
    values[0, :, 0] = [3.0, 2.0, 1.0]
    assert on_front(values).tolist() == [1.0, 0.0]


def test_what_failed_on_a_seed_counts_on_the_others() -> None:
    values = np.full((2, 3, 2), 1.0)
    values[0, 1] = math.nan
    values[1, :, 0] = 0.5
    found = on_front(values)
    assert found[0] == pytest.approx(1 - 1 / 27, abs=0.02) and found[1] == pytest.approx(1 / 27, abs=0.02)


def written(folder: Path, rows: list[dict[str, Any]], plan: list[dict[str, Any]]) -> None:
    place = folder / n.CONFIRMATION_FOLDER
    place.mkdir(parents=True)
    for name, lines in ((n.CONFIRMED_FILE, rows), (n.POINTS_FILE, rows), (n.AGAIN_FILE, plan)):
        (place / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def opened(value: float, **columns: Any) -> dict[str, Any]:
    made = dense if columns.get(n.FAMILY) == n.DENSE else point
    return made(**columns) | {n.TEST_ACCURACY: value}


def made(folder: Path) -> list[Member]:
    """A member on two seeds, beside one that lost much more and was opened on one alone."""
    rows, plan = [], []
    for seed, (root, good, control) in enumerate([(0.96, 0.95, 0.965), (0.94, 0.94, 0.955)], start=1):
        rows += [
            opened(root, family=n.DENSE, seed=seed, step_id=f"d{seed}"),
            opened(good, seed=seed, step_id=f"g{seed}", accuracy=0.1),
            opened(control, seed=seed, step_id=f"c{seed}", compression=1.0),
        ]
        plan.append({n.STEP_ID: "good", n.SEED: seed, AGAIN: f"g{seed}", CONTROL: f"c{seed}"})
        plan.append({n.STEP_ID: "bad", n.SEED: seed, AGAIN: f"b{seed}", CONTROL: None})
    rows.append(opened(0.8, seed=1, step_id="b1", compression=1.5))
    written(folder, rows, plan)
    return members_again(folder, [point(step_id="good"), point(step_id="bad"), point(step_id="new")], TERMS)


def test_members_are_told_on_test_data_beside_dense_and_control(tmp_path: Path) -> None:
    good, bad = made(tmp_path)
    assert (good.point, bad.point) == ("good", "bad")
    assert good.over_seeds("value") == pytest.approx((0.945, math.sqrt(0.00005)))
    assert good.over_seeds("lost") == pytest.approx((0.005, math.sqrt(0.00005)))
    assert good.over_seeds("to_control") == pytest.approx((0.015, 0), abs=1e-9)
    assert [one.seed for one in bad.seen] == [1] and math.isnan(bad.over_seeds("lost")[1])
    assert bad.over_seeds("to_control")[0] == pytest.approx(0.16)  # of no training the control is the dense network
    assert good.on_front == 1.0 and bad.on_front == 0.0
    assert "94.50 ± 0.71 % on the test data, 0.50 ± 0.71 points worse than the dense" in good.told(ACCURACY)


def test_a_damaged_file_is_told_by_its_line(tmp_path: Path) -> None:
    made(tmp_path)
    file = tmp_path / n.CONFIRMATION_FOLDER / n.AGAIN_FILE
    file.write_text('{"step_id": "../x", "seed": 1, "again": "g1"}\n')
    with pytest.raises(InputError, match=r"again\.jsonl, line 1"):
        members_again(tmp_path, [point(step_id="good")], TERMS)
    file.unlink()
    assert members_again(tmp_path, [point(step_id="good")], TERMS) == []


@pytest.mark.parametrize("minimised", [False, True])
def test_optimism_is_what_the_front_lost_from_validation_to_test_less_what_dense_did(minimised: bool) -> None:
    measure = Regression(measured_by="mae").quality if minimised else ACCURACY
    sign = -1 if minimised else 1

    def row(of: dict[str, Any], validation: float, test: float) -> dict[str, Any]:
        return of | {measure.column: sign * validation + minimised, measure.test: sign * test + minimised}

    terms = Terms((measure, COMPRESSION), measure, 0.1)
    found = optimism([row(point(compression=2.0), 0.95, 0.93)], [row(dense(), 0.96, 0.955)], terms)
    assert found is not None and (found.pruned, found.dense) == (pytest.approx(0.02), pytest.approx(0.005))
    # One doubling, 0.09 above the reference on validation data, and 0.075 on the test data.
    assert (found.before, found.after) == (pytest.approx(0.09), pytest.approx(0.075))
    assert "selection flattered them by" in found.told(measure) and optimism([], [], terms) is None


def test_the_measure_of_another_task_is_told_in_its_unit() -> None:
    mae = measure_of({"mae": Regression(measured_by="mae").quality.describe()})
    assert mae.told_spread(0.5, 0.125) == "0.5 ± 0.125" and ACCURACY.told_spread(0.951, math.nan) == "95.10"
    assert ACCURACY.told_spread(0.01, 0.002, change=True) == "+1.00 ± 0.20"
