"""The comparison of a sweep: its statistics in closed form, and answers that change when the numbers do."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.container import ErrorbarContainer

import trainables.records.names as n
from analysis.__main__ import main
from analysis.comparison import curves
from analysis.comparison.columns import CHANGE, LEVEL, TEST, VALIDATION
from analysis.comparison.confirmation import Confirmation, compare, factor_sentence, winner_sentence
from analysis.comparison.figures import families_figure, structured_figure
from analysis.comparison.questions import iterative, one_shot, scratch
from analysis.comparison.questions.ranking import balanced, complete, lost
from analysis.comparison.questions.selection import marginal, select
from analysis.comparison.report import QUESTIONS, write_comparison
from analysis.comparison.sentences import Answer, cell, evidence, joined, levels, probability, signed
from analysis.comparison.statistics import (
    HIGHER,
    LOWER,
    TIE,
    UNDECIDED,
    VERDICT,
    band,
    estimate,
    estimates,
    holm,
    judged,
    step_of,
)  # fmt: skip
from analysis.comparison.summary import RULES, facts, split_note
from analysis.comparison.sweep import Sweep as Loaded
from analysis.comparison.sweep import load_sweep
from analysis.confirmed import load_confirmed
from analysis.load import load_study
from analysis.words import MISSING
from tests.made_up import CHANNELS, LEVELS, MATCHED, Sweep, confirmed, dense, first_hour, point, sweep_study
from trainables.training.loop import DenseSettings, dense_schedule

HOSTILE = "<script>alert(1)</script>|$\\frac{$ [x](javascript:y) *b*"
Row = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = sweep_study(tmp_path_factory.mktemp("results") / "comparison")
    write_comparison(load_study(study))
    return study


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., Answer]:
    """One question's answer to a sweep, or to some rows of it."""

    def answer(question: str, sweep: Sweep | None = None, rows: Sequence[Row] | None = None) -> Answer:
        return QUESTIONS[question].answer(loaded(tmp_path, sweep, rows))

    return answer


def loaded(path: Path, sweep: Sweep | None = None, rows: Sequence[Row] | None = None) -> Loaded:
    return load_sweep(load_study(sweep_study(path, sweep, rows)))


# Statistics.


def test_an_interval_is_students() -> None:
    found = estimate([1.0, 2.0, 3.0])
    half = 4.302652729911275 / np.sqrt(3)
    assert found.mean == 2 and found.n == 3
    assert found.low == pytest.approx(2 - half) and found.high == pytest.approx(2 + half)
    # With two degrees of freedom the distribution has a closed form: P(|T| > t) = 1 - t / sqrt(2 + t²).
    t = 2 * np.sqrt(3)
    assert found.p == pytest.approx(1 - t / np.sqrt(2 + t * t))


def test_an_interval_needs_two_values() -> None:
    assert estimate([0.5]).mean == 0.5 and np.isnan([estimate([0.5]).low, estimate([0.5]).p]).all()
    assert np.isnan(estimate([]).mean) and estimate([]).n == 0


def test_differences_that_happen_to_be_alike_are_not_certain() -> None:
    # Accuracies are counts of images: of 200, a difference of one image on three seeds is no finding, and one of 20 is.
    one, many = estimate([0.005] * 3, 1 / 200), estimate([0.1] * 3, 1 / 200)
    assert one.low < 0 < one.high and one.p > 0.05 and 0 < many.p < 0.01
    # The error of rounding is uniform: variance step² / 12, twice in a difference, divided by the seeds.
    assert many.high - many.mean == pytest.approx(4.302652729911275 * np.sqrt(2 / 12 / 3) / 200)
    unknown = estimate([0.1, 0.1, 0.1])
    assert np.isnan([unknown.low, unknown.p]).all() and estimate([0.0, 0.0, 0.0]).p == 1
    assert judged(pd.DataFrame([unknown._asdict()]))[VERDICT][0] == UNDECIDED
    # Doubt is added only where there is less than that of one image.
    assert estimate([0.1, 0.2, 0.3], 1 / 200) == estimate([0.1, 0.2, 0.3])


def test_the_step_is_one_image() -> None:
    assert step_of(pd.Series([0.91, 0.912, 0.9122]), pd.Series([0.91, np.nan])) == pytest.approx(0.0002)
    assert step_of(pd.Series([0.91, 0.91])) == 0


def test_alike_differences_of_a_sweep_are_a_tie(ask: Callable[..., Answer]) -> None:
    def counted(row: Row) -> float:
        # 50 validation images: a chain's network always has one more right than its match.
        return 0.9 + 0.02 * (row[n.STEPS] is not None and row[n.STEPS] > 1 and row[n.STEP] > 1)

    rows = [row | {n.ACCURACY: counted(row)} for row in Sweep(seeds=(0, 1, 2), fresh=()).rows()]
    found = ask("iterative", rows=rows).findings["by_level"]
    assert found["mean"].round(9).eq(0.02).all() and found["p"].gt(0.01).all() and found[VERDICT].eq(TIE).all()


def test_holm_in_closed_form() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == pytest.approx([0.02]) and len(holm([])) == 0
    # Adjusting never changes the order, and never makes a p smaller.
    p = np.random.default_rng(0).uniform(size=20)
    assert (holm(p) >= p).all() and (np.diff(holm(p)[np.argsort(p)]) >= 0).all()


def test_a_band_is_the_range_of_few_values() -> None:
    assert band([1.0, 4.0]) == (1.0, 4.0) and band([3.0]) == (3.0, 3.0)
    assert band([1.0, 2.0, 3.0]) == pytest.approx((estimate([1.0, 2.0, 3.0]).low, estimate([1.0, 2.0, 3.0]).high))


def test_n_is_a_number_of_seeds() -> None:
    rows = pd.DataFrame({"seed": [0, 0, 1, 1], "value": [1.0, 3.0, 4.0, 4.0], "kind": "a"})
    found = estimates(rows, ["kind"], "value", "seed").iloc[0]
    assert found["n"] == 2 and found["mean"] == 3


def test_verdicts_are_of_the_corrected_p() -> None:
    frame = pd.DataFrame([estimate(values)._asdict() for values in ([1.0, 1.1, 1.2], [1.0, 1.6, 2.9], [-5.0, -5.1])])
    assert list(judged(frame)[VERDICT]) == [HIGHER, TIE, UNDECIDED]
    # Alone, 0.023 would be a finding; beside four others it is a tie.
    one = pd.DataFrame([estimate([0.8, 1.0, 1.4])._asdict()])
    other = pd.DataFrame([estimate([-1.0, 1.0, 0.1])._asdict()] * 4)
    assert judged(one)[VERDICT][0] == HIGHER and judged(pd.concat([one, other], ignore_index=True))[VERDICT][0] == TIE
    assert judged(-1 * one.assign(n=-3, p=-0.01))[VERDICT][0] == LOWER


def test_complete_keeps_what_every_seed_has() -> None:
    rows = pd.DataFrame({n.SEED: [0, 0, 1, 1, 2], LEVEL: [0.1, 0.2, 0.1, 0.2, 0.2]})
    assert set(complete(rows)[LEVEL]) == {0.2} and set(complete(rows)[n.SEED]) == {0, 1, 2}
    assert lost(rows, complete(rows)) == "10% (on 2 of 3 seeds)" and lost(rows, rows) == ""


def recipes(**seeds: Sequence[int]) -> pd.DataFrame:
    """Recipes that ran at two levels on these seeds."""
    cells = [(recipe, seed, level) for recipe, own in seeds.items() for seed in own for level in (0.1, 0.2)]
    rows = pd.DataFrame(cells, columns=["recipe", n.SEED, LEVEL])
    return rows.assign(label=rows["recipe"], **{n.IMPORTANCE: "taylor"})


def test_incomplete_recipes_take_no_seeds_from_the_others() -> None:
    rows = recipes(a=(0, 1, 2), b=(0, 1, 2), c=(0, 1), d=(0, 1), e=(0, 1), f=(1,))
    kept, incomplete = balanced(rows)
    assert set(kept["recipe"]) == {"a", "b"} and set(kept[n.SEED]) == {0, 1, 2} and incomplete == ["c", "d", "e", "f"]
    # One alone compares nothing: then its last seed goes, and that is said.
    kept, incomplete = balanced(rows[rows["recipe"] != "b"])
    assert set(kept["recipe"]) == {"a", "c", "d", "e"} and lost(rows, kept) == "seed 2 (not at every level)"


def test_what_is_compared_is_a_full_grid() -> None:
    rows = recipes(a=(0, 1, 2), b=(0, 1, 2), c=(0, 1, 2))
    ragged = rows[~((rows[n.SEED] == 2) & (rows[LEVEL] == 0.2))]
    kept = balanced(ragged)[0]
    assert set(kept.groupby("recipe").size()) == {len(set(kept[n.SEED])) * len(set(kept[LEVEL]))}
    crossed = pd.DataFrame({"recipe": "a", "label": "a", n.IMPORTANCE: "b", n.SEED: [0, 1], LEVEL: [0.1, 0.2]})
    assert len(balanced(crossed)[0]) == 1


def test_numbers_in_sentences() -> None:
    assert signed(-0.0042) == "−0.42" and signed(0.0) == "0.00" and signed(-1e-9) == "0.00" and signed(0.01) == "+1.00"
    assert joined(["a"]) == "a" and joined(["a", "b", "c"]) == "a, b and c" and joined([]) == ""
    assert levels([0.95, 0.5, 0.5]) == "50 and 95%"
    row = estimate([0.01, 0.02, 0.03])._asdict()
    assert evidence(row) == "+2.00 points (95% interval −0.48 to +4.48, n = 3 seeds)"
    assert evidence(estimate([0.01])._asdict()) == "+1.00 points (n = 1 seed)"
    assert cell(row) == "+2.00 ± 2.48"


# Curves.


def curve(*pairs: tuple[float, float]) -> curves.Curve:
    factors, changes = zip(*pairs, strict=True)
    return np.log2(np.array(factors)), np.array(changes)


def test_curves_are_straight_between_doublings() -> None:
    falling, flat = curve((1, 0.0), (4, -0.02)), curve((1, -0.01), (4, -0.01))
    assert curves.difference(falling, flat, np.array([1.0])) == pytest.approx([0.0])
    assert curves.mean_difference(falling, flat, 0.0, 2.0) == pytest.approx(0.0)
    (crossing,) = curves.crossings(7, falling, flat)
    assert crossing == (7, pytest.approx(1), pytest.approx(4), pytest.approx(2))


def test_curves_that_only_touch_do_not_cross() -> None:
    falling = curve((1, 0.0), (2, -0.01), (4, 0.0))
    assert curves.crossings(0, falling, curve((1, -0.01), (4, -0.01))) == []
    assert curves.crossings(0, falling, curve((1, -0.02), (4, -0.02))) == []


def test_only_what_both_cover_is_common() -> None:
    short, long = (
        {0: curve((1.2, 0), (4, 0)), 1: curve((1.3, 0), (3, 0))},
        {0: curve((1.1, 0), (9, 0)), 1: curve((1.1, 0), (9, 0))},
    )
    assert curves.common_range(short, long) == pytest.approx((np.log2(1.3), np.log2(3)))
    assert curves.common_range(short, {0: curve((5, 0), (9, 0))}) is None
    assert curves.common_range(short, {2: curve((1.2, 0), (4, 0))}) is None


def test_bytes_of_equal_size_are_one_place(tmp_path: Path) -> None:
    study = load_study(sweep_study(tmp_path, Sweep(noise=0)))
    sweep = load_sweep(study)
    found = curves.curves(sweep.iterative, sweep.dense, curves.AXES[n.MACS])
    assert all(len(x) == 1 and x[0] == 0 for x, _ in found.values()) and not curves.moves(found)


# Question 1.


def test_the_bend_is_found(ask: Callable[..., Answer]) -> None:
    answer = ask("one_shot", Sweep(noise=0.0001))
    bend = answer.findings["bend"].set_index(n.RETRAIN)["within_one_point"]
    assert bend["fine_tune"] == 0.8 and bend["lr_rewind"] == 0.8
    assert "up to 80% of the weights" in answer.paragraph and not answer.missing
    assert "within a point of dense, its interval included" in answer.headline
    gentle = ask("one_shot", Sweep(weight_cost=0.0001))
    assert "the curve has not bent yet" in gentle.paragraph
    harsh = ask("one_shot", Sweep(weight_cost=0.2))
    assert "already at the lowest level tried, 20%" in harsh.paragraph
    assert harsh.headline.startswith(
        "Pruned in one shot, no level is shown to stay within a point of dense with 2 epochs of "
    )
    assert "by the mean alone" not in harsh.paragraph


def test_a_mean_within_a_point_is_not_enough(ask: Callable[..., Answer]) -> None:
    answer = ask("one_shot", Sweep(noise=0.004))
    cost = answer.findings["cost"]
    for row in answer.findings["bend"].to_dict("records"):
        line = cost[cost[n.RETRAIN].eq(row[n.RETRAIN]) & cost[n.IMPORTANCE].ne("random")].set_index(LEVEL)
        reached, mean = row["within_one_point"], row["mean_within_one_point"]
        assert mean > (reached if pd.notna(reached) else 0)
        assert line.loc[mean, "mean"] >= -0.01 > line.loc[line.index <= mean, "low"].min()
        change = signed(line.loc[mean, "mean"])
        told = f"; by the mean alone, {100 * mean:g}% of the weights can go within a point ({change} points)"
        assert told in answer.paragraph


def test_the_cut_alone_is_told_beside_what_retraining_makes_of_it(ask: Callable[..., Answer]) -> None:
    rows = Sweep().rows()
    base = {row[n.SEED]: row[n.ACCURACY] for row in rows if row[n.FAMILY] == n.DENSE}
    for row in rows:  # the cut costs little up to 40% and much beyond; retrained, a point and a half at every level
        if row[n.FAMILY] == n.UNSTRUCTURED:
            noise = 0.0004 * (row[n.SEED] - 1)
            row[n.ACCURACY] = base[row[n.SEED]] - 0.015 + noise
            row[n.ACCURACY_BEFORE] = base[row[n.SEED]] - (0.002 if row[n.REQUESTED_SPARSITY] <= 0.4 else 0.3) - noise
    answer = ask("one_shot", rows=rows)
    assert (
        "Without any retraining (validation), one-shot magnitude pruning stays within a point up to 40%" in answer.paragraph
    )
    assert answer.headline.startswith("Pruned in one shot, no level is shown to stay within a point of dense with 2 epochs")
    assert answer.headline.endswith("; not retrained, 40% can (validation).")
    [told] = [text for text in answer.details if "fine-tuning after magnitude pruning" in text]
    assert "raises accuracy at 50, 60, 70, 80, 90, 95 and 98% and lowers it at 20, 30 and 40% (validation)" in told
    one = [row for row in rows if row[n.SEED] == 0]
    assert any("adds to the cut alone is open" in text for text in ask("one_shot", rows=one).details)


def test_one_seed_is_no_cost(ask: Callable[..., Answer]) -> None:
    rows = [row for row in Sweep().rows() if row[n.SEED] == 0]
    answer = ask("one_shot", rows=rows)
    assert answer.headline == "Pruned in one shot: nothing is concluded from n = 1 seed (3 are needed)."
    assert "within a point" not in " ".join([answer.paragraph, *answer.details])
    families = ask("families", rows=rows)
    assert not any("reaches" in text for text in families.details)
    assert any("is open: nothing is concluded from n = 1 seed" in text for text in families.details)


def test_seeds_that_are_behind_are_named(ask: Callable[..., Answer]) -> None:
    rows = [row for row in Sweep().rows() if row[n.SEED] != 2 or row[n.REQUESTED_SPARSITY] != 0.9]
    missing = ask("one_shot", rows=rows).missing
    assert any("magnitude with fine-tuning" in text and text.endswith("90% on 2 of 3 seeds") for text in missing)


def test_matches_for_the_chain_are_no_part_of_the_cost(ask: Callable[..., Answer]) -> None:
    cost = ask("one_shot").findings["cost"]
    assert set(cost[n.TOTAL_EPOCHS]) == {2.0} and len(cost) == 3 * len(LEVELS)


def test_the_control_is_told_apart_or_not(ask: Callable[..., Answer]) -> None:
    assert any("keeps more than random importance" in text for text in ask("one_shot").details)
    rows = [row | ({n.ACCURACY: 0.9} if row[n.IMPORTANCE] else {}) for row in Sweep().rows()]
    assert any("is a tie with random importance" in text for text in ask("one_shot", rows=rows).details)


def test_the_control_is_told_at_every_level(ask: Callable[..., Answer]) -> None:
    rows = Sweep(noise=0.0001).rows()
    for row in rows:
        if row[n.IMPORTANCE] == "random" and row[n.REQUESTED_SPARSITY] == 0.98:
            row[n.ACCURACY] = 0.9
    told = [text for text in ask("one_shot", rows=rows).details if text.startswith("Control: ")]
    assert "keeps more than random importance at" in told[0] and "and keeps less than it at 98%" in told[0]
    assert told[1] == "Control: magnitude with learning-rate rewinding has no random importance to be put beside."


def test_a_longer_retraining_that_goes_farther_is_told(ask: Callable[..., Answer]) -> None:
    rows = Sweep(noise=0.0001).rows()
    base = {row[n.SEED]: row[n.ACCURACY] for row in rows if row[n.FAMILY] == n.DENSE}
    for row in rows:
        long = row[n.FAMILY] == n.UNSTRUCTURED and row[n.STEPS] == 1 and row[n.FINE_TUNE_EPOCHS] > 2
        if long and row[n.IMPORTANCE] == "magnitude" and row[n.REQUESTED_SPARSITY] <= 0.9:
            row[n.ACCURACY] = base[row[n.SEED]] - 0.005 - 0.0001 * row[n.SEED]
    answer = ask("one_shot", rows=rows)
    assert "80% of the weights can go within a point" in answer.headline
    both = "; with 16 epochs of fine-tuning or 16 epochs of learning-rate rewinding, 90% can"
    assert both in answer.headline
    short = [row for row in rows if not (row[n.STEPS] == 1 and row[n.FINE_TUNE_EPOCHS] == 16)]
    assert "90%" not in ask("one_shot", rows=short).headline
    # Where no chain has as many epochs there, it is not what a chain is compared with.
    assert "90%" not in ask("one_shot", rows=[row for row in rows if row[n.STEP] != 8 or row[n.STEPS] == 1]).headline
    told = [text for text in answer.details if text.startswith("With as many epochs as a chain (50, 80, 90 and 95% were")]
    assert len(told) == 2 and all("within a point at 90%, after 16 epochs" in text for text in told)


def test_a_p_value_of_no_difference_stands_beside_no_other_bound(ask: Callable[..., Answer]) -> None:
    answer = ask("one_shot")
    assert "interval" in answer.headline and "adjusted p" not in answer.headline + answer.paragraph


def test_a_line_that_validation_puts_first_and_that_fails_is_told_so(tmp_path: Path) -> None:
    folder = sweep_study(tmp_path, Sweep(noise=0.0001))
    rows = [json.loads(line) for line in (folder / n.POINTS_FILE).read_text().splitlines()]
    tested = [row | {n.TEST_ACCURACY: row[n.ACCURACY] - 0.05 * (row[n.RETRAIN] == "lr_rewind")} for row in rows]
    (folder / n.CONFIRMED_FILE).write_text("".join(json.dumps(row) + "\n" for row in tested))
    headline = one_shot.answer(load_sweep(load_study(folder))).headline
    assert (
        "no level is shown to stay within a point of dense with 2 epochs of learning-rate rewinding, which goes" in headline
    )
    assert "farthest on validation data; with 2 epochs of fine-tuning, 80% can" in headline


# Question 2.


@pytest.mark.parametrize(
    "share, headline",
    [(0.5, "iterative pruning keeps more"), (-0.5, "one-shot pruning keeps more"), (0.0, "are a tie")],
    ids=["iterative wins", "one-shot wins", "tie"],
)
def test_iterative_against_one_shot(ask: Callable[..., Answer], share: float, headline: str) -> None:
    answer = ask("iterative", Sweep(iterative=share, noise=0.0002 if share else Sweep().noise))
    assert headline in answer.paragraph and headline in answer.headline
    assert "with fine-tuning and learning-rate rewinding alike" in answer.paragraph
    assert "Averaged over 50, 80, 90 and 95%" in answer.paragraph and "n = 3 seeds" in answer.paragraph


def test_a_mean_over_levels_at_which_both_win_is_no_tie(ask: Callable[..., Answer]) -> None:
    rows = Sweep(iterative=0, noise=0.0001).rows()
    for row in rows:
        if row[n.FAMILY] == n.UNSTRUCTURED and row[n.STEP] > 1 and row[n.RETRAIN] == "fine_tune":
            row[n.ACCURACY] += {0.5: -0.01, 0.8: -0.01, 0.9: -0.01, 0.95: 0.03}.get(row[n.REQUESTED_SPARSITY], 0.0)
    answer = ask("iterative", rows=rows)
    assert (
        dict(zip(answer.findings["pooled"][n.RETRAIN], answer.findings["pooled"][VERDICT], strict=True))["fine_tune"] == TIE
    )
    told = "keeps more depends on the sparsity with fine-tuning (one-shot at 50, 80 and 90%, iterative at 95%)"
    assert told in answer.headline and told in answer.paragraph
    assert "a tie with learning-rate rewinding" in answer.headline
    for row in rows:  # a win at one level only is no reversal, and no plain tie either
        if row[n.FAMILY] == n.UNSTRUCTURED and row[n.STEP] > 1 and row[n.RETRAIN] == "fine_tune":
            row[n.ACCURACY] += {0.5: 0.02, 0.8: 0.01, 0.9: 0.01, 0.95: -0.03}.get(row[n.REQUESTED_SPARSITY], 0.0)
            row[n.ACCURACY] += (row[n.SEED] - 1) * 0.01 * (row[n.REQUESTED_SPARSITY] > 0.5)
    assert "are a tie on average with fine-tuning (iterative at 50%, a tie at 80, 90 and 95%)" in (
        ask("iterative", rows=rows).headline
    )


def test_a_mean_that_one_level_makes_is_told_with_its_levels(ask: Callable[..., Answer]) -> None:
    rows = Sweep(iterative=0, noise=0.0001).rows()
    for row in rows:
        if row[n.FAMILY] == n.UNSTRUCTURED and row[n.STEP] > 1 and row[n.RETRAIN] == "fine_tune":
            row[n.ACCURACY] += 0.05 * (row[n.REQUESTED_SPARSITY] == 0.95)
    told = "iterative pruning keeps more accuracy than one-shot on average with fine-tuning (iterative at 95%, a tie at 50"
    assert told in ask("iterative", rows=rows).headline
    for row in rows:  # and if another level says the opposite, it is no mean at all
        if row[n.FAMILY] == n.UNSTRUCTURED and row[n.STEP] > 1 and row[n.RETRAIN] == "fine_tune":
            row[n.ACCURACY] += 0.0108 * (row[n.SEED] - 1) * (row[n.REQUESTED_SPARSITY] == 0.95)
            row[n.ACCURACY] -= 0.004 * (row[n.REQUESTED_SPARSITY] == 0.5)
    answer = ask("iterative", rows=rows)
    assert "depends on the sparsity with fine-tuning (one-shot at 50%" in answer.headline


def test_what_longer_training_is_worth_is_told_without_the_steps(ask: Callable[..., Answer]) -> None:
    rows = Sweep(noise=0.0001).rows()
    answer = ask("iterative", rows=rows)
    [told] = [text for text in answer.details if text.startswith("What longer training is worth")]
    at = {
        epochs: np.mean([row[n.ACCURACY] for row in rows if _is_cut(row) and row[n.FINE_TUNE_EPOCHS] == epochs])
        for epochs in (2, 18)
    }
    assert f"less one-shot with those of one step is {signed(at[18] - at[2])} points (95% interval" in told
    assert "adjusted p" not in told and any(
        "which" not in text and "it begins at, is worth" in text for text in answer.details
    )


def _is_cut(row: Row) -> bool:
    """Whether it is a fine-tuned one-shot network at 95%."""
    of = (row[n.STEPS], row[n.IMPORTANCE], row[n.RETRAIN], row[n.REQUESTED_SPARSITY])
    return bool(row[n.FAMILY] == n.UNSTRUCTURED and of == (1, "magnitude", "fine_tune", 0.95))


def test_a_retraining_that_is_better_at_some_levels_is_told_so(ask: Callable[..., Answer]) -> None:
    rows = Sweep(rewinding=0, noise=0.0001).rows()
    for row in rows:
        if row[n.FAMILY] == n.UNSTRUCTURED and row[n.RETRAIN] == "lr_rewind" and row[n.STEPS] == 1:
            row[n.ACCURACY] += 0.004 if row[n.REQUESTED_SPARSITY] < 0.85 else -0.05
    answer = ask("iterative", rows=rows)
    [told] = [text for text in answer.details if text.startswith("One-shot (magnitude, 2 epochs)")]
    assert "depends on the sparsity (learning-rate rewinding at 20, 30, 40, 50, 60, 70 and 80%, fine-tuning at 90" in told
    assert "depends on the number of epochs" not in " ".join(answer.details)
    table = table_of(answer, "How to retrain: differences within seeds, in points; at each level")
    column = "one-shot (magnitude, 2 epochs): learning-rate rewinding less fine-tuning"
    assert table.loc[table["removed"] == "20%", column].item().endswith("higher")
    assert table.loc[table["removed"] == "90%", column].item().endswith("lower")


def test_only_equal_epochs_are_pairs_and_a_network_is_no_pair_of_itself(tmp_path: Path) -> None:
    sweep = loaded(tmp_path)
    pairs, shared = iterative.matched(sweep.iterative, sweep.one_shot)
    assert set(pairs[LEVEL]) == set(MATCHED) and shared == [LEVELS[0]]
    assert len(pairs) == len(MATCHED) * 2 * 3
    assert set(pairs[n.TOTAL_EPOCHS]) == {8.0, 14.0, 16.0, 18.0}


def test_the_retrainings_are_compared(ask: Callable[..., Answer]) -> None:
    assert any("learning-rate rewinding keeps more than fine-tuning" in text for text in ask("iterative").details)
    worse = ask("iterative", Sweep(rewinding=-0.5))
    assert any("fine-tuning keeps more than learning-rate rewinding" in text for text in worse.details)
    same = ask("iterative", Sweep(rewinding=0, noise=0.004))
    assert any("learning-rate rewinding and fine-tuning are a tie" in text for text in same.details)


def test_the_retrainings_are_compared_at_each_budget(ask: Callable[..., Answer]) -> None:
    # With the epochs of one step rewinding loses, with those of a chain it wins.
    rows = Sweep(noise=0.0001).rows()
    for row in rows:
        if row[n.FAMILY] == n.UNSTRUCTURED and row[n.RETRAIN] == "lr_rewind" and row[n.STEPS] == 1:
            row[n.ACCURACY] += 0.05 if row[n.FINE_TUNE_EPOCHS] > 2 else -0.1
    details = " ".join(ask("iterative", rows=rows).details)
    assert re.search(r"One-shot \(magnitude, 2 epochs\).*?: fine-tuning keeps more", details)
    assert re.search(
        r"with the chain's epochs \(magnitude, 8 to 18 epochs\), averaged over 50, 80, 90 and 95%: learn", details
    )
    assert "depends on the number of epochs" in details
    assert not any("depends on the number" in text for text in ask("iterative").details)


def test_levels_that_lack_seeds_are_named_and_conclude_nothing(ask: Callable[..., Answer]) -> None:
    def there(row: Row) -> bool:
        return row[n.FAMILY] != n.UNSTRUCTURED or row[n.STEPS] == 1 or row[n.SEED] not in (1, 2) or row[n.STEP] <= 5

    answer = ask("iterative", rows=[row for row in Sweep().rows() if there(row)])
    assert "At the same sparsity (50%)" in answer.headline
    assert any("average of matched pairs" in text and "80, 90 and 95% (on 1 of 3 seeds)" in text for text in answer.missing)
    assert any("open at 80, 90 and 95%" in text for text in answer.details)
    quoted = [text for text in answer.details if text.startswith("What longer training")]
    assert quoted and all("at 50%" in text for text in quoted)
    assert "n = 1" not in answer.paragraph and all("n = 1 seed)" not in text for text in answer.details)


def test_two_seeds_conclude_nothing(ask: Callable[..., Answer]) -> None:
    answer = ask("iterative", Sweep(seeds=(0, 1)))
    assert "nothing is concluded yet" in answer.paragraph and "n = 2 seeds" in answer.paragraph


@pytest.mark.parametrize("question", ["one_shot", "iterative"])
def test_a_cell_of_fewer_seeds_than_its_row_says_so(ask: Callable[..., Answer], question: str) -> None:
    sweep = Sweep()
    assert not any("(n = " in cell for cell in ask(question, sweep).tables[0].rows.astype(str).to_numpy().ravel())
    more = [row for row in Sweep(seeds=sweep.fresh, fresh=()).rows() if row[n.FAMILY] == n.UNSTRUCTURED]
    rows = [*sweep.rows(), *(row for row in more if row[n.IMPORTANCE] == "magnitude")]
    table = ask(question, rows=rows).tables[0].rows
    control = [column for column in table if column.startswith("random") and "not retrained" not in column]
    assert set(table["seeds"]) == {"8"} and len(control) == 1
    assert all(cell.endswith("(n = 3)") for cell in table[control[0]] if cell != MISSING)
    own = [column for column in table if column.endswith("change") and not column.startswith("random")]
    assert own and not any("(n = " in cell for cell in table[own].to_numpy().ravel())


# Question 3.


def test_one_recipe_wins(ask: Callable[..., Answer]) -> None:
    answer = ask("structured")
    assert answer.findings["best"] == ["taylor + base"] and "taylor + base suits this network best" in answer.paragraph
    assert "Best importance: taylor" in answer.paragraph and "Best pruner: base" in answer.paragraph
    assert "n = 5 seeds" in answer.paragraph and "seeds 10, 11, 12, 13 and 14" in answer.paragraph


def test_another_recipe_wins(ask: Callable[..., Answer]) -> None:
    pruners = {"base": 1.3, "group_norm": 1.25, "growing_reg": 0.8}
    answer = ask("structured", Sweep(pruners=pruners))
    assert answer.findings["best"] == ["taylor + growing_reg"] and "Best pruner: growing_reg" in answer.paragraph
    assert any("growing_reg is the best pruner" in text for text in answer.details)


def test_all_finalists_tie(ask: Callable[..., Answer]) -> None:
    even = Sweep(scores=dict.fromkeys(Sweep().scores, 1.0), pruners=dict.fromkeys(Sweep().pruners, 1.0), noise=0.003)
    answer = ask("structured", even)
    assert len(answer.findings["best"]) == 3 and "are a tie" in answer.paragraph
    assert "Best importance: a tie of" in answer.paragraph and "Best pruner: a tie of" in answer.paragraph
    assert "no evidence that the answer changes with the ratio" in answer.paragraph
    assert any("not show that scores matter" in text for text in answer.details)
    assert answer.headline.startswith(
        "Of 3 finalists (the first of 12 structured recipes at selection), run again on fresh"
    )
    assert answer.headline.endswith("are a tie; none of them is shown to keep more than random importance.")
    assert ask("structured").headline.endswith("; random importance keeps less.")


def finals(**means: Sequence[float]) -> Confirmation:
    """Finalists with these mean changes on seeds 10, 11 …, at one level."""
    cells = [(recipe, 10 + i, change) for recipe, own in means.items() for i, change in enumerate(own)]
    rows = pd.DataFrame(cells, columns=["recipe", n.SEED, CHANGE])
    rows = rows.assign(**{"label": rows["recipe"], n.IMPORTANCE: rows["recipe"], n.PRUNER: "base", LEVEL: 0.5})
    found = compare(rows.assign(**{n.TOTAL_EPOCHS: 10}))
    assert found is not None
    return found


def test_a_tie_is_told_by_what_ties() -> None:
    # The second is behind beyond the noise, the third, further behind, is not told from the first.
    found = finals(a=(0.01, 0.02, 0.03, 0.04), b=(0.007, 0.0172, 0.0268, 0.0372), c=(0.02, -0.01, 0.02, 0.05))
    told = winner_sentence(found)
    assert "a and c are a tie: a is first" in told and "but a less c is" in told and told.endswith("B keeps less.")
    assert factor_sentence(found, n.IMPORTANCE, "importance") == "Best importance: a tie of a and c."


def test_what_ties_with_the_best_need_not_tie_with_each_other() -> None:
    found = finals(a=(0.05, 0.0, 0.04, -0.01), b=(0.01, 0.02, 0.01, 0.02), c=(0.0, 0.0101, 0.0, 0.0099))
    assert "a is a tie with each of b and c (though b keeps more than c): a is first" in winner_sentence(found)


@pytest.mark.parametrize("adjusted, told", [(0.0497, "0.0497"), (0.0503, "0.05"), (0.05, "0.05"), (0.012, "0.012")])
def test_a_printed_p_is_on_its_side_of_the_threshold(adjusted: float, told: str) -> None:
    assert probability(adjusted) == f"adjusted p = {told}"


def test_a_tie_that_only_the_correction_makes_is_called_that() -> None:
    row = estimate([0.01, 0.02, 0.03, 0.04])._asdict()
    assert cell(row | {VERDICT: TIE}) == "+2.50 ± 2.05, tie after correction"
    assert cell(estimate([-0.01, 0.02, 0.03])._asdict() | {VERDICT: TIE}).endswith(", tie")


def test_the_best_value_is_corrected_for_all_pairs(tmp_path: Path) -> None:
    chosen = select(loaded(tmp_path))
    assert chosen is not None
    found = marginal(chosen, n.PRUNER, n.IMPORTANCE)
    pruners = len(set(chosen.rows[~chosen.rows[n.IMPORTANCE].eq("random")][n.PRUNER]))
    assert len(found) == pruners - 1 and set(found["one"]) == {"base"}
    pairs = pruners * (pruners - 1) // 2
    assert found["adjusted_p"].min() == pytest.approx(pairs * found["p"].min())


def test_a_difference_that_only_grows_does_not_change_the_answer(ask: Callable[..., Answer]) -> None:
    # At 10% the first two are a tie and the other is ahead in the mean; beyond it one leaves the other behind.
    scores = {**Sweep().scores, "lamp": 1.0001, "taylor": 1.0}
    paragraph = ask("structured", Sweep(scores=scores, turning={"lamp": -0.6}, noise=0.0008)).paragraph
    assert "The answer depends" not in paragraph


def test_the_answer_depends_on_the_ratio(ask: Callable[..., Answer]) -> None:
    scores = {**Sweep().scores, "lamp": 0.8}
    answer = ask("structured", Sweep(scores=scores, turning={"lamp": 0.8}, noise=0.0002))
    assert "The answer depends on the ratio" in answer.paragraph
    assert "lamp + base at" in answer.paragraph and "taylor + base at" in answer.paragraph


def test_finalists_behind_the_first_may_change_places(ask: Callable[..., Answer]) -> None:
    turning = Sweep(scores={**Sweep().scores, "taylor": 0.3, "fpgm": 0.9}, turning={"lamp": 0.5}, noise=0.0002)
    finalists = (("taylor", "base"), ("lamp", "base"), ("fpgm", "base"), ("random", "base"))
    paragraph = ask("structured", replace(turning, finalists=finalists)).paragraph
    assert "The answer depends" not in paragraph and "how far some are apart does" in paragraph


def test_a_pruner_that_no_finalist_lacks_is_not_confirmed(ask: Callable[..., Answer]) -> None:
    finalists = (("taylor", "base"), ("lamp", "base"), ("random", "base"))
    paragraph = ask("structured", Sweep(finalists=finalists)).paragraph
    assert "every finalist has base, so no fresh seed compares pruners" in paragraph


def test_only_fresh_seeds_conclude(ask: Callable[..., Answer]) -> None:
    before = ask("structured", rows=[row for row in Sweep().rows() if row[n.SEED] < 10])
    assert before.paragraph.startswith("Nothing is concluded yet: fresh seeds conclude only when each of the 3 recipes")
    assert before.findings.get("best") is None and "taylor + base is first" in before.paragraph
    assert "the 3 best recipes of selection and the control have not run on the fresh seeds yet" in before.missing
    assert "finalist" not in " ".join([before.headline, before.paragraph, *before.details, *before.missing])
    two = ask("structured", Sweep(fresh=(10, 11)))
    assert two.paragraph.startswith("Nothing is concluded yet") and two.findings["best"] == []
    assert "the study names 2 fresh seeds, and 3 are needed" in two.missing
    none = ask("structured", Sweep(fresh=()))
    assert "the study names no fresh seeds, so nothing confirms what selection finds" in none.missing


UNFINISHED: dict[str, tuple[Callable[[Row], bool], str]] = {
    "one finalist alone": (
        lambda row: row[n.IMPORTANCE] == "taylor" and row[n.PRUNER] == "base",
        "2 of 3 finalists have not run on the fresh seeds yet",
    ),
    "two of three": (lambda row: row[n.PRUNER] == "base", "1 of 3 finalists has not run on the fresh seeds yet"),
    "one with the control": (
        lambda row: row[n.IMPORTANCE] in ("taylor", "random") and row[n.PRUNER] == "base",
        "2 of 3 finalists have not run on the fresh seeds yet",
    ),
    "no control": (lambda row: row[n.IMPORTANCE] != "random", "the control, random importance, has not run"),
    "the control alone": (lambda row: row[n.IMPORTANCE] == "random", "which selection puts first, among them"),
    "not the winner": (
        lambda row: row[n.IMPORTANCE] != "taylor" or row[n.PRUNER] != "base",
        "taylor + base, which selection puts first, among them",
    ),
    "a seed behind": (lambda row: row[n.SEED] < 14 or row[n.STEP] < 3, "not complete on fresh seed 14 yet: taylor + base"),
    "the control behind": (
        lambda row: row[n.IMPORTANCE] != "random" or row[n.SEED] < 13,
        "not complete on fresh seeds 13 and 14 yet: random + base",
    ),
}


@pytest.mark.parametrize("keep, said", UNFINISHED.values(), ids=UNFINISHED)
def test_fresh_seeds_conclude_only_when_all_finalists_have_run(
    ask: Callable[..., Answer], keep: Callable[[Row], bool], said: str
) -> None:
    rows = [row for row in Sweep().rows() if row[n.SEED] < 10 or row[n.FAMILY] == n.DENSE or keep(row)]
    answer = ask("structured", rows=rows)
    assert any(said in text for text in answer.missing)
    assert answer.paragraph.startswith("Nothing is concluded yet") and "What selection says" in answer.paragraph
    assert "suits this network best" not in answer.headline + answer.paragraph and not answer.findings.get("best")
    assert sum("the control, random importance," in text or "random + base" in text for text in answer.missing) <= 1


def test_importances_are_told_apart_before_retraining_too(ask: Callable[..., Answer]) -> None:
    rows = Sweep().rows()
    base = {row[n.SEED]: row[n.ACCURACY] for row in rows if row[n.FAMILY] == n.DENSE}
    for row in rows:
        if row[n.PRUNER] == "base" and row[n.REQUESTED_SPARSITY] == 0.1:
            row[n.ACCURACY_BEFORE] = base[row[n.SEED]] - {"fpgm": 0.1, "random": 0.4}.get(row[n.IMPORTANCE], 0.2)
    answer = ask("structured", rows=rows)
    [told] = [text for text in answer.details if text.startswith("The means of the importances at 10% of the channels")]
    assert "fpgm changes accuracy by −10.00 points and random changes accuracy by −40.00 points, 30.00 points apart" in told
    assert list(answer.findings["first_cut"][n.IMPORTANCE])[:1] == ["fpgm"] and "overlap" not in told
    for row in rows:  # as far apart in the mean, and nothing shown
        if row[n.PRUNER] == "base" and row[n.REQUESTED_SPARSITY] == 0.1 and row[n.SEED] < 3:
            row[n.ACCURACY_BEFORE] += 0.1 * (row[n.SEED] - 1)
    [told] = [text for text in ask("structured", rows=rows).details if text.startswith("The means of the importances")]
    assert "apart, and their intervals overlap; retrained" in told


def test_what_random_importance_is_ahead_of_is_told(ask: Callable[..., Answer]) -> None:
    assert not any("is ahead of" in text for text in ask("structured").details)
    weak = Sweep(pruners={"base": 1.0, "group_norm": 3.0, "growing_reg": 1.1})
    [told] = [text for text in ask("structured", weak).details if "is ahead of" in text]
    assert "random + base is ahead of 4 of the other 12 recipes at selection (4 with group_norm; a penalty takes" in told


def test_a_winner_that_is_no_finalist_is_told(ask: Callable[..., Answer]) -> None:
    finalists = (("lamp", "base"), ("fpgm", "base"), ("random", "base"))
    answer = ask("structured", Sweep(finalists=finalists))
    assert "taylor + base, which selection puts first, is none of the finalists on the fresh seeds" in answer.missing
    assert answer.findings["best"] == []


def test_one_finalist_is_compared_with_the_control_alone(ask: Callable[..., Answer]) -> None:
    answer = ask("structured", Sweep(finalists=(("taylor", "base"), ("random", "base"))))
    assert "the only finalist, taylor + base" in answer.paragraph and "the only finalist has taylor" in answer.paragraph
    assert "The one structured recipe on fresh seeds" in answer.headline and not answer.missing


def test_regularised_recipes_that_are_behind_take_no_seed_from_the_others(ask: Callable[..., Answer]) -> None:
    rows = [row for row in Sweep().rows() if row[n.SEED] != 2 or row[n.PRUNER] in (None, "base")]
    answer = ask("structured", rows=rows)
    assert answer.findings["selection"]["n"].eq(3).all() and set(answer.findings["selection"][n.PRUNER]) == {"base"}
    assert any("left out of the selection: " in text and "growing_reg" in text for text in answer.missing)
    assert "pruners are not compared: only base is complete" in answer.missing


def test_one_recipe_is_no_comparison(ask: Callable[..., Answer]) -> None:
    rows = [
        r
        for r in Sweep(fresh=()).rows()
        if r[n.FAMILY] != n.STRUCTURED or (r[n.IMPORTANCE], r[n.PRUNER]) == ("lamp", "base")
    ]
    answer = ask("structured", rows=rows)
    assert "lamp + base is the only recipe that is complete" in answer.paragraph and "1 recipes" not in answer.paragraph


def test_other_budgets_do_not_compete(ask: Callable[..., Answer]) -> None:
    rows = Sweep().rows()
    for row in rows:
        if row[n.PRUNER] == "group_norm":
            row.update({n.TOTAL_EPOCHS: row[n.TOTAL_EPOCHS] + 1, n.ACCURACY: 0.99})
    answer = ask("structured", rows=rows)
    assert "group_norm" not in set(answer.findings["selection"][n.PRUNER])
    assert any("other budgets" in text and "lamp + group_norm" in text for text in answer.missing)


def test_selection_sees_validation_alone(tmp_path: Path) -> None:
    study = sweep_study(tmp_path)
    rows = [json.loads(line) for line in (study / n.POINTS_FILE).read_text().splitlines()]
    # On the test split the order is the other way round; nothing that was chosen may change.
    tested = {r[n.STEP_ID]: r | {n.TEST_ACCURACY: 1 - r[n.ACCURACY]} for r in rows}
    (study / n.CONFIRMED_FILE).write_text("".join(json.dumps(row) + "\n" for row in tested.values()))
    sweep = load_sweep(load_study(study))
    answer = QUESTIONS["structured"].answer(sweep)
    assert sweep.split == TEST and answer.findings["selection"]["label"][0] == "taylor + base"
    assert answer.findings["best"] != ["taylor + base"]


@pytest.mark.parametrize(
    "gap, said",
    [
        (0.008, "keeps more accuracy than training the same shape"),
        (-0.01, "reaches more accuracy than pruning"),
        (0.0, "a tie"),
    ],
)
def test_pruned_against_scratch(ask: Callable[..., Answer], gap: float, said: str) -> None:
    details = ask("structured", Sweep(scratch=gap)).details
    assert any(said in text and "with taylor + base" in text for text in details if text.startswith("For equal epochs"))


def test_who_was_chosen_on_the_seeds_of_the_test_is_said(ask: Callable[..., Answer]) -> None:
    told = [text for text in ask("structured").details if text.startswith("For equal epochs")]
    assert "on the seeds on which it was chosen as the best, which favours it" in told[0] and "taylor" in told[0]


def test_scratch_is_compared_at_equal_budgets_only(tmp_path: Path) -> None:
    rows = [r | ({n.TOTAL_EPOCHS: r[n.TOTAL_EPOCHS] - 1} if r[n.RETRAIN] == "scratch" else {}) for r in Sweep().rows()]
    sweep = loaded(tmp_path, rows=rows)
    assert scratch.against_scratch(sweep, list(sweep.structured["recipe"])).empty
    missing = QUESTIONS["structured"].answer(sweep).missing
    assert "no network trained from scratch has the shape, the seed and the epochs of a pruned one" in missing


def test_a_control_at_one_level_shows_its_spread_as_a_bar(tmp_path: Path) -> None:
    from_scratch = [row for row in Sweep().rows() if row[n.RETRAIN] == "scratch"]
    rows = [row for row in Sweep().rows() if row[n.RETRAIN] != "scratch"]
    for i, row in enumerate(row for row in from_scratch if row[n.REQUESTED_SPARSITY] == 0.5):
        rows.append(row | {n.ACCURACY: row[n.ACCURACY] + 0.01 * i})
    sweep = loaded(tmp_path, rows=rows)
    figure = structured_figure(sweep)
    assert figure is not None
    [bars] = [made for axes in figure.axes for made in axes.containers if isinstance(made, ErrorbarContainer)]
    [[(x, low), (_, high)]] = bars.lines[2][0].get_segments()
    assert x == 0.5 and (low, high) == pytest.approx(band(100 * sweep.scratch[CHANGE])) and high - low > 1


# Question 4.


def verdicts(answer: Answer) -> dict[str, tuple[str, str]]:
    rows = answer.findings["axes"].to_dict("records")
    return {row["axis"]: (row["outcome"], row[VERDICT]) for row in rows}


def test_structured_wins_on_macs_and_loses_on_bytes(ask: Callable[..., Answer]) -> None:
    answer = ask("families")
    assert verdicts(answer)[n.COMPRESSION] == ("compared", LOWER)
    assert verdicts(answer)[n.MACS][0] == verdicts(answer)[n.LATENCY][0] == "only structured moves"
    assert "By stored bytes, unstructured pruning keeps more accuracy" in answer.paragraph
    assert "Only structured pruning gains anything in MACs (up to 3.73" in answer.paragraph
    assert any("By stored bytes, the curves do not cross within the common range" in text for text in answer.details)


def test_structured_wins_on_bytes(ask: Callable[..., Answer]) -> None:
    answer = ask("families", Sweep(channel_cost=0.001, weight_cost=0.02))
    assert verdicts(answer)[n.COMPRESSION] == ("compared", HIGHER)
    assert "By stored bytes, structured pruning keeps more accuracy" in answer.paragraph
    assert "structured pruning keeps more accuracy" in answer.headline


def test_the_families_tie(ask: Callable[..., Answer]) -> None:
    answer = ask("families", Sweep(channel_cost=0, weight_cost=0, noise=0.003))
    assert verdicts(answer)[n.COMPRESSION] == ("compared", TIE) and "By stored bytes, the two are a tie" in answer.paragraph


def test_crossings_are_bracketed_by_seed(ask: Callable[..., Answer]) -> None:
    rows = Sweep(noise=0).rows()
    base = {row[n.SEED]: row[n.ACCURACY] for row in rows if row[n.FAMILY] == n.DENSE}
    for row in rows:
        if row[n.FAMILY] == n.STRUCTURED:
            row[n.ACCURACY] = base[row[n.SEED]] - 0.02 * (row[n.COMPRESSION] - 2)
        elif row[n.FAMILY] == n.UNSTRUCTURED:
            row[n.ACCURACY] = base[row[n.SEED]]
    answer = ask("families", rows=rows)
    crossings = answer.findings["crossings"]
    at = crossings[crossings["axis"] == n.COMPRESSION]
    assert list(at[n.SEED]) == [0, 1, 2] and ((at["low"] <= 2) & (at["high"] >= 2)).all()
    assert any("By stored bytes, the curves cross on 3 of 3 seeds" in text for text in answer.details)


def test_families_that_do_not_overlap_are_not_compared(ask: Callable[..., Answer]) -> None:
    rows = [
        row | ({n.COMPRESSION: row[n.COMPRESSION] + 60} if row[n.FAMILY] == n.UNSTRUCTURED else {})
        for row in Sweep().rows()
    ]
    answer = ask("families", rows=rows)
    assert verdicts(answer)[n.COMPRESSION][0] == "no common range" and "the families do not overlap" in answer.paragraph


def test_what_was_not_timed_is_not_told(ask: Callable[..., Answer]) -> None:
    answer = ask("families", Sweep(timed=False))
    assert verdicts(answer)[n.LATENCY][0] == "not measured"
    assert "latency at batch 1 and latency at a large batch: not measured for both families" in answer.missing
    assert "latency" not in answer.paragraph


def test_a_level_is_reached_only_with_its_interval(ask: Callable[..., Answer]) -> None:
    for text in ask("families", Sweep(noise=0.004)).details:
        if found := re.search(r"Within a point .*interval ([−+][\d.]+) to", text):
            assert float(found[1].replace("−", "-")) >= -1
    harsh = ask("families", Sweep(channel_cost=2, noise=0.0001)).details
    chain = "Structured pruning by taylor + base in a chain of cuts"
    assert any(text.startswith(f"{chain} loses more than a point even at 10%") for text in harsh)


def test_a_seed_that_one_family_lacks_is_named(ask: Callable[..., Answer]) -> None:
    rows = [row for row in Sweep().rows() if row[n.SEED] != 2 or row[n.FAMILY] != n.STRUCTURED]
    missing = ask("families", rows=rows).missing
    assert any("left out here" in text and text.endswith("seed 2") for text in missing)


def table_of(answer: Answer, title: str) -> pd.DataFrame:
    return next(table.rows for table in answer.tables if table.title.startswith(title))


def test_what_each_level_took_away_is_told_as_measured(ask: Callable[..., Answer]) -> None:
    table = table_of(ask("families"), "What each level took away")
    assert list(table["asked for"]) == [f"{100 * level:g}%" for level in (*LEVELS, *CHANNELS)]
    half = table[table["family"].eq(n.STRUCTURED) & table["asked for"].eq("50%")].iloc[0]
    assert half["weights removed (achieved)"] == "75%" and half["measured speed-up, batch 1"] == f"{0.5**-0.7:.3g}×"
    assert half["epochs"] == "15"
    untimed = table_of(ask("families", Sweep(timed=False)), "What each level took away")
    assert set(untimed["measured speed-up, batch 1"]) == {MISSING}


def test_what_a_budget_buys_is_the_highest_level_within_it(ask: Callable[..., Answer]) -> None:
    rows = Sweep(noise=0).rows()
    roots = {row[n.SEED]: row[n.ACCURACY] for row in rows if row[n.FAMILY] == n.DENSE}
    for row in rows:  # 4.5 points without half of the channels; 1.45 without half of the weights, on two of three seeds
        if row[n.FAMILY] == n.STRUCTURED:
            row[n.ACCURACY] = roots[row[n.SEED]] - 0.09 * row[n.REQUESTED_SPARSITY]
        elif row[n.FAMILY] == n.UNSTRUCTURED:
            row[n.ACCURACY] = roots[row[n.SEED]] - 0.029 * row[n.REQUESTED_SPARSITY] * (row[n.SEED] != 1)
    table = table_of(ask("families", rows=rows), "What a budget of accuracy buys")
    assert len(table) == 15  # three budgets; two chains of weights, two lines of long one-shot networks, one of channels
    cuts = table[table["recipe"] == "magnitude in one shot (fine-tuning, 8 to 18 epochs)"]
    assert list(cuts["by the mean up to"]) == ["50%", "95%", "95%"]
    table = table.drop_duplicates(["family", "to give up"]).set_index(["family", "to give up"])
    assert list(table.loc[n.STRUCTURED, "by the mean up to"]) == ["10%", "20%", "50%"]
    assert list(table.loc[n.STRUCTURED, "shown up to"]) == ["10%", "20%", "50%"]
    assert list(table.loc[n.UNSTRUCTURED, "by the mean up to"]) == ["50%", "98%", "98%"]
    assert list(table.loc[n.UNSTRUCTURED, "shown up to"]) == ["none", "30%", "80%"]  # ± 2.2 times the mean
    nothing = table_of(ask("families", Sweep(channel_cost=2)), "What a budget").query("family == 'structured'")
    assert set(nothing["by the mean up to"]) == {"none"} and set(nothing["change"]) == {MISSING}


def test_what_the_families_differ_in_is_told_and_taken_away(ask: Callable[..., Answer]) -> None:
    answer = ask("families")  # of the weights, rewinding is first at selection
    assert "Beside the family they differ in retraining (learning-rate rewinding against fine-tuning)" in answer.paragraph
    assert "which differ in retraining and scope, too: by stored bytes" in answer.headline
    [told] = [text for text in answer.details if text.startswith("With fine-tuning on both sides")]
    assert "(they differ in scope and epochs still): by stored bytes, unstructured pruning keeps more accuracy" in told
    alike = ask("families", rows=[row for row in Sweep().rows() if row[n.RETRAIN] != "lr_rewind"])
    assert "retraining" not in alike.headline and not any("on both sides" in text for text in alike.details)


@pytest.mark.parametrize("slow, told", [((0.1, 0.4), "without 10% (0.769×) and 40% (0.625×) of the channels"), ((), "")])
def test_a_level_that_is_slower_than_dense_is_named(ask: Callable[..., Answer], slow: tuple[float, ...], told: str) -> None:
    rows = Sweep().rows()
    for row in rows:
        if row[n.FAMILY] == n.STRUCTURED and row[n.REQUESTED_SPARSITY] in slow:
            row[n.LATENCY] = 0.8 * (1.2 + row[n.REQUESTED_SPARSITY])
    said = [text for text in ask("families", rows=rows).details if text.startswith("Smaller is not always faster")]
    assert len(said) == bool(slow) and all(f"by latency at batch 1, those {told}" in text for text in said)
    assert all("round_to" in text for text in said)
    rounded = [row | ({n.ROUND_TO: 8} if row[n.FAMILY] == n.STRUCTURED else {}) for row in rows]
    assert not any("round_to" in text for text in ask("families", rows=rounded).details)


def test_a_line_that_turns_back_is_drawn_from_level_to_level(tmp_path: Path) -> None:
    rows = Sweep().rows()
    for row in rows:
        if row[n.FAMILY] == n.STRUCTURED and row[n.REQUESTED_SPARSITY] == 0.4:
            row[n.LATENCY] = 2.0
    figure = families_figure(loaded(tmp_path, rows=rows))
    assert figure is not None
    [panel] = [axes for axes in figure.axes if axes.get_xlabel() == "measured speed-up, batch 1"]
    [line] = [line for line in panel.lines if str(line.get_label()).startswith("structured: ")]
    x = np.asarray(line.get_xdata(), dtype=float)
    assert len(x) == len(CHANNELS) and x.argmin() == CHANNELS.index(0.4)
    assert {text.get_text() for text in panel.texts} >= {"10%", "40%", "50%"}


def fresh_chains(rows: list[Row]) -> list[Row]:
    """The rows, and fine-tuned chains of weights on the fresh seeds."""
    made = Sweep(seeds=Sweep().fresh, fresh=()).rows()
    return [*rows, *(row for row in made if row[n.STEPS] and row[n.STEPS] > 5 and row[n.IMPORTANCE] == "magnitude")]


def test_where_both_families_have_fresh_seeds_they_are_compared_there(ask: Callable[..., Answer]) -> None:
    sweep = Sweep()
    assert "on seeds 0, 1 and 2, which chose them" in ask("families").paragraph
    answer = ask("families", rows=fresh_chains(sweep.rows()))
    assert "on seeds 10, 11, 12, 13 and 14, which had no part in choosing them" in answer.paragraph
    assert set(answer.findings["axes"].query("outcome == 'compared'")["n"]) == {5}
    # Not before both are complete on all of them: one that is behind would narrow the range for all.
    for behind in (
        [row for row in fresh_chains(sweep.rows()) if row[n.SEED] != 14 or row[n.FAMILY] != n.UNSTRUCTURED],
        [row for row in fresh_chains(sweep.rows()) if row[n.SEED] != 14 or row[n.REQUESTED_SPARSITY] <= 0.3],
    ):
        answer = ask("families", rows=behind)
        assert "on seeds 0, 1 and 2, which chose them" in answer.paragraph
        assert any(text.endswith("both families are not complete on seed 14") for text in answer.missing)


def test_a_control_on_other_seeds_than_the_lines_beside_it_is_labelled_with_them(tmp_path: Path) -> None:
    def controls(rows: list[Row]) -> set[str]:
        figure = families_figure(loaded(tmp_path, rows=rows))
        assert figure is not None
        labels = {str(line.get_label()) for axes in figure.axes for line in axes.lines}
        return {label for label in labels if "random" in label or "scratch" in label}

    names = {"unstructured, random importance", "structured, random importance", "structured, from scratch"}
    assert controls(Sweep().rows()) == names
    chosen_on = " (seeds 0, 1 and 2)"  # channels are pruned at random on the fresh seeds too
    fresh = {name if name == "structured, random importance" else name + chosen_on for name in names}
    assert controls(fresh_chains(Sweep().rows())) == fresh


def test_a_chain_is_chosen_where_the_families_are_compared(ask: Callable[..., Answer]) -> None:
    rows = Sweep().rows()
    for row in rows:  # rewinding is better by a little everywhere, and far worse beyond what structured pruning reaches
        if row[n.RETRAIN] == "lr_rewind":
            row[n.ACCURACY] += 0.001 if row[n.REQUESTED_SPARSITY] <= 0.8 else -0.3
    answer = ask("families", rows=rows)
    assert "unstructured pruning by magnitude (learning-rate rewinding) in a chain of cuts" in answer.paragraph
    buys = table_of(answer, "What a budget of accuracy buys").query("family == 'unstructured'")
    assert set(buys["recipe"]) >= {"magnitude (learning-rate rewinding)", "magnitude (fine-tuning)"}


def test_one_cut_that_goes_farther_within_a_point_than_the_chain_is_told(ask: Callable[..., Answer]) -> None:
    rows = Sweep(noise=0.0001).rows()
    roots = {row[n.SEED]: row[n.ACCURACY] for row in rows if row[n.FAMILY] == n.DENSE}
    assert not any(text.startswith("Farther") for text in ask("families", rows=rows).details)
    for row in rows:
        if row[n.FAMILY] == n.UNSTRUCTURED and row[n.STEPS] == 1 and row[n.FINE_TUNE_EPOCHS] > 2:
            row[n.ACCURACY] = roots[row[n.SEED]]
    told = [text for text in ask("families", rows=rows).details if text.startswith("Farther within a point goes")]
    assert len(told) == 2 and "magnitude in one shot (fine-tuning, 8 to 18 epochs): to 95% of the weights" in told[0]


def test_a_time_is_that_of_the_shape(ask: Callable[..., Answer]) -> None:
    rows = [r | ({n.LATENCY: None} if r[n.FAMILY] == n.UNSTRUCTURED or r[n.SEED] == 1 else {}) for r in Sweep().rows()]
    assert verdicts(ask("families", rows=rows))[n.LATENCY][0] == "only structured moves"


# The split.


@pytest.mark.parametrize("share, split", [(None, VALIDATION), (0.5, VALIDATION), (1.0, TEST)], ids=["none", "half", "all"])
def test_the_splits_are_never_mixed(tmp_path: Path, share: float | None, split: str) -> None:
    folder = sweep_study(tmp_path)
    if share is not None:
        confirmed(folder, share)
    sweep = load_sweep(load_study(folder))
    assert sweep.split == split
    off = sweep.rows["reported_accuracy"] - sweep.rows[n.ACCURACY]
    assert np.allclose(off, -0.005 if split == TEST else 0.0)
    assert np.allclose(sweep.rows[CHANGE], sweep.rows["validation_change"])


def test_when_the_split_was_opened_is_told_only_where_it_is_known(tmp_path: Path) -> None:
    whole = sweep_study(tmp_path / "whole")
    confirmed(whole)
    assert "Everything was chosen on validation data" in split_note(load_sweep(load_study(whole)))
    early = sweep_study(tmp_path / "early", rows=[row for row in Sweep().rows() if row[n.SEED] < 10])
    confirmed(early)
    sweep = load_sweep(load_study(early))
    assert sweep.split == TEST and "Everything" not in split_note(sweep)
    assert "opened before the recipes that are to run on fresh seeds were complete" in split_note(sweep)
    assert not any("opened once" in rule for rule in RULES)


def test_what_came_out_different_is_counted(tmp_path: Path) -> None:
    folder = sweep_study(tmp_path)
    confirmed(folder)
    assert "trained again" not in split_note(load_sweep(load_study(folder)))
    rows = [json.loads(line) for line in (folder / n.CONFIRMED_FILE).read_text().splitlines()]
    rows[0][n.RETRAINED_ACCURACY] = rows[1][n.RETRAINED_ACCURACY] = 0.9
    (folder / n.CONFIRMED_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert " 2 of them had to be trained again" in split_note(load_sweep(load_study(folder)))


def test_the_retraining_that_is_told_first_is_chosen_on_validation(tmp_path: Path) -> None:
    folder = sweep_study(tmp_path)
    rows = [json.loads(line) for line in (folder / n.POINTS_FILE).read_text().splitlines()]

    def tested(row: Row) -> Row:
        lost = 0.05 * (row[n.RETRAIN] == "lr_rewind" and row[n.SPARSITY] > 0.45)  # it would go least far on the test split
        return row | {n.TEST_ACCURACY: row[n.ACCURACY] - lost}

    before = one_shot.answer(load_sweep(load_study(folder)))
    (folder / n.CONFIRMED_FILE).write_text("".join(json.dumps(tested(row)) + "\n" for row in rows))
    after = one_shot.answer(load_sweep(load_study(folder)))
    bends = after.findings["bend"].set_index(n.RETRAIN)["within_one_point"]
    assert bends["lr_rewind"] < bends["fine_tune"]
    assert "of learning-rate rewinding" in before.headline and "of learning-rate rewinding" in after.headline
    assert f"{100 * bends['lr_rewind']:.0f}% of the weights" in after.headline


@pytest.mark.parametrize("fresh", [True, False])
def test_a_figure_names_its_split_and_shows_no_other(fresh: bool, tmp_path: Path) -> None:
    folder = sweep_study(tmp_path, rows=[row for row in Sweep().rows() if fresh or row[n.SEED] < 10])
    rows = [json.loads(line) for line in (folder / n.POINTS_FILE).read_text().splitlines()]
    tested = {row[n.STEP_ID]: row | {n.TEST_ACCURACY: row[n.ACCURACY] / 2} for row in rows}
    (folder / n.CONFIRMED_FILE).write_text("".join(json.dumps(row) + "\n" for row in tested.values()))
    sweep = load_sweep(load_study(folder))
    for name, question in QUESTIONS.items():
        figure = question.figure(sweep)
        assert figure is not None
        of = VALIDATION if name == "structured" and not fresh else TEST
        labels = {axes.get_ylabel() for axes in figure.axes if axes.lines}
        assert labels == {f"change of {of} accuracy\nagainst dense (points)"}
    figure = structured_figure(sweep)
    assert figure is not None
    [scratch] = [line for axes in figure.axes for line in axes.lines if str(line.get_label()).startswith("from scratch")]
    column = CHANGE if fresh else "validation_change"
    assert np.allclose(scratch.get_ydata(), 100 * sweep.scratch.groupby("level")[column].mean())


def test_the_dropped_recipes_need_no_test_accuracy(tmp_path: Path) -> None:
    folder = sweep_study(tmp_path)
    confirmed(folder)
    rows = [json.loads(line) for line in (folder / n.CONFIRMED_FILE).read_text().splitlines()]
    kept = [row for row in rows if not (row[n.PRUNER] == "group_norm" and row[n.SEED] < 3)]
    (folder / n.CONFIRMED_FILE).write_text("".join(json.dumps(row) + "\n" for row in kept))
    sweep = load_sweep(load_study(folder))
    assert sweep.split == TEST and len(kept) < len(rows)
    assert all(question.answer(sweep).paragraph for question in QUESTIONS.values())


def test_a_recipe_that_the_final_is_without_needs_no_test_accuracy(tmp_path: Path) -> None:
    # What selection puts first at equal budgets is not in the final, and so confirm never opened it.
    folder = sweep_study(tmp_path, Sweep(finalists=(("lamp", "base"), ("fpgm", "base"), ("random", "base"))))
    confirmed(folder)
    rows = [json.loads(line) for line in (folder / n.CONFIRMED_FILE).read_text().splitlines()]
    kept = [r for r in rows if r[n.FAMILY] != n.STRUCTURED or r[n.RETRAIN] == "scratch" or r[n.SEED] >= 10]
    kept += [r for r in rows if r[n.SEED] < 3 and r[n.IMPORTANCE] in ("lamp", "fpgm", "random") and r[n.PRUNER] == "base"]
    (folder / n.CONFIRMED_FILE).write_text("".join(json.dumps(row) + "\n" for row in kept))
    sweep = load_sweep(load_study(folder))
    assert sweep.split == TEST and not {*sweep.structured[n.IMPORTANCE]} - {"lamp", "fpgm", "random"}
    for question in QUESTIONS.values():
        answer = question.answer(sweep)
        told = " ".join([answer.headline, answer.paragraph, *answer.details])
        assert answer.paragraph and f"{MISSING} points" not in told and "nan" not in told


BROKEN = {
    "no number": {n.STEP_ID: "a", n.TEST_ACCURACY: "0.9"},
    "no share": {n.STEP_ID: "a", n.TEST_ACCURACY: 91.0},
    "missing": {n.STEP_ID: "a"},
    "of no step": {n.TEST_ACCURACY: 0.9},
    "no share of validation": {n.STEP_ID: "a", n.TEST_ACCURACY: 0.9, n.RETRAINED_ACCURACY: "0.9"},
}


@pytest.mark.parametrize("row", BROKEN.values(), ids=BROKEN)
def test_broken_test_accuracies_are_refused(tmp_path: Path, row: Row) -> None:
    (tmp_path / n.CONFIRMED_FILE).write_text(json.dumps(row) + "\n")
    with pytest.raises(n.InputError, match=r"confirmed\.jsonl, line 1: .*; repair or remove the line"):
        load_confirmed(tmp_path)


# What is missing is said.

ALL_ROWS = Sweep().rows()
PARTS: dict[str, Callable[[Row], Any]] = {
    "one seed": lambda row: row[n.SEED] == 0,
    "unstructured only": lambda row: row[n.FAMILY] != n.STRUCTURED,
    "structured only": lambda row: row[n.FAMILY] != n.UNSTRUCTURED,
    "one-shot only": lambda row: row[n.STEPS] in (0, 1, None) or row[n.FAMILY] == n.DENSE,
    "chains only": lambda row: row[n.FAMILY] == n.DENSE or row[n.STEPS] > 1,
    "no controls": lambda row: row[n.IMPORTANCE] != "random" and row[n.RETRAIN] != "scratch",
    "controls only": lambda row: row[n.IMPORTANCE] in (None, "random"),
    "one retraining": lambda row: row[n.RETRAIN] != "lr_rewind",
    "fresh seeds only": lambda row: row[n.SEED] >= 10,
    "one level": lambda row: row[n.REQUESTED_SPARSITY] in (0, 0.2),
    "an unfinished finalist": lambda row: row[n.SEED] < 14 or row[n.STEP] < 3,
    "no confirmation of the best": lambda row: row[n.SEED] < 10 or row[n.IMPORTANCE] != "taylor",
}


@pytest.mark.parametrize("keep", PARTS.values(), ids=PARTS)
def test_parts_of_a_sweep_are_answered_as_far_as_they_go(tmp_path: Path, keep: Callable[[Row], Any]) -> None:
    sweep = loaded(tmp_path, rows=[row for row in ALL_ROWS if keep(row)])
    for question in QUESTIONS.values():
        answer = question.answer(sweep)
        assert answer.paragraph or answer.missing
        assert "nan" not in " ".join([answer.paragraph, answer.headline, *answer.details]).split()


@pytest.mark.parametrize("lines", [2, 25, 90, 250, 480])
def test_a_sweep_that_is_still_running_is_answered(tmp_path: Path, lines: int) -> None:
    sweep = loaded(tmp_path, rows=ALL_ROWS[:lines])
    assert all(answer.paragraph or answer.missing for answer in (q.answer(sweep) for q in QUESTIONS.values()))


@pytest.mark.parametrize("matched", [True, False], ids=["matched", "unmatched"])
def test_the_first_hour_reads_well(tmp_path: Path, matched: bool) -> None:
    folder = sweep_study(tmp_path, rows=first_hour(ALL_ROWS, matched=matched))
    page, told = write_comparison(load_study(folder))
    text = page.with_suffix(".md").read_text()
    assert len(told) == 6 and "taylor + base is first at selection; fresh seeds have not confirmed it yet" in told[3]
    assert "pruners are not compared: only base is complete" in text and "from scratch, has not run yet" in text
    assert ("Not answered yet" in text) is not matched and ("iterative pruning keeps more" in told[2]) is matched
    assert "nan" not in re.findall(r"\w+", text) and all((page.parent / f"comparison_{q}.png").exists() for q in QUESTIONS)


def test_rewinding_is_told_as_it_is_for_any_number_of_epochs(folder: Path) -> None:
    text = (folder / n.REPORT_FOLDER / "comparison.md").read_text()
    assert "larger learning rates" not in text and "few replay only the small end" in text


@pytest.mark.parametrize("regularised", [True, False])
def test_the_strengths_of_penalties_are_told_where_there_were_any(tmp_path: Path, regularised: bool) -> None:
    rows = [row for row in Sweep().rows() if regularised or row[n.PRUNER] in (None, "base")]
    folder = sweep_study(tmp_path, rows=rows)
    study = yaml.safe_load((folder / n.STUDY_FILE).read_text())
    study |= {"dense": {"epochs": 30}, "retraining": {"learning_rate": 0.02}, "regularisation": {"group_norm": 1e-4}}
    (folder / n.STUDY_FILE).write_text(yaml.safe_dump(study))
    told = dict(facts(load_sweep(load_study(folder))).to_numpy())
    assert told["epochs of dense training"] == "30"
    assert told["learning rate at which fine-tuning begins, after each cut"] == "0.02"
    assert told.get("regularised training before a cut") == ("group_norm 0.0001" if regularised else None)


@pytest.mark.parametrize("dense", [{}, {"epochs": 20, "learning_rate": 0.2}, {"epochs": 24, "warmup": 0.0}])
def test_the_rate_that_rewinding_begins_at_is_that_of_the_schedule(tmp_path: Path, dense: dict[str, Any]) -> None:
    folder = sweep_study(tmp_path)
    settings = DenseSettings(**dense)
    study = yaml.safe_load((folder / n.STUDY_FILE).read_text()) | {"dense": settings.model_dump()}
    (folder / n.STUDY_FILE).write_text(yaml.safe_dump(study))
    told = dict(facts(load_sweep(load_study(folder))).to_numpy())["learning rate at which rewinding begins, by its epochs"]
    rates = {int(t): float(rate) for t, rate in (each.split(": ") for each in told.split(", "))}
    assert set(rates) == {2, 8, 14, 16, 18}
    assert all(at == pytest.approx(dense_schedule(settings).at(settings.epochs - t), rel=5e-3) for t, at in rates.items())
    for wrong in ({"learning_rate": float("inf")}, {"learning_rate": "fast"}, {"warmup": float("nan")}, {}):
        (folder / n.STUDY_FILE).write_text(yaml.safe_dump(study | {"dense": {**study["dense"], **wrong} if wrong else 3}))
        found = dict(facts(load_sweep(load_study(folder))).to_numpy())
        assert "learning rate at which rewinding begins, by its epochs" not in found


def test_a_part_has_a_page_with_the_figures_that_it_can_have(tmp_path: Path) -> None:
    folder = sweep_study(tmp_path, rows=[dense(), point(requested_sparsity=None, total_epochs=None)])
    page, summary = write_comparison(load_study(folder))
    assert "Not answered yet" in page.read_text() and len(summary) >= 2
    assert not (page.parent / "comparison_structured.png").exists()


# The pages.


def test_everything_is_written(folder: Path) -> None:
    report = folder / n.REPORT_FOLDER
    for question in QUESTIONS:
        assert matplotlib.image.imread(report / f"comparison_{question}.png").shape[1] > 900
        assert (report / f"comparison_{question}.svg").is_file()
    answers = json.loads((report / "answers.json").read_text())
    assert set(answers["questions"]) == set(QUESTIONS) and answers["split"] == VALIDATION
    assert answers["questions"]["structured"]["best"] == ["taylor + base"]
    pairs = pd.read_csv(report / "comparison_iterative_by_level.csv")
    assert set(pairs[LEVEL]) == set(MATCHED) and pairs["n"].eq(3).all()


def test_both_pages_tell_the_same(folder: Path) -> None:
    html, markdown = ((folder / n.REPORT_FOLDER / f"comparison.{kind}").read_text() for kind in ("html", "md"))
    for page in (html, markdown):
        assert "taylor + base suits this network best" in page and "All accuracies are on validation data" in page
        assert "https://arxiv.org/abs/2003.02389" in page and "made up" in page and "535 pruned, 8 dense" in page
        assert all(f"comparison_{question}.png" in page for question in QUESTIONS)
    assert html.count("<table>") == markdown.count("| --- |\n") >= 8


def test_a_comparison_made_again_is_the_same_and_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    stale = again / n.REPORT_FOLDER / "comparison_old.csv"
    stale.write_text("")
    write_comparison(load_study(again))
    one, other = ({f.name: f.read_bytes() for f in (at / n.REPORT_FOLDER).iterdir()} for at in (folder, again))
    assert one == other


def test_nothing_of_a_study_becomes_markup(tmp_path: Path) -> None:
    small = Sweep(scores={HOSTILE: 0.9, "random": 2.0}, pruners={"base": 1.0}, finalists=((HOSTILE, "base"),), fresh=(10,))
    rows = [r | ({n.IMPORTANCE: HOSTILE} if r[n.IMPORTANCE] == "magnitude" else {}) for r in small.rows()]
    folder = sweep_study(tmp_path, small, rows)
    (folder / n.PROVENANCE_FILE).write_text(
        json.dumps({"hardware": {"processor": HOSTILE}, "versions": {HOSTILE: HOSTILE}})
    )
    page, _ = write_comparison(load_study(folder))
    html, markdown = page.read_text(), page.with_suffix(".md").read_text()
    assert "<script" not in html and "&lt;script&gt;" in html
    assert "<script" not in markdown and not re.search(r"(?<!\\)\]\(javascript|(?<!\\)\*b", markdown)
    assert r"\*b\*" in markdown and r"&lt;/script&gt;\|\$" in markdown
    assert all(line.count(" | ") < 12 for line in markdown.splitlines() if line.startswith("|"))


def test_the_dense_accuracy_follows_the_numbers(tmp_path: Path) -> None:
    rows = [row | {n.ACCURACY: 0.5} for row in ALL_ROWS if row[n.SEED] == 0]
    sweep = loaded(tmp_path, rows=rows)
    assert QUESTIONS["one_shot"].answer(sweep).findings["cost"]["mean"].abs().max() == 0


# The command line.


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sweep_study(tmp_path, rows=[row for row in ALL_ROWS if row[n.FAMILY] == n.DENSE or row[n.STEPS] == 1])
    assert main(["compare", str(folder)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Pruned in one shot, 80%" in shown and str(folder / n.REPORT_FOLDER / "comparison.html") in shown


def test_command_line_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tmp_path / "nowhere")]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and "no such folder" in shown.err
    folder = sweep_study(tmp_path / "study", rows=ALL_ROWS[:30])
    (folder / n.CONFIRMED_FILE).write_text('{"step_id": "a", "test_accuracy": -1}\n')
    assert main(["compare", str(folder)]) == 2
    assert "test_accuracy is -1" in capsys.readouterr().err
