"""What mattered: importances, marginal fronts and the sentences made from them, on made-up points."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import trainables.records.names as n
from analysis.effects.family import FEWEST, Family, contribution, families, shortfall
from analysis.effects.figures import importance_figure
from analysis.effects.importances import CHANCE, FRONT, SETTING, SHARE, TARGET, importances
from analysis.effects.marginals import BEHIND, LUCK, NETWORKS, VALUE, marginals, span
from analysis.effects.permutation import LEVEL, areas, chances
from analysis.effects.section import verdicts, what_mattered
from analysis.effects.sentences import NO_DIFFERENCE, over, validation_images, verdict
from analysis.load import load_study
from analysis.pareto import HYPERVOLUME
from analysis.report import write_report
from tests.made_up import dense, point, write_study
from trainables.records.fronts import volume
from trainables.records.objectives import ACCURACY, COMPRESSION

HOSTILE = "<script>alert(1)</script> $\\frac{$"


def rows(count: int = 240, lost: dict[Any, float] | None = None, column: str = n.IMPORTANCE, seed: int = 0) -> list[Any]:
    """Networks whose accuracy depends on their compression, on the values of one setting, and on some noise."""
    draw = random.Random(seed)
    lost = {"magnitude": 0.0, "taylor": 0.02, "random": 0.04} if lost is None else lost
    found = [dense()]
    for number in range(count):
        settings: dict[str, Any] = {
            n.IMPORTANCE: draw.choice(("magnitude", "taylor", "random")), n.SCOPE: draw.choice(("global", "layerwise")),
            n.STEP_RATIO: draw.choice((0.3, 0.5, 0.8)), n.RETRAIN: draw.choice(("fine_tune", "lr_rewind")),
            n.FINE_TUNE_EPOCHS: draw.choice((1, 2, 4)), n.STEP: draw.randint(1, 4),
        }  # fmt: skip
        settings[column] = draw.choice(list(lost))
        doublings = draw.uniform(0.1, 4)
        accuracy = 0.96 - 0.01 * doublings - lost[settings[column]] + draw.gauss(0, 0.001)
        found.append(point(**settings) | {n.STEP_ID: f"s{number}", n.ACCURACY: accuracy, n.COMPRESSION: 2**doublings})
    return found


def test_no_bar_is_cut() -> None:
    shares = {"accuracy": (0.3, 0.1), "compression": (0.9, 0.0)}
    told = [
        {n.FAMILY: "a", TARGET: target, SETTING: name, SHARE: share}
        for target, both in shares.items()
        for name, share in zip(("scope", "steps"), both, strict=True)
    ]
    figure = importance_figure(pd.DataFrame(told).assign(**{CHANCE: 0.05}))
    assert all(bar.get_width() <= panel.get_xlim()[1] for panel in figure.axes for bar in panel.patches)  # type: ignore[attr-defined]


def only_family(folder: Path, points: list[Any]) -> Family:
    return next(families(load_study(write_study(folder, points)), COMPRESSION))


@pytest.mark.parametrize(
    "setting, column, lost",
    [
        ("importance", n.IMPORTANCE, None),
        ("scope", n.SCOPE, {"global": 0.0, "layerwise": 0.03}),
        ("step ratio", n.STEP_RATIO, {0.3: 0.0, 0.5: 0.01, 0.8: 0.03}),
        ("fine-tune epochs", n.FINE_TUNE_EPOCHS, {1: 0.03, 2: 0.01, 4: 0.0}),
    ],
)
@pytest.mark.parametrize("count", [80, 240])
def test_the_one_setting_that_matters_is_found(tmp_path: Path, count: int, setting: str, column: str, lost: Any) -> None:
    table = importances(only_family(tmp_path, rows(count, lost, column)))
    assert np.allclose(table.groupby(TARGET)[SHARE].sum(), 1)
    front = table[table[TARGET] == FRONT].set_index(SETTING)
    assert front[SHARE].idxmax() == setting and front.loc[setting, SHARE] > 0.5
    assert list(front.index[front[SHARE] > front[CHANCE]]) == [setting]


def test_where_nothing_matters_little_exceeds_the_shuffles(tmp_path: Path) -> None:
    flat = {"magnitude": 0.0, "taylor": 0.0, "random": 0.0}
    tables = [importances(only_family(tmp_path / str(seed), rows(120, flat, seed=seed))) for seed in range(5)]
    front = pd.concat(table[table[TARGET] == FRONT] for table in tables)
    assert len(front) == 30 and (front[SHARE] > front[CHANCE]).sum() <= 4


def test_equal_targets_have_no_importance(tmp_path: Path) -> None:
    equal = [row | {n.ACCURACY: 0.9, n.COMPRESSION: 2.0} if row[n.STEP] else row for row in rows(40)]
    assert importances(only_family(tmp_path, equal))[SHARE].eq(0).all()


def test_a_setting_that_some_networks_lack_is_judged_among_the_others(tmp_path: Path) -> None:
    points = rows(120, {0: 0.0, 1: 0.03, 2: 0.0}, n.SPARSE_EPOCHS)
    family = only_family(tmp_path, points)
    assert sorted(family.values("sparse epochs").dropna().unique()) == [1, 2]
    assert "sparse epochs" in set(importances(family)[SETTING])


def test_shortfall_in_closed_form() -> None:
    plane = np.array([[0.05, 1.0], [0.03, 2.0], [0.02, 1.0], [0.03, 0.5], [-0.04, 3.0]])
    # The last is the front's end, but lies below the reference.
    assert shortfall(plane) == pytest.approx([0.0, 0.0, 0.03, 0.02, 0.04])


def test_contribution_in_closed_form() -> None:
    staircase = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0], [1.0, 1.0], [-1.0, 9.0]])
    assert contribution(staircase) == pytest.approx([1.0, 1.0, 1.0, 0.0, 0.0])
    assert contribution(np.array([[1.0, 1.0], [1.0, 1.0]])).sum() == 0 and not len(contribution(np.empty((0, 2))))


def test_marginals_in_closed_form(tmp_path: Path) -> None:
    points = [dense()]
    for importance, accuracy in (("magnitude", DENSE_LESS_2), ("random", DENSE_LESS_2 - 0.03)):
        for number in range(FEWEST):
            row = {n.ACCURACY: accuracy, n.COMPRESSION: 4.0, n.STEP_ID: f"{importance}{number}"}
            points.append(point(importance=importance) | row)
    family = only_family(tmp_path, points)
    table = marginals(family).set_index(VALUE)
    assert span(family) == pytest.approx(2.0)
    assert table.loc["magnitude", HYPERVOLUME] == pytest.approx(0.08 * 2)
    assert table[BEHIND].to_dict() == pytest.approx({"magnitude": 0.0, "random": 0.03})
    assert table["median_shortfall"].to_dict() == pytest.approx({"magnitude": 0.0, "random": 0.03})


DENSE_LESS_2 = 0.962 - 0.02


def told(behind: dict[str, float], networks: int | list[int] = 20, images: int | None = 5000, luck: float = 0.002) -> str:
    counts = networks if isinstance(networks, list) else [networks] * len(behind)
    table = pd.DataFrame(
        {
            SETTING: "pruner", VALUE: list(behind), NETWORKS: counts, BEHIND: list(behind.values()),
            HYPERVOLUME: [0.3 - 3 * gap for gap in behind.values()], LUCK: [None, *[luck] * (len(behind) - 1)],
        }
    )  # fmt: skip
    error = ACCURACY.noise(0.75, images) if images else None
    return verdict(table, error, images, over(COMPRESSION, 3), LEVEL)


def test_a_lead_beyond_the_standard_error_is_told_as_one() -> None:
    text = told({"lamp": 0.0, "base": 0.012})
    assert text.startswith("lamp [20] leads: on average over compression up to 8.00")
    assert "1.20 points of accuracy above that of base [20]" in text
    assert "in 0.2% of the shuffles (a lead: in 5.0% at most)" in text
    assert "The standard error of an accuracy on 5,000 validation images is 0.61 points" in text


def test_the_sentence_changes_with_the_numbers() -> None:
    assert told({"base": 0.0, "lamp": 0.012}).startswith("base [20] leads")
    close = told({"lamp": 0.0, "base": 0.002, "bn_scale": 0.03})
    assert close.startswith(f"{NO_DIFFERENCE} between lamp [20] and base [20], 0.20 points apart")
    assert "behind the first: bn_scale [20], by 3.00 points" in close
    # The same lead is one on more images.
    assert "leads" in told({"lamp": 0.0, "base": 0.002, "bn_scale": 0.03}, images=500_000)


def test_ties_are_told_as_ties() -> None:
    for images in (5000, None):
        assert told({"a": 0.0, "b": 0.0}, images=images).startswith(
            f"{NO_DIFFERENCE} between a [20] and b [20], 0.00 points"
        )


def test_without_a_count_of_images_noise_is_not_judged() -> None:
    text = told({"a": 0.0, "b": 0.01}, images=None)
    assert "a [20] leads" in text and "not recorded" in text and "standard error" not in text
    assert told({"a": 0.0, "b": 0.01}, images=None, luck=0.06).startswith(NO_DIFFERENCE)
    for broken in ({}, {"data": 3}, {"data": {"validation_images": True}}, {"data": {"validation_images": "9"}}):
        assert validation_images(broken) is None
    assert validation_images({"data": {"validation_images": 9}}) == 9


def test_a_lead_that_shuffles_reach_is_none() -> None:
    text = told({"a": 0.0, "b": 0.02}, luck=0.051)
    assert text.startswith(f"{NO_DIFFERENCE} between a [20] and b [20], 2.00 points apart; shuffled networks come")


def test_areas_are_hypervolumes() -> None:
    draw = np.random.default_rng(0)
    plane, labels = draw.uniform(-0.2, 1, (60, 2)), draw.integers(0, 3, (5, 60))
    expected = [[volume(plane[labelling == value]) for value in range(3)] for labelling in labels]
    np.testing.assert_allclose(areas(plane, labels, 3), expected)


def test_chances_of_a_gap_in_closed_form() -> None:
    """Four networks, two of each value and each a chain: the two best have the same value in a third of the labellings."""
    plane, ranks = np.array([[0.9, 1.0], [0.9, 1.0], [0.1, 1.0], [0.1, 1.0]]), np.array([0, 0, 1, 1])
    assert chances(plane, ranks, np.arange(4)) == pytest.approx([1 / 3], abs=0.05)
    assert chances(plane, ranks, np.array([0, 0, 1, 1])) == [1.0]  # of two chains, one must be the better
    assert chances(plane[:0], ranks[:0], ranks[:0]) == []


def test_of_many_networks_the_same_shuffles_are_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    plane, ranks, chains = draw.random((60, 2)), np.arange(60) % 3, np.arange(60) % 30
    whole = chances(plane, ranks, chains)
    monkeypatch.setattr("analysis.effects.permutation.AT_ONCE", 60 * 7)
    assert chances(plane, ranks, chains) == whole


def test_a_lead_by_numbers_alone_is_none() -> None:
    """The best of 75 are better than the best of 8 by luck, nearly always; shuffles keep the numbers, and know it."""
    ahead, told_apart = 0, 0
    for seed in range(40):
        draw = np.random.default_rng(seed)
        plane = np.column_stack([draw.normal(0.08, 0.01, 83), draw.uniform(0.1, 4, 83)])
        labels = (np.arange(83) >= 75).astype(np.intp)
        many, few = areas(plane, labels[None], 2)[0]
        ahead += many > few
        told_apart += chances(plane, labels if many > few else 1 - labels, np.arange(83))[0] <= LEVEL
    assert ahead >= 38 and told_apart <= 4


IMAGES_OF_DIGITS = 719


def without_effect(
    seed: int, count: int = 60, values: Sequence[str] = ("magnitude", "taylor", "random"), lost: Sequence[float] = (0, 0, 0)
) -> list[Any]:
    """Networks apart from one another, whose counts of right answers are binomial."""
    draw = np.random.default_rng(seed)
    found = [dense()]
    for number in range(count):
        which, doublings = int(draw.integers(len(values))), draw.uniform(0.1, 4)
        right = draw.binomial(IMAGES_OF_DIGITS, 0.96 - 0.01 * doublings - lost[which]) / IMAGES_OF_DIGITS
        settings = {
            n.IMPORTANCE: values[which], n.SCOPE: str(draw.choice(["global", "layerwise"])),
            n.STEP_RATIO: float(draw.choice([0.3, 0.5, 0.8])), n.RETRAIN: str(draw.choice(["fine_tune", "lr_rewind"])),
            n.FINE_TUNE_EPOCHS: int(draw.choice([1, 2, 4])), n.STEP: int(draw.integers(1, 5)),
        }  # fmt: skip
        found.append(point(**settings) | {n.STEP_ID: f"s{number}", n.ACCURACY: right, n.COMPRESSION: 2**doublings})
    return found


def share_that_leads(folder: Path, studies: int, setting: str | None = None, **options: Any) -> float:
    """Share of reports that name a leader of this setting, or of any."""
    found = 0
    provenance = json.dumps({"data": {"validation_images": IMAGES_OF_DIGITS}})
    for seed in range(studies):
        study = write_study(folder / str(seed), without_effect(seed, **options))
        (study / n.PROVENANCE_FILE).write_text(provenance)
        loaded = load_study(study)
        family = next(families(loaded, COMPRESSION))
        said = verdicts(loaded, family, marginals(family))
        found += any("] leads" in said[name] for name in ([setting] if setting else said))
    return found / studies


def test_without_an_effect_a_leader_is_seldom_named(tmp_path: Path) -> None:
    """With one standard error as the margin, 3 importances without effect had a "leader" in 31% of such studies."""
    assert share_that_leads(tmp_path, 40) <= 0.05


def test_of_two_equal_values_above_a_third_none_is_named(tmp_path: Path) -> None:
    assert share_that_leads(tmp_path, 30, "importance", lost=(0, 0, 0.1)) <= 0.1


def test_a_clear_effect_is_still_named(tmp_path: Path) -> None:
    assert share_that_leads(tmp_path, 20, "importance", lost=(0, 0.03, 0.06)) >= 0.8


def test_values_with_few_networks_are_left_out() -> None:
    assert "fewer than two values" in told({"a": 0.0, "b": 0.02}, [90, 4])
    assert "Not compared, with fewer than 5 networks: b." in told({"a": 0.0, "c": 0.01, "b": 0.02}, [90, 40, 4])


@pytest.mark.usefixtures("undrawn")
def test_beyond_the_reference_nothing_leads(tmp_path: Path) -> None:
    collapsed = [row | {n.ACCURACY: 0.2} if row[n.STEP] else row for row in rows(40)]
    page = write_report(load_study(write_study(tmp_path, collapsed))).read_text()
    assert "no network lies beyond the reference of the hypervolume" in page and "] leads" not in section(page)


def section(page: str) -> str:
    return re.sub(r"<[^>]+>", "", page[page.index("<h2>What mattered") : page.index("<h2>How the search went")])


@pytest.mark.usefixtures("undrawn")
def test_the_page_answers(tmp_path: Path) -> None:
    study = write_study(tmp_path, rows(), settings={"objectives": ["accuracy", "compression", "macs"]})
    (study / n.PROVENANCE_FILE).write_text(json.dumps({"data": {"validation_images": 100_000}}))
    text = section(write_report(load_study(study)).read_text())
    assert re.search(r"Importance: magnitude \[\d+\] leads", text) and "importance (" in text
    assert "PED-ANOVA" in text and "on 100,000 validation images" in text
    names = {path.name for path in (study / n.REPORT_FOLDER).iterdir()}
    assert {"importances.png", "marginals_unstructured.svg", "importances.csv", "marginals.csv"} <= names


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("count", [1, FEWEST - 1])
def test_too_few_networks_are_told(tmp_path: Path, count: int) -> None:
    study = load_study(write_study(tmp_path, rows(count)))
    text = section(write_report(study).read_text())
    assert f"Too few networks to say what mattered: {count} measured, {FEWEST} are needed." in text
    assert not what_mattered(study, COMPRESSION).figures


@pytest.mark.usefixtures("undrawn")
def test_one_recipe_alone_has_nothing_to_compare(tmp_path: Path) -> None:
    same = [dense(), *(point() | {n.STEP_ID: f"s{i}"} for i in range(FEWEST))]
    text = section(write_report(load_study(write_study(tmp_path, same))).read_text())
    assert "All networks have the same settings" in text


def test_steps_alone_have_importances_but_no_fronts(tmp_path: Path) -> None:
    chain = [dense(), *(point(step=i % 4 + 1, compression=1.5 + i) | {n.STEP_ID: f"s{i}"} for i in range(FEWEST))]
    study = load_study(write_study(tmp_path, chain))
    assert list(what_mattered(study, COMPRESSION).figures) == ["importances"] and write_report(study).is_file()


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    study = write_study(tmp_path, rows(80, {HOSTILE: 0.0, "a$b$": 0.02, "x" * 500: 0.03}))
    page = write_report(load_study(study)).read_text()
    assert HOSTILE not in page and "&lt;script&gt;" in section_raw(page) and "x" * 41 not in section_raw(page)


def section_raw(page: str) -> str:
    return page[page.index("<h2>What mattered") : page.index("<h2>How the search went")]
