"""The comparison of a sweep: statistics in closed form, contrasts on made-up points, and a page that can't overclaim."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import trainables.records.names as n
from analysis.__main__ import main
from analysis.comparison.engine import EQUIVALENT, FEW, HIGHER, LOWER, OPEN, SLIGHTLY, compare, contrasts
from analysis.comparison.figures import bytes_figure, epochs_figure, look_of, pairs_figure, speed_figure
from analysis.comparison.page import ANSWERS, html, section_of
from analysis.comparison.report import FRAME, MARKDOWN, PAGE, write_comparison
from analysis.comparison.statistics import estimate, holm, noise_floor, step_of
from analysis.comparison.sweep import load_sweep
from analysis.comparison.tables import levels_table
from analysis.comparison.told import MINUS, at, signed
from analysis.load import load_study
from tests.made_up import Sweep, confirmed, sweep_study
from trainables.records.names import InputError
from trainables.records.objectives import ACCURACY

HOSTILE = "<script>alert(1)</script>|$\\frac{$ [x](javascript:y) *b*"
ROWS = Sweep().rows()
ARMS: dict[str, Any] = {
    "chain": {"family": "unstructured", "cutting": "iterative", "importance": "magnitude"},
    "one_shot": {"family": "unstructured", "cutting": "one_shot", "importance": "magnitude"},
    "channels": {"family": "structured", "importance": "magnitude_l2", "retrain": "fine_tune"},
}
CUTTING = {"left": "chain", "right": "one_shot", "matched": ["level", "total_epochs"]}


@pytest.fixture
def frame(tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """The frame of one contrast, or of several, of a made-up sweep."""

    def made(contrast: Any = CUTTING, sweep: Sweep | None = None, rows: Any = None, **settings: Any) -> pd.DataFrame:
        several = contrast if "left" not in contrast else {"asked": contrast}
        folder = sweep_study(tmp_path, sweep, rows, arms=ARMS, contrasts=several, **settings)
        return compare(load_sweep(load_study(folder)))

    return made


# Statistics.


def test_an_interval_is_students() -> None:
    found = estimate([1.0, 2.0, 3.0], margin=5.0)
    half = 4.302652729911275 / np.sqrt(3)
    assert found.mean == 2 and found.n == 3
    assert found.low == pytest.approx(2 - half) and found.high == pytest.approx(2 + half)
    # With two degrees of freedom the distribution has a closed form: P(|T| > t) = 1 - t / sqrt(2 + t²).
    t = 2 * np.sqrt(3)
    assert found.p == pytest.approx(1 - t / np.sqrt(2 + t * t))
    # Two one-sided tests: the nearer edge of the margin lies 3 away.
    t = 3 * np.sqrt(3)
    assert found.p_equivalent == pytest.approx((1 - t / np.sqrt(2 + t * t)) / 2)


def test_an_interval_needs_two_values() -> None:
    assert estimate([0.5]).mean == 0.5 and np.isnan([estimate([0.5]).low, estimate([0.5]).p]).all()
    assert np.isnan(estimate([]).mean) and estimate([]).n == 0


def test_differences_that_happen_to_be_alike_are_not_certain() -> None:
    # Accuracies are counts of images: of 200, a difference of one image on three seeds is no finding, and one of 20 is.
    one, many = estimate([0.005] * 3, 1 / 200), estimate([0.1] * 3, 1 / 200)
    assert one.low < 0 < one.high and one.p > 0.05 and 0 < many.p < 0.01
    # The error of rounding is uniform: variance step² / 12, twice in a difference, divided by the seeds.
    assert many.high - many.mean == pytest.approx(4.302652729911275 * np.sqrt(2 / 12 / 3) / 200)
    assert np.isnan([estimate([0.1, 0.1, 0.1]).low, estimate([0.1, 0.1, 0.1]).p]).all()
    assert estimate([0.1, 0.2, 0.3], 1 / 200) == estimate([0.1, 0.2, 0.3])
    assert step_of(pd.Series([0.91, 0.912, 0.9122]), pd.Series([0.91, np.nan])) == pytest.approx(0.0002)


def test_holm_in_closed_form() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.02, np.nan, 0.03])[[0, 2]] == pytest.approx([0.04, 0.04]) and np.isnan(holm([np.nan])[0])
    # Adjusting never changes the order, and never makes a p smaller.
    p = np.random.default_rng(0).uniform(size=20)
    assert (holm(p) >= p).all() and (np.diff(holm(p)[np.argsort(p)]) >= 0).all()


def test_the_noise_floor_is_what_two_means_of_replicates_differ_by() -> None:
    assert noise_floor(pd.Series([1.0, 2.0, 3.0]), 2) == pytest.approx(4.302652729911275)
    assert np.isnan(noise_floor(pd.Series([1.0]), 3))


# Contrasts.


def test_a_contrast_is_taken_within_seeds_of_what_is_matched(frame: Callable[..., pd.DataFrame]) -> None:
    found = frame()
    # Of 50% the chain's network is the one-shot one, which beside itself would be no evidence.
    assert [cell["level"] for cell in found["of"]] == [0.8, 0.9] and [cell["total_epochs"] for cell in found["of"]] == [
        4,
        6,
    ]
    assert found["estimate"].to_numpy() == pytest.approx([-0.02, -0.02], abs=0.001) and set(found["n"]) == {5}
    assert (found["verdict"] == LOWER).all() and found["concludes"].all()
    one, other = (frame({**CUTTING, "matched": keys, "averaged": rest}) for keys, rest in (
        (["level"], ["total_epochs"]), (["total_epochs"], ["level"])))  # fmt: skip
    assert list(one["estimate"]) == pytest.approx(list(other["estimate"]))
    (whole,) = frame({**CUTTING, "matched": [], "averaged": ["level", "total_epochs"]})["estimate"]
    assert whole == pytest.approx(found["estimate"].mean())


def test_verdicts_tell_a_difference_from_equivalence_and_from_neither(frame: Callable[..., pd.DataFrame]) -> None:
    assert set(frame(sweep=Sweep(chain=0.02))["verdict"]) == {HIGHER}
    assert set(frame(sweep=Sweep(chain=0.0, noise=0.0002))["verdict"]) == {EQUIVALENT}
    assert set(frame(sweep=Sweep(chain=0.0, noise=0.01))["verdict"]) == {OPEN}
    assert set(frame(sweep=Sweep(chain=0.0035, noise=0.0002))["verdict"]) == {SLIGHTLY + HIGHER}
    assert set(frame(sweep=Sweep(seeds=(0, 1)))["verdict"]) == {FEW}
    # A difference that is certain, and smaller than that of two means of replicates, is none.
    small = frame({**CUTTING, "margin": 0.0005}, Sweep(chain=-0.0008, noise=0.00001))
    assert (small["adjusted_p"] < 0.001).all() and (small["estimate"].abs() < small["noise_floor"]).all()
    assert set(small["verdict"]) == {OPEN}


def test_p_is_corrected_within_the_declared_family_of_tests(frame: Callable[..., pd.DataFrame]) -> None:
    dense = {"left": "channels", "matched": ["level"]}
    apart = frame({"cutting": CUTTING, "cost": dense})
    together = frame({"cutting": CUTTING | {"tests": "all"}, "cost": dense | {"tests": "all"}})
    for _, family in apart.groupby("contrast"):
        assert list(family["adjusted_p"]) == pytest.approx(list(holm(family["p"])))
    assert list(together["adjusted_p"]) == pytest.approx(list(holm(together["p"])))


@pytest.mark.parametrize("role", ["tuning", "selection", "added"])
def test_seeds_with_a_part_in_it_never_conclude(role: str, frame: Callable[..., pd.DataFrame]) -> None:
    rows = [row | ({n.ACCURACY: 0.5} if row[n.SEED] < 2 and row[n.STEPS] == 3 else {}) for row in ROWS]
    fresh = frame(rows=rows, seeds=[{"role": role, "seeds": [0, 1]}])
    assert all(seeds == [2, 3, 4] for seeds in fresh["seeds"]) and fresh["concludes"].all()
    assert fresh["estimate"].to_numpy() == pytest.approx([-0.02, -0.02], abs=0.001)
    none = frame(seeds=[{"role": role, "seeds": [0, 1, 2], "where": {"family": "unstructured"}}])
    assert not none["concludes"].any() and set(none["n"]) == {5} and all(one == [role] for one in none["roles"])
    other = frame(seeds=[{"role": role, "seeds": [0, 1, 2], "where": {"family": "structured"}}])
    assert other["concludes"].all() and set(other["n"]) == {5}


def test_what_else_differs_is_told(frame: Callable[..., pd.DataFrame]) -> None:
    rewound = [row | {n.RETRAIN: "lr_rewind"} if row[n.RETRAIN] == "fine_tune" else row for row in ROWS]
    told = frame(rows=rewound)["differs"].iloc[0]
    # The schedule falls from 0.2 over the last 24 of 30 epochs: two of them begin at a twelfth, four at a sixth.
    assert "cutting iterative | one_shot" in told and "peak_lr 0.01667 | 0.03333" in told
    assert "peak_lr" not in frame()["differs"].iloc[0]


def test_families_are_compared_at_equal_bytes(frame: Callable[..., pd.DataFrame]) -> None:
    channels = {"left": "channels", "right": "chain", "at": {"compression": [2.0, 3.0, 60.0]}}
    rows = [
        row | {n.ACCURACY: 0.9 - 0.01 * np.log2(row[n.COMPRESSION]) - 0.03 * (row[n.FAMILY] == n.STRUCTURED)}
        for row in ROWS
    ]
    found = frame(channels, rows=rows)
    # At 60 times neither was measured.
    assert [cell["compression"] for cell in found["of"]] == [2.0, 3.0]
    assert found["estimate"].to_numpy() == pytest.approx([-0.03, -0.03])
    assert found["right_mean"].to_numpy() == pytest.approx([0.89, 0.9 - 0.01 * np.log2(3)])


def test_averages_are_of_what_every_seed_has(frame: Callable[..., pd.DataFrame]) -> None:
    averaged = {**CUTTING, "matched": [], "averaged": ["level", "total_epochs"]}
    lacking = [row for row in ROWS if not (row[n.SEED] == 0 and row[n.REQUESTED_SPARSITY] == 0.9)]
    (found,) = frame(averaged, rows=lacking).to_dict("records")
    assert found["n"] == 5 and "level 0.9" in found["lost"]


def test_numbers_of_the_two_splits_are_never_mixed(tmp_path: Path) -> None:
    for share, split in ((1.0, "test"), (0.5, "validation")):
        folder = sweep_study(tmp_path / split, arms=ARMS, contrasts={"asked": CUTTING})
        confirmed(folder, share)
        found = compare(load_sweep(load_study(folder)))
        assert set(found["split"]) == {split}


def test_the_exercise_s_questions_are_asked_of_a_sweep_that_declares_nothing(tmp_path: Path) -> None:
    sweep = load_sweep(load_study(sweep_study(tmp_path)))
    assert {"iterative_less_one_shot", "channels_less_random", "channels_less_weights"} <= set(contrasts(sweep))
    assert "pruners_less_base" not in contrasts(sweep)  # base alone has run
    found = compare(sweep).set_index("contrast")
    assert set(found.loc[["iterative_less_one_shot"], "verdict"]) == {LOWER}


# The researcher's question, in twelve lines.
MINE = """
arms:
  mine: {family: unstructured, importance: mine.scores:Mine}
  magnitude: {family: unstructured, importance: magnitude}
contrasts:
  mine_less_magnitude:
    left: mine
    right: magnitude
    matched: [cutting, retrain, total_epochs]
    averaged: [level]
    margin: 0.003
seeds: [{role: tuning, seeds: [0]}]
"""


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("worth", "verdict"), [(0.01, HIGHER), (0.0, EQUIVALENT), (-0.01, LOWER)])
def test_is_my_importance_better_than_magnitude(worth: float, verdict: str, tmp_path: Path) -> None:
    made = Sweep(noise=0.0002)
    own = {n.IMPORTANCE: "mine.scores:Mine"}
    mine = [made.weights(seed, level, 2, worth, **own) for seed in made.seeds for level in (0.5, 0.8, 0.9)]
    folder = sweep_study(tmp_path, rows=[*made.rows(), *mine], **yaml.safe_load(MINE))
    page, _ = write_comparison(load_study(folder))
    (found,) = compare(load_sweep(load_study(folder))).to_dict("records")
    assert found["verdict"] == verdict and found["seeds"] == [1, 2, 3, 4] and found["differs"].startswith("importance mine")
    assert (
        f"mine less magnitude (one-shot, fine-tuning, 2 epochs in all): {verdict}" in page.with_name(MARKDOWN).read_text()
    )


BAD: list[tuple[dict[str, Any], str]] = [
    ({"contrasts": {"asked": {**CUTTING, "left": "chian"}}}, "contrasts.asked: 'chian' is no arm; did you mean 'chain'?"),
    ({"contrasts": {"asked": {**CUTTING, "matched": ["leve"]}}}, "'leve' is no column of a point; did you mean 'level'?"),
    ({"contrasts": {"asked": {**CUTTING, "left": {"cuting": "one_shot"}}}}, "did you mean 'cutting'?"),
    (
        {"contrasts": {"asked": {**CUTTING, "left": {"importance": "tailor"}}}},
        "contrasts.asked.left: importance: no network of this study has 'tailor'; did you mean 'taylor'?",
    ),
    (
        {
            "contrasts": {
                "asked": {**CUTTING, "left": {"family": "structured", "cutting": "one_shot", "importance": "taylor"}}
            }
        },
        "contrasts.asked.left: matches no network",
    ),
    (
        {"contrasts": {"asked": {"left": "channels", "right": "one_shot", "matched": ["family"]}}},
        "contrasts.asked: left and right share no seed, family",
    ),
    ({"contrasts": {"asked": {**CUTTING, "at": {"accuracy": [2]}}}}, "give one of compression"),
    ({"contrasts": {"asked": {**CUTTING, "margin": 0}}}, "contrasts.asked.margin"),
    ({"seeds": [{"role": "guess", "seeds": [0]}]}, "seeds.0.role"),
    ({"arms": {"a": {"level": {}}}}, "level: {} is neither a value nor a list of values"),
    ({"arms": {"a": {"level": 1e300}}}, "is neither a value nor a list of values"),
]


@pytest.mark.parametrize(("settings", "told"), BAD)
def test_what_can_t_be_compared_is_one_line(
    settings: dict[str, Any], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sweep_study(tmp_path, **{"arms": ARMS, **settings})
    assert main(["compare", str(folder)]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and told in shown.err
    assert not (folder / n.REPORT_FOLDER).exists()


# The page.

SAYS = '{% extends "comparison.md.j2" %}{% block summary %}\n- CLAIM\n{% endblock %}'


def claimed(folder: Path, claim: str, **settings: Any) -> list[str]:
    """The summary of a page that makes this claim."""
    sweep_study(folder, **{"arms": ARMS, "contrasts": {"asked": CUTTING}, **settings})
    (folder / ANSWERS).write_text(SAYS.replace("CLAIM", claim))
    return write_comparison(load_study(folder))[1]


@pytest.mark.usefixtures("undrawn")
def test_a_sentence_is_filled_in_from_the_frame(tmp_path: Path) -> None:
    claim = 'It {{ verdict("asked", "lower", "keeps less") }}: {{ effect("asked", level=0.9) }}.'
    (told,) = claimed(tmp_path, claim)
    assert told.startswith(f"- It keeps less: {MINUS}") and "points (95% interval" in told and told.endswith("n = 5).")
    (told,) = claimed(
        tmp_path, '{{ hint("asked", "lower", level=[0.8, 0.9]) }}', seeds=[{"role": "tuning", "seeds": [0, 1, 2]}]
    )
    assert told == "- lower (not concluded)"
    (told,) = claimed(
        tmp_path, '{{ mean("channels", "speed_up", level=0.5) }}, {{ mean("channels", "compression", level=0.5) }}'
    )
    assert told == "- 1.62\N{MULTIPLICATION SIGN}, 3.73\N{MULTIPLICATION SIGN}"


REFUSED = {
    '{{ verdict("asked", "higher") }}': "at 80% removed, 4 epochs in all is 'higher', and the frame says 'lower'",
    '{{ hint("asked", "lower") }}': "concludes; say it with verdict()",
    '{{ verdict("aksed", "lower") }}': "did you mean 'asked'?",
    '{{ effect("asked") }}': "asked has 2 tests there, not one",
    '{{ effect("asked", level=0.7) }}': "asked has no test at 70% removed; it has 80% removed",
    '{{ mean("chanels", "macs") }}': "'chanels' is no arm",
    "{{ nothing }}": "'nothing' is undefined",
    "{{ range(10**9) }}": "Range too big",
    "{{ 1 // 0 }}": "by zero",
    "{{ effect.__globals__ }}": "unsafe",
    "{{ effect( }}": "line 2",
}


@pytest.mark.parametrize("claim", REFUSED)
def test_a_page_that_claims_what_the_frame_doesn_t_say_is_not_built(claim: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        claimed(tmp_path, claim)
    assert REFUSED[claim] in str(error.value) and ANSWERS in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / n.REPORT_FOLDER).exists()


def test_a_verdict_of_seeds_that_chose_is_not_built(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not conclude; say it with hint\(\)"):
        claimed(tmp_path, '{{ verdict("asked", "lower") }}', seeds=[{"role": "selection", "seeds": [0, 1, 2]}])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = sweep_study(tmp_path_factory.mktemp("results") / "comparison")
    write_comparison(load_study(study))
    return study


def test_everything_is_written_and_shown(folder: Path) -> None:
    report = folder / n.REPORT_FOLDER
    page, text = (report / PAGE).read_text(), (report / MARKDOWN).read_text()
    for name in ("bytes", "pairs", "epochs", "speed"):
        assert all((report / f"comparison_{name}.{kind}").is_file() for kind in ("png", "svg"))
        assert f'src="comparison_{name}.png"' in page and f"](comparison_{name}.png)" in text
    told = pd.read_csv(report / FRAME)
    assert len(told) == text.partition("## Appendix: all contrasts")[2].partition("\n\n- ")[0].count("\n| ") - 2
    assert not re.search(r"\bnan\b", text.lower()) and "<table>" in page
    assert len(section_of(text, "Summary")) > 3


def test_a_comparison_made_again_is_the_same_and_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    again = shutil.copytree(folder, tmp_path / "again")
    (again / n.REPORT_FOLDER / "comparison_old.csv").write_text("")
    write_comparison(load_study(again))
    one, other = ({f.name: f.read_bytes() for f in (at / n.REPORT_FOLDER).iterdir()} for at in (folder, again))
    assert one == other


def test_nothing_of_a_study_becomes_markup(tmp_path: Path) -> None:
    rows = [row | ({n.IMPORTANCE: HOSTILE} if row[n.IMPORTANCE] == "taylor" else {}) for row in ROWS]
    folder = sweep_study(tmp_path, rows=rows)
    (folder / n.PROVENANCE_FILE).write_text(json.dumps({"versions": {HOSTILE: HOSTILE}}))
    page, _ = write_comparison(load_study(folder))
    shown, text = page.read_text(), page.with_name(MARKDOWN).read_text()
    assert "<script" not in shown and "&lt;script&gt;" in shown and 'href="javascript' not in shown
    assert "<script" not in text and r"\*b\*" in text and r"&lt;/script&gt;\|\$" in text
    assert "<b>" not in html("a", "<b>x</b>")


def test_figures_show_what_moves_and_all_of_it(tmp_path: Path) -> None:
    sweep = load_sweep(load_study(sweep_study(tmp_path, sweep=Sweep(timed=False))))
    assert speed_figure(sweep) is None and bytes_figure(sweep) is not None and epochs_figure(sweep) is not None
    few = [row for row in ROWS if row[n.FAMILY] == n.DENSE or row[n.TOTAL_EPOCHS] == 2]
    page, _ = write_comparison(load_study(sweep_study(tmp_path / "few", rows=few)))
    assert "comparison_epochs" not in page.read_text() and "comparison_bytes" in page.read_text()
    timed = load_sweep(load_study(sweep_study(tmp_path / "timed")))
    figure = speed_figure(timed)
    assert figure is not None
    # Masked networks run as fast as their dense one: their line would be a vertical one.
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [n.STRUCTURED, n.DENSE]
    pairs = pairs_figure(compare(timed), look_of(timed))
    assert pairs is not None
    for panel in pairs.axes:
        drawn = np.concatenate([line.get_xdata() for line in panel.lines]).astype(float)
        assert panel.get_xlim()[0] < drawn.min() and drawn.max() < panel.get_xlim()[1]


def test_the_table_has_the_exercise_s_levels_and_the_best_recipe_of_each_kind(tmp_path: Path) -> None:
    sweep = replace(Sweep(), importances={"magnitude_l2": -0.02, "taylor": 0.0, "random": 0.05})
    table = levels_table(load_sweep(load_study(sweep_study(tmp_path, sweep))))
    assert list(table["removed"]) == ["50%", "80%", "50%", "80%", "20%", "50%"]  # 90% is none of them
    of_channels = table[table["pruning"] == "structured, iterative"]
    assert of_channels["recipe"].str.startswith("taylor").all()  # random is a control, whatever it reaches
    one_shot = table[table["pruning"] == "unstructured, one-shot"]
    assert list(one_shot["epochs"]) == ["2", "4"]


def test_differences_are_words() -> None:
    shares = {-0.00831: f"{MINUS}0.83", 0.00001: "0.00", 0.1: "+10.00"}
    assert {one: signed(one, ACCURACY) for one in shares} == shares
    told = at({"level": 0.9, n.RETRAIN: "lr_rewind", n.TOTAL_EPOCHS: 1.0, n.PRUNER: None, "peak_lr": 0.02})
    assert told == "90% removed, learning-rate rewinding, 1 epoch in all, no pruner, learning rate 0.02"


# The command line.


@pytest.mark.usefixtures("undrawn")
def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sweep_study(tmp_path, arms=ARMS, contrasts={"asked": CUTTING})
    assert main(["compare", str(folder)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "chain less one_shot (80% removed, 4 epochs in all): lower" in shown
        and str(folder / n.REPORT_FOLDER / PAGE) in shown
    )


def test_command_line_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tmp_path / "nowhere")]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and "no such folder" in shown.err
    folder = sweep_study(tmp_path / "study", rows=ROWS[:30])
    (folder / n.CONFIRMED_FILE).write_text('{"step_id": "a", "test_accuracy": -1}\n')
    assert main(["compare", str(folder)]) == 2
    assert "test_accuracy is -1" in capsys.readouterr().err
