"""Limits in units as people write them, as numbers beside a dense network, and how far a network is beyond them."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from pydantic import ValidationError

from trainables.records import names as n
from trainables.records.limits import Limits, bounds, excesses, moved_drop, uncounted
from trainables.records.objectives import ACCURACY, Quality
from trainables.tasks.base import quality
from trainables.tasks.labels import Regression

MAE, R2 = Regression(measured_by="mae").quality, Regression().quality
PIXELS = quality(
    "distance", "validation distance", unit="pixels", direction="minimise", low=0, high=math.inf, counted=False
)
FAULTS = quality("faults", "validation faults", unit="per mille", direction="minimise", low=0, high=1000, counted=False)
DENSE = {n.ACCURACY: 0.8, n.STORED_BYTES: 1000, n.PARAMS: 250, n.MACS: 4000, n.LATENCY: 2.0}


@pytest.mark.parametrize(
    ("name", "given", "bound"),
    [
        ("max_bytes", "200k", 200_000), ("max_bytes", "1.5 MB", 1.5e6), ("max_bytes", "64 KiB", 65_536),
        ("max_bytes", 9, 9),
        ("max_bytes", "50%", 500), ("max_params", "50k", 50_000), ("max_macs", "20M", 2e7), ("max_macs", "1e6", 1e6),
        ("max_macs", "25%", 1000), ("max_latency", "2ms", 2), ("max_latency", "800us", 0.8), ("max_latency", 1.5, 1.5),
        ("max_latency", "0.01 s", 10), ("max_drop", 0.5, 0.795), ("max_drop", "2 points", 0.78), ("max_drop", "5%", 0.76),
        ("max_drop", "90", 0.0), ("min_accuracy", "70%", 0.7), ("min_accuracy", 0.7, 0.7), ("worst_value", "70%", 0.7),
    ],
)  # fmt: skip
def test_units_are_read_as_people_write_them(name: str, given: Any, bound: float) -> None:
    limits = Limits(**{name: given})
    (found,) = bounds(limits, DENSE, ACCURACY)
    assert found.value == pytest.approx(bound) and found.at_least == (found.column == n.ACCURACY)
    assert Limits.model_validate(limits.model_dump(mode="json")) == limits  # as study.yaml has it


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"max_bytes": "10 kBB"}, "there is no unit 'kBB'; did you mean 'kB'?"),
        ({"max_latency": "2 mss"}, "did you mean 'ms'?"),
        ({"max_macs": "many"}, "give a number and a unit: k, M, G, %"),
        ({"max_macs": True}, "give a number"),
        ({"max_macs": -1}, "must be above 0"),
        ({"max_drop": "-1 pixel"}, "must be above 0"),
        ({"max_drop": 1, "worst_value": 0.5}, "max_drop and worst_value both limit the measure"),
        ({"max_macs": 0}, "must be above 0"),
        ({"min_accuracy": 90}, "min_accuracy: 90 is more than all"),
        ({"max_drop": 1, "min_accuracy": 0.5}, "max_drop and min_accuracy both limit the measure"),
    ],
)
def test_what_is_no_limit_says_why(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Limits(**given)
    assert told in str(refused.value)


def test_how_far_a_network_is_beyond_is_a_share_of_the_limit() -> None:
    limits = Limits(max_drop=10, max_bytes=400, max_latency=1)
    point = {n.ACCURACY: 0.7, n.STORED_BYTES: 500, n.LATENCY: None}
    assert excesses(limits, point, DENSE, ACCURACY) == {"max_drop": 0.0, "max_bytes": 0.25, "max_latency": 0.0}
    assert excesses(limits, point | {n.ACCURACY: 0.35}, DENSE, ACCURACY)["max_drop"] == pytest.approx(0.5)


def test_one_set_of_limits_over_another() -> None:
    low = Limits(max_drop=1, max_bytes=100)
    assert Limits(max_bytes=5).over(low).given == {"max_drop": 1, "max_bytes": 5}
    assert Limits(min_accuracy=0.5).over(low).given == {"min_accuracy": 0.5, "max_bytes": 100}
    assert Limits(worst_value=0.5).over(low).given == {"worst_value": 0.5, "max_bytes": 100}


@pytest.mark.parametrize(
    ("measure", "dense", "given", "bound"),
    [
        (MAE, 0.4, {"max_drop": 0.1}, 0.5), (MAE, 0.4, {"max_drop": "10%"}, 0.44), (MAE, 0.4, {"worst_value": 0.6}, 0.6),
        (PIXELS, 2.0, {"max_drop": "3 pixels"}, 5.0), (R2, 0.9, {"max_drop": 0.2}, 0.7),
        (R2, 0.9, {"max_drop": "10%"}, 0.81), (R2, -0.5, {"max_drop": "10%"}, -0.55),
        (FAULTS, 0.0, {"max_drop": "0.12345678 per mille"}, 0.12345678),
        (R2, 0.3, {"worst_value": "-0.1"}, -0.1),
    ],
)  # fmt: skip
def test_a_limit_of_any_measure_is_in_its_own_unit(
    measure: Quality, dense: float, given: dict[str, Any], bound: float
) -> None:
    limits, up = Limits(**given), measure.direction == "maximise"
    (found,) = bounds(limits, {measure.column: dense}, measure)
    assert (found.column, found.value, found.at_least) == (measure.column, pytest.approx(bound), up)
    at, better, worse = ({measure.column: bound + by} for by in (0.0, 0.01 if up else -0.01, -0.01 if up else 0.01))
    assert found.excess(at) == 0 and (found.excess(better) or 0) < 0 < (found.excess(worse) or 0)
    assert Limits.model_validate(limits.model_dump(mode="json")) == limits  # as study.yaml has it


@pytest.mark.parametrize(
    ("measure", "given", "told"),
    [
        (MAE, {"max_drop": "1 point"}, "max_drop: there is no unit 'point'; valid: %"),
        (PIXELS, {"max_drop": "2 pixls"}, "there is no unit 'pixls'; did you mean 'pixels'? valid: pixels, %"),
        (ACCURACY, {"max_drop": "2 pixels"}, "there is no unit 'pixels'; did you mean"),
        (ACCURACY, {"worst_value": 90}, "90 is no value of accuracy; give a share such as 0.9, or 90%"),
        (R2, {"worst_value": 1.5}, "1.5 is no value of r2"), (MAE, {"worst_value": -1}, "-1 is no value of mae"),
        (MAE, {"min_accuracy": 0.5}, "min_accuracy: what is measured is mae; give worst_value"),
    ],
)  # fmt: skip
def test_what_a_measure_can_not_have_as_a_limit_says_why(measure: Quality, given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        Limits(**given).check(measure)


def test_the_reference_moves_as_far_as_a_drop_can_be_foreseen() -> None:
    assert moved_drop(0.1, Limits(max_drop=30), ACCURACY) == pytest.approx(0.3)
    assert moved_drop(0.1, Limits(max_drop="30%"), R2) == pytest.approx(0.3)  # of 1 at most
    assert moved_drop(0.1, Limits(max_drop=0.5), MAE) == 0.5
    relative, dense = Limits(max_drop="50%"), {"mae": 0.4}
    assert moved_drop(0.1, relative, MAE) == 0.1 and moved_drop(0.3, relative, MAE) == 0.3
    told = uncounted(relative, dense, MAE, 0.1)
    assert (
        told and "max_drop allows networks 0.2 of mae worse than the dense one" in told and "more than 0.1 of mae" in told
    )
    assert uncounted(relative, dense, MAE, 0.2) is None and uncounted(Limits(worst_value=0.3), dense, MAE, 0.1) is None
