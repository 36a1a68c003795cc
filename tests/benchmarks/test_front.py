"""What is made of searches of two spaces; the searches themselves are ``search``'s."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from benchmarks.front import DECLARED, best, drawn, judged, keep, study_of, told, undominated
from trainables.records import names as n

POINTS = pd.DataFrame(
    [
        (n.DENSE, 0.90, 1.0), (n.DENSE, 0.90, 3.8), ("mixed", 0.895, 9.0), ("mixed", 0.89, 8.0), ("mixed", 0.85, 17.0),
        ("mixed", 0.6, 30.0),
    ],
    columns=[n.FAMILY, n.ACCURACY, n.COMPRESSION],
)  # fmt: skip


def found(space: str, seed: int, more: float = 0.0) -> pd.DataFrame:
    """A front as a search leaves it; ``more`` is added to the accuracy at nine times fewer bytes."""
    front = undominated(POINTS).assign(space=space, seed=seed, epochs=7, hypervolume=0.5)
    return front.assign(**{n.ACCURACY: front[n.ACCURACY] + more * (front[n.COMPRESSION] == 9.0)})


def test_of_a_search_the_front_is_kept_and_judged() -> None:
    front = found("old", 0)
    assert front[n.COMPRESSION].tolist() == [3.8, 9.0, 17.0, 30.0]
    (judgement,) = judged(front).to_dict("records")
    assert judgement == {
        "space": "old", "seed": 0, "epochs": 7, "dense": 0.9, "8x": 0.895, "16x": 0.85, "24x": 0.6, "smallest": 9.0,
        "hypervolume": 0.5,
    }  # fmt: skip
    assert best(POINTS, 9.0) == 0.895 and pd.isna(best(POINTS, 31))


def test_seeds_may_be_searched_apart(tmp_path: Path) -> None:
    """What is there of other seeds stays; what is searched again is written anew; half a seed isn't compared."""
    file = tmp_path / "front.csv"
    for space, seed, more in (("old", 0, 0.0), ("new", 0, 0.0), ("old", 1, 0.0), ("new", 0, 0.004)):
        keep(file, found(space, seed, more))
    whole = pd.read_csv(file)
    assert len(whole) == 3 * 4
    table = judged(whole)
    assert table["seed"].tolist() == [0, 0]
    assert dict(zip(table["space"], table["8x"], strict=True)) == {"old": 0.895, "new": 0.899}
    keep(file, found("old", 0).assign(epochs=8))  # of another budget, beside which the others say nothing
    assert pd.read_csv(file)["epochs"].unique().tolist() == [8]


def test_a_point_below_dense_is_within_a_point_whatever_the_last_bit() -> None:
    for images in range(4_500, 5_000):
        dense = images / 5_000
        front = found("old", 0).assign(dense=dense)
        front[n.ACCURACY] = [dense, (images - 50) / 5_000, 0.1, 0.1]
        assert judged(front)["smallest"].item() == 9.0


def test_differences_are_paired_by_seed() -> None:
    fronts = [
        found(space, seed, 0.1 * seed + more * (1 + seed))
        for space, more in (("old", 0.0), ("new", 0.01))
        for seed in range(3)
    ]
    fronts = [front[(front["seed"] < 2) | (front[n.COMPRESSION] < 24)] for front in fronts]
    table = told(judged(pd.concat(fronts)))
    assert "after 7 epochs, means over 3 seeds; dense 90.00 %" in table
    # The seeds differ by 10 points, the pairs by one: Student's t for three, 4.303, over the root of three.
    assert "| new less old | +2.00 ± 2.48 |" in table
    assert "| old | 99.50 | 85.00 | – |" in table  # a seed has nothing so small
    # At 16 times all are alike, which is known to half a point: the smallest step of the accuracies that are there.
    assert "| +2.00 ± 2.48 | +0.00 ± 0.51 |" in table


def test_a_figure_has_a_line_a_space_and_the_dense_network() -> None:
    fronts = pd.concat([found(space, seed) for space in ("old", "new") for seed in range(2)])
    other = found("old", 2).assign(dense=0.5)  # a seed with which one space alone was searched
    (axes,) = drawn(pd.concat([fronts, other])).axes
    assert [float(line.get_ydata()[0]) for line in axes.lines if line.get_linestyle() == ":"] == [pytest.approx(90)]
    assert axes.get_ylim()[1] <= 100
    shorter = fronts[(fronts["seed"] > 0) | (fronts[n.COMPRESSION] < 24)]  # one of the two seeds has nothing so small
    farthest = [drawn(some).axes[0].lines[0].get_xdata()[-1] for some in (fronts, shorter)]
    assert [float(one) for one in farthest] == pytest.approx([29.6, 16.8], abs=0.5)
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
