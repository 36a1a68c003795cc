"""What is made of searches of two spaces; the searches themselves are ``search``'s."""

from __future__ import annotations

import pandas as pd
import pytest
import yaml

from benchmarks.front import DECLARED, best, drawn, judged, study_of, told
from trainables.records import names as n

POINTS = pd.DataFrame(
    [(n.DENSE, 0.90, 1.0), (n.DENSE, 0.90, 3.8), ("mixed", 0.895, 9.0), ("mixed", 0.85, 17.0), ("mixed", 0.6, 30.0)],
    columns=[n.FAMILY, n.ACCURACY, n.COMPRESSION],
)


def test_a_search_is_judged_at_equal_bytes_and_near_the_dense_network() -> None:
    assert judged(POINTS, 0.5) == {"dense": 0.9, "8x": 0.895, "16x": 0.85, "24x": 0.6, "smallest": 9.0, "hypervolume": 0.5}
    assert best(POINTS, 9.0) == 0.895 and pd.isna(best(POINTS, 31))


def test_differences_are_paired_by_seed() -> None:
    rows = [
        {"space": space, "seed": seed, "epochs": 7, **judged(POINTS, 0.5), "8x": 0.5 + 0.1 * seed + more * (1 + seed)}
        | ({"24x": float("nan")} if seed == 2 else {})
        for space, more in (("old", 0.0), ("new", 0.01))
        for seed in range(3)
    ]
    table = told(pd.DataFrame(rows))
    assert "after 7 epochs, means over 3 seeds; dense 90.00 %" in table
    # The seeds differ by 10 points, the pairs by one: Student's t for three, 4.303, over the root of three.
    assert "| new less old | +2.00 ± 2.48 |" in table
    assert "| old | 60.00 | 85.00 | – |" in table  # a seed has nothing so small


def test_a_figure_has_a_line_a_space_and_the_dense_network() -> None:
    attained = [
        {"space": space, "seed": seed, n.COMPRESSION: x, n.ACCURACY: 0.9 - x / 100}
        for space in ("old", "new")
        for seed in range(2)
        for x in (2, 4, 8)
    ]
    (axes,) = drawn(pd.DataFrame(attained), 0.9).axes
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"old", "new", "dense, fp32"}


@pytest.mark.parametrize("budget", ["digits", "cifar10_subset"])
def test_the_declared_spaces_are_searched_alike(budget: str) -> None:
    declared = yaml.safe_load(DECLARED.read_text())
    studies = {
        space: study_of(declared["budgets"][budget], "x", settings, 1, {}) for space, settings in declared["spaces"].items()
    }
    old, forms, new = studies.values()
    assert list(studies) == ["old", "every form", "new"]
    assert old.search == forms.search == new.search and old.search.trials is None
    assert (old.data, old.model, old.dense, old.retraining) == (new.data, new.model, new.dense, new.retraining)
    assert old.space == forms.space and old.storage_forms == ("fp32",) and forms.storage_forms == new.storage_forms
