"""Limits in units as people write them, as numbers beside a dense network, and how far a network is beyond them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from trainables.records import names as n
from trainables.records.limits import Limits, bounds, excesses

DENSE = {n.ACCURACY: 0.8, n.STORED_BYTES: 1000, n.PARAMS: 250, n.MACS: 4000, n.LATENCY: 2.0}


@pytest.mark.parametrize(
    ("name", "given", "bound"),
    [
        ("max_bytes", "200k", 200_000), ("max_bytes", "1.5 MB", 1.5e6), ("max_bytes", "64 KiB", 65_536),
        ("max_bytes", 9, 9),
        ("max_bytes", "50%", 500), ("max_params", "50k", 50_000), ("max_macs", "20M", 2e7), ("max_macs", "1e6", 1e6),
        ("max_macs", "25%", 1000), ("max_latency", "2ms", 2), ("max_latency", "800us", 0.8), ("max_latency", 1.5, 1.5),
        ("max_latency", "0.01 s", 10), ("max_drop", 0.5, 0.795), ("max_drop", "2 points", 0.78), ("max_drop", "5%", 0.76),
        ("min_accuracy", "70%", 0.7), ("min_accuracy", 0.7, 0.7),
    ],
)  # fmt: skip
def test_units_are_read_as_people_write_them(name: str, given: Any, bound: float) -> None:
    limits = Limits(**{name: given})
    (found,) = bounds(limits, DENSE)
    assert found.value == pytest.approx(bound) and found.at_least == (found.column == n.ACCURACY)
    assert Limits.model_validate(limits.model_dump(mode="json")) == limits  # as study.yaml has it


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"max_bytes": "10 kBB"}, "there is no unit 'kBB'; did you mean 'kB'?"),
        ({"max_latency": "2 mss"}, "did you mean 'ms'?"),
        ({"max_macs": "many"}, "give a number above 0 and a unit: k, M, G, %"),
        ({"max_macs": True}, "give a number"),
        ({"max_macs": -1}, "give a number above 0"),
        ({"max_macs": 0}, "must be above 0"),
        ({"min_accuracy": 90}, "min_accuracy: 90 is more than all"),
        ({"max_drop": 1, "min_accuracy": 0.5}, "max_drop and min_accuracy both limit the accuracy"),
    ],
)
def test_what_is_no_limit_says_why(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Limits(**given)
    assert told in str(refused.value)


def test_how_far_a_network_is_beyond_is_a_share_of_the_limit() -> None:
    limits = Limits(max_drop=10, max_bytes=400, max_latency=1)
    point = {n.ACCURACY: 0.7, n.STORED_BYTES: 500, n.LATENCY: None}
    assert excesses(limits, point, DENSE) == {"max_drop": 0.0, "max_bytes": 0.25, "max_latency": 0.0}
    assert excesses(limits, point | {n.ACCURACY: 0.35}, DENSE)["max_drop"] == pytest.approx(0.5)


def test_one_set_of_limits_over_another() -> None:
    low = Limits(max_drop=1, max_bytes=100)
    assert Limits(max_bytes=5).over(low).given == {"max_drop": 1, "max_bytes": 5}
    assert Limits(min_accuracy=0.5).over(low).given == {"min_accuracy": 0.5, "max_bytes": 100}
