"""What choosing flatters, against what order statistics say of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from analysis.load import load_study
from analysis.optimism import flattery, of_front
from tests.made_up import dense, point, write_study
from trainables.records import names as n


def test_the_best_of_many_alike_is_flattered_by_what_the_largest_of_so_many_errors_is() -> None:
    # The largest of 5 standard normal values is 1.163 on average, and of 1 it is 0.
    chosen = flattery(np.full(5, 0.9), np.full(5, 0.01), lambda gained: np.array([gained.argmax()]))
    assert chosen == pytest.approx(0.01163, rel=0.1)
    alone = flattery(np.array([0.9]), np.array([0.01]), lambda _: np.array([0]))
    assert abs(alone) < 3 * 0.01 / np.sqrt(200)


def test_one_that_is_far_better_than_all_others_is_not_flattered() -> None:
    values = np.array([0.9, 0.5, 0.5, 0.5])
    assert abs(flattery(values, np.full(4, 0.01), lambda gained: np.array([gained.argmax()]))) < 0.003


def test_the_front_is_flattered_the_more_the_fewer_the_images(tmp_path: Path) -> None:
    rows = [point(step_id=f"p{i}", accuracy=0.95, compression=4 + 0.01 * i) for i in range(12)]
    folder, found = write_study(tmp_path, [dense(), *rows]), []
    for images in (100, 10_000):
        (folder / n.PROVENANCE_FILE).write_text(json.dumps({"data": {"validation_images": images}}))
        found.append(of_front(load_study(folder)))
    assert found[0] is not None and found[1] is not None and found[0] > 5 * found[1] > 0
    (folder / n.PROVENANCE_FILE).write_text("{}")
    assert of_front(load_study(folder)) is None
