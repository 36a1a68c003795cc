"""The driver's own files: what is written once, what it adds up to, and what a crash may leave."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from search.records.ledger import Ledger, drop_torn_line
from tests.search_helpers import DENSE_POINT, point, rows
from trainables.records import names as n
from trainables.records.names import InputError

OBJECTIVES = ("accuracy", "compression")


@pytest.fixture
def ledger(tmp_path: Path) -> Callable[..., Ledger]:
    """A ledger of the same folder each time, with the dense network in it."""

    def make(*objectives: str, drop: float = 0.1) -> Ledger:
        made = Ledger(tmp_path, objectives or OBJECTIVES, drop)
        made.add_dense(DENSE_POINT)
        return made

    return make


def test_front_and_hypervolume_of_a_staircase(ledger: Callable[..., Ledger]) -> None:
    study = ledger()
    assert (study.front, study.hypervolume) == ([], 0.0)
    study.add(point("a", 0.88, 2))  # gains above the reference: .08, 1
    assert study.hypervolume == pytest.approx(0.08)
    study.add(point("b", 0.85, 4))  # .05, 2
    study.add(point("dominated", 0.84, 2))
    study.add(point("below the reference", 0.75, 8))  # -.05, 3: on the front, and worth nothing
    assert set(study.front) == {"a", "b", "below the reference"}
    assert study.hypervolume == pytest.approx(0.08 + 0.05)
    study.add(point("better than both", 0.89, 4))
    assert set(study.front) == {"better than both", "below the reference"}
    assert study.hypervolume == pytest.approx(0.09 * 2)
    assert [row[n.STEP_ID] for row in study.front_rows()] == ["better than both", "below the reference"]


def test_each_family_has_a_front_of_its_own(ledger: Callable[..., Ledger]) -> None:
    study = ledger()
    study.add(point("beats all", 0.89, 8))
    for name, accuracy, compression in (("accurate", 0.88, 2), ("small", 0.85, 4), ("neither", 0.84, 2)):
        study.add(point(name, accuracy, compression, family=n.STRUCTURED))
        study.add(point(name, accuracy, compression, family=n.STRUCTURED, trial=1))
    assert study.front == ["beats all"]
    assert [row[n.STEP_ID] for row in study.family_fronts()] == ["beats all", "accurate", "small"]
    assert study.front_rows() == study.family_fronts()[:1]


def test_three_objectives_make_a_box(ledger: Callable[..., Ledger]) -> None:
    study = ledger("accuracy", "compression", "macs")
    study.add(point("a", 0.85, 4, macs=200))
    assert study.hypervolume == pytest.approx(0.05 * 2 * math.log2(800 / 200))


def test_the_dense_network_competes_and_is_not_listed(ledger: Callable[..., Ledger]) -> None:
    study = ledger()
    study.add(point("larger and worse", 0.89, 0.9))
    study.add(point("no smaller and worse", 0.89, 1.0))
    assert study.front == []
    study.add(point("better", 0.95, 0.9))
    study.add(point("smaller", 0.88, 1.1))
    assert set(study.front) == {"better", "smaller"}
    assert all(row[n.FAMILY] != n.DENSE for row in study.front_rows())


def test_a_point_counts_against_the_dense_network_of_its_own_seed(ledger: Callable[..., Ledger]) -> None:
    study = ledger()
    study.add_dense({**DENSE_POINT, n.STEP_ID: "dense of seed 1", n.SEED: 1, n.ACCURACY: 0.8})
    study.add(point("a", 0.86, 2))  # loses .04
    study.add(point("b", 0.79, 2, seed=1))  # loses .01
    assert study.front == ["b"]
    assert study.hypervolume == pytest.approx(0.09)


def test_shared_steps_are_counted_as_saved(ledger: Callable[..., Ledger]) -> None:
    study = ledger()
    study.add(point("a", step=1, epochs=2, total_epochs=2))
    study.add(point("b", step=2, epochs=2, total_epochs=4))
    study.add(point("a", trial=1, step=1, epochs=0, total_epochs=2, reused=True))
    study.add(point("c", trial=1, step=2, epochs=3, total_epochs=5))
    assert (study.steps_computed, study.steps_found) == (3, 1)
    assert (study.epochs_computed, study.epochs_saved) == (7, 2)
    again = ledger()
    assert (again.epochs_computed, again.epochs_saved, again.steps_found) == (7, 2, 1)


def test_what_a_resumed_trial_reports_again_is_not_written_twice(ledger: Callable[..., Ledger], tmp_path: Path) -> None:
    study = ledger()
    for _ in range(2):
        study.add(point("a"))
        study.add(point("a", trial=1, reused=True, epochs=0))
    again = ledger()
    again.add(point("a", reused=True, epochs=0))
    again.add(point("b", step=2))
    written = rows(tmp_path / n.POINTS_FILE)
    assert [(row[n.TRIAL], row[n.STEP_ID]) for row in written] == [(None, "dense"), (0, "a"), (1, "a"), (0, "b")]
    assert written[1][n.REUSED] is False
    assert all(tuple(row) == n.POINT_COLUMNS for row in written)
    assert (again.points, again.front, again.hypervolume) == ((both := ledger()).points, both.front, both.hypervolume)


def test_trials_are_read_back(ledger: Callable[..., Ledger], tmp_path: Path) -> None:
    study = ledger()
    study.add_trial(0, n.COMPLETE, {"step_ratio": 0.5})
    study.add_trial(1, n.FAILED, {"step_ratio": 0.9}, "it removed nothing")
    assert study.failed == 1
    again = ledger()
    assert again.trials == study.trials == rows(tmp_path / n.TRIALS_FILE)
    assert again.failed == 1


@pytest.mark.parametrize("rest", [b'{"trial": 3, "sta', b"\x00", b'{"trial": 3}'])
def test_a_last_line_that_was_cut_off_is_repaired(rest: bytes, ledger: Callable[..., Ledger], tmp_path: Path) -> None:
    study = ledger()
    study.add(point("a"))
    study.add_trial(0, n.COMPLETE, {})
    whole = {name: (tmp_path / name).read_bytes() for name in (n.POINTS_FILE, n.TRIALS_FILE)}
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content + rest)
    again = ledger()
    assert [row[n.STEP_ID] for row in again.points] == ["dense", "a"]
    assert {name: (tmp_path / name).read_bytes() for name in whole} == whole
    again.add(point("b", trial=1))
    assert [row[n.STEP_ID] for row in rows(tmp_path / n.POINTS_FILE)] == ["dense", "a", "b"]


def test_a_file_of_nothing_but_a_cut_off_line_becomes_empty(tmp_path: Path) -> None:
    file = tmp_path / "file"
    drop_torn_line(file)
    assert not file.exists()
    file.write_bytes(b'{"trial"')
    drop_torn_line(file)
    assert file.read_bytes() == b""


def test_a_damaged_line_is_named(ledger: Callable[..., Ledger], tmp_path: Path) -> None:
    ledger()
    file = tmp_path / n.POINTS_FILE
    file.write_bytes(file.read_bytes() + b"nothing\n")
    with pytest.raises(InputError, match=r"points\.jsonl, line 2: is no valid JSON .*; remove the line"):
        ledger()


def test_columns_measured_at_the_end_are_filled_in(ledger: Callable[..., Ledger], tmp_path: Path) -> None:
    study = ledger()
    study.add(point("a"))
    study.add(point("a", trial=1, reused=True, epochs=0))
    study.rewrite({"a": {n.LATENCY: 1.5}})
    assert [row[n.LATENCY] for row in rows(tmp_path / n.POINTS_FILE)] == [None, 1.5, 1.5]
    assert ledger().points == study.points


def test_growth_is_over_the_last_epochs(ledger: Callable[..., Ledger]) -> None:
    study = ledger()
    assert study.growth(2) == math.inf
    study.add(point("a", 0.85, 2))  # .05 after 1 epoch
    assert study.growth(2) == math.inf
    study.add(point("b", 0.86, 2, **{n.TRIAL: 1}))  # .06 after 2
    study.add(point("c", 0.80, 2, **{n.TRIAL: 2, n.EPOCHS: 2}))  # nothing gained after 4
    assert study.growth(2) == pytest.approx(0.0)
    assert study.growth(3) == pytest.approx(0.2)
    assert study.growth(4) == math.inf
    study.add(point("found", 0.89, 2, **{n.TRIAL: 3, n.EPOCHS: 0, n.REUSED: True}))  # a step that cost nothing is no time
    assert study.growth(2) == pytest.approx(0.0)


def test_growth_survives_a_restart(ledger: Callable[..., Ledger]) -> None:
    study = ledger()
    for i in range(4):
        study.add(point(f"p{i}", 0.85 + 0.01 * (i == 0), 2, **{n.TRIAL: i}))
    assert ledger().growth(2) == study.growth(2) == pytest.approx(0.0)
