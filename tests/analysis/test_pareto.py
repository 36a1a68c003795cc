"""Fronts and hypervolumes whose values are known without computing them."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

import trainables.records.names as n
from analysis.columns import frame
from analysis.load import dense_rows
from analysis.pareto import HYPERVOLUME, best_at_drops, front, hypervolume, hypervolume_history
from tests.made_up import dense, point

ROOT = dense(accuracy=0.9)
BOTH = ("accuracy", "compression")


def networks(*pairs: tuple[float, float], **changes: Any) -> pd.DataFrame:
    """Networks of these accuracies and compressions, below a dense network of accuracy 0.9."""
    return frame(
        [point(step_id=f"s{i}", accuracy=a, compression=c, **changes) for i, (a, c) in enumerate(pairs)],
    )


def ids(points: pd.DataFrame) -> list[str]:
    return list(points[n.STEP_ID])


DENSE = frame([ROOT])

FRONTS = {
    "staircase": ([(0.82, 8), (0.90, 2), (0.85, 4)], ["s1", "s2", "s0"]),
    "dominated": ([(0.90, 2), (0.85, 2), (0.90, 1.5)], ["s0"]),
    "duplicates are kept once": ([(0.88, 4), (0.88, 4), (0.88, 4)], ["s0"]),
    "a tie on one objective is decided by the other": ([(0.88, 4), (0.88, 8)], ["s1"]),
    "single point": ([(0.88, 4)], ["s0"]),
    "the dense network competes": ([(0.88, 0.9), (0.9, 1.0)], []),
    "better than dense": ([(0.95, 2)], ["s0"]),
    "beyond the reference": ([(0.10, 64), (0.88, 4)], ["s1", "s0"]),
}


@pytest.mark.parametrize("pairs, expected", FRONTS.values(), ids=FRONTS)
def test_front(pairs: list[tuple[float, float]], expected: list[str]) -> None:
    assert ids(front(networks(*pairs), BOTH, DENSE)) == expected


def test_tables_leave_out_what_is_below_the_reference() -> None:
    points = networks((0.10, 64), (0.88, 4), (0.80, 8))
    assert ids(front(points, BOTH, DENSE)) == ["s1", "s2", "s0"]
    assert ids(front(points, BOTH, DENSE, accuracy_drop=0.1)) == ["s1", "s2"]


# The reference is (0.8, 1x): accuracy counts from 0.8, compression in doublings.
VOLUMES = {
    "single point": ([(0.9, 2)], 0.1 * 1),
    "staircase": ([(0.9, 2), (0.85, 4), (0.82, 8)], 0.1 + 0.05 + 0.02),
    "a dominated point adds nothing": ([(0.9, 2), (0.89, 2)], 0.1),
    "a duplicate adds nothing": ([(0.9, 2), (0.9, 2)], 0.1),
    "all worse than the reference": ([(0.79, 64), (0.9, 0.5), (0.1, 0.5)], 0),
    "on the reference": ([(0.8, 64), (0.9, 1)], 0),
    "points beyond the reference distort nothing": ([(0.9, 2), (0.0, 1000), (1.0, 0.5)], 0.1),
    "better than dense": ([(0.95, 2)], 0.15),
}


@pytest.mark.parametrize("pairs, expected", VOLUMES.values(), ids=VOLUMES)
def test_hypervolume(pairs: list[tuple[float, float]], expected: float) -> None:
    points = networks(*pairs)
    assert hypervolume(points, BOTH, DENSE) == pytest.approx(expected)
    assert hypervolume(points.iloc[::-1], BOTH, DENSE) == pytest.approx(expected)


def test_hypervolume_of_the_front_is_that_of_all() -> None:
    points = networks((0.9, 2), (0.85, 4), (0.84, 3), (0.82, 8), (0.1, 64))
    assert hypervolume(front(points, BOTH, DENSE), BOTH, DENSE) == pytest.approx(hypervolume(points, BOTH, DENSE))


def test_the_reference_is_the_study_s() -> None:
    assert hypervolume(networks((0.9, 2)), BOTH, DENSE, accuracy_drop=0.02) == pytest.approx(0.02)


def test_three_objectives() -> None:
    box = networks((0.9, 4), macs=ROOT[n.MACS] / 8)
    assert hypervolume(box, (*BOTH, "macs"), DENSE) == pytest.approx(0.1 * 2 * 3)


def test_costs_are_reductions() -> None:
    points = frame([point(step_id=str(p), accuracy=0.9, params=ROOT[n.PARAMS] / p) for p in (4, 2)])
    assert ids(front(points, ("accuracy", "params"), DENSE)) == ["4"]
    assert hypervolume(points, ("accuracy", "params"), DENSE) == pytest.approx(0.1 * 2)


def test_points_that_were_not_measured_are_left_out() -> None:
    timed = {n.ACCURACY: 0.9, n.LATENCY: ROOT[n.LATENCY] / 2}
    points = frame([point(step_id="timed", **timed), point(step_id="not", accuracy=0.99)])
    assert ids(front(points, ("accuracy", "latency"), DENSE)) == ["timed"]
    assert hypervolume(points, ("accuracy", "latency"), DENSE) == pytest.approx(0.1)
    untimed = frame([ROOT | {n.LATENCY: None}])
    assert front(points, ("accuracy", "latency"), untimed).empty
    assert hypervolume(points, ("accuracy", "latency"), untimed) == 0


def test_gains_are_relative_to_the_dense_network_of_the_seed() -> None:
    roots = frame([dense(accuracy=0.9), dense(accuracy=0.7, seed=1, step_id="d1")])
    points = frame([point(step_id="a", accuracy=0.88), point(step_id="b", accuracy=0.7, seed=1)])
    # Less accurate, but it lost nothing: its dense network was no better.
    assert ids(front(points, BOTH, roots)) == ["b"]
    assert hypervolume(points, BOTH, roots) == pytest.approx(0.1)


def test_history_counts_every_epoch_once() -> None:
    rows = [
        ROOT | {n.EPOCHS: 20},
        point(step_id="a", accuracy=0.9, compression=2, epochs=3),
        point(step_id="a", accuracy=0.9, compression=2, epochs=0, reused=True),
        point(step_id="b", accuracy=0.1, compression=64, epochs=2),
        point(step_id="c", accuracy=0.85, compression=4, epochs=4),
    ]
    points = frame(rows)
    history = hypervolume_history(points, BOTH, dense_rows(points))
    assert list(history[n.EPOCHS]) == [0, 3, 5, 9]
    assert list(history[HYPERVOLUME]) == pytest.approx([0, 0.1, 0.1, 0.15])
    assert history[HYPERVOLUME].iloc[-1] == pytest.approx(hypervolume(points, BOTH, dense_rows(points)))


def test_history_pays_for_steps_without_a_point() -> None:
    rows = [ROOT, point(step_id="a", epochs=5), point(step_id="b", accuracy=0.9, epochs=1, latency_ms=0.21)]
    points = frame(rows)
    history = hypervolume_history(points, ("accuracy", "latency"), dense_rows(points))
    assert list(history[n.EPOCHS]) == [0, 6]


def test_best_at_drops() -> None:
    points = pd.concat(
        [networks((0.9, 2), (0.895, 4), (0.85, 8)), networks((0.89, 3), family=n.STRUCTURED)], ignore_index=True
    )
    best = best_at_drops(points, DENSE, (0.0, 0.01))
    found = list(zip(best["accuracy_drop"], best[n.FAMILY], best[n.COMPRESSION], strict=True))
    assert found == [(0.0, n.UNSTRUCTURED, 2), (0.01, n.UNSTRUCTURED, 4), (0.01, n.STRUCTURED, 3)]


def test_best_at_drops_where_nothing_keeps_the_accuracy() -> None:
    assert best_at_drops(networks((0.5, 2)), DENSE, (0.0, 0.01)).empty
