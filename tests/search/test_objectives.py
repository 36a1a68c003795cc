"""Objectives: each says everything of itself, and one of the user's own goes the way that ours do."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis.__main__ import main as analyse
from analysis.load import load_study as read_study
from analysis.pareto import excess, front
from search.__main__ import main
from search.records.ledger import Ledger
from search.session import prepare
from search.stages.wrap_up import measure_latencies
from search.study import load_study
from tests import ROOT
from tests.made_up import dense, write_study
from tests.made_up import point as made_up_point
from tests.search_helpers import raw_study, refusal, rows, write
from trainables import own
from trainables.measuring import quiet, timing
from trainables.measuring.chosen import objective
from trainables.measuring.context import SOURCES
from trainables.records import names as n
from trainables.records.methods import OBJECTIVE_KIND, read_methods, to_text
from trainables.records.names import InputError
from trainables.records.objectives import LOG2, OBJECTIVES, Description, Objective, columns_of, gains, reference
from trainables.schedule import StructuredSchedule, UnstructuredSchedule
from trainables.tree import Tree, walk

OWN = '''
"""How sure a network is where it is wrong."""
import torch
from trainables.records.objectives import MINIMISE, Objective
from trainables.training.loop import normalise, tensors


class Overconfidence(Objective):
    """Mean probability of the first class that is named where the answer is wrong."""

    column, label, direction, slack = "overconfidence", "overconfidence", MINIMISE, 0.5

    @torch.no_grad()
    def measure(self, context):
        data = context.data
        images, labels = tensors(data.validation_images, data.validation_labels, context.device)
        sure, said = context.model(normalise(images, data)).softmax(1).max(1)
        wrong = said != labels
        return sure[wrong].mean() if wrong.any() else 0.0
'''
NAME = "own_objective_for_tests:Overconfidence"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the module in it, as the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    give(tmp_path, OWN)
    return tmp_path


def give(folder: Path, source: str) -> None:
    """The module, imported anew."""
    (folder / "own_objective_for_tests.py").write_text(source)
    sys.modules.pop("own_objective_for_tests", None)
    own.cached_hash.cache_clear()


@pytest.mark.parametrize("one", OBJECTIVES.values(), ids=OBJECTIVES)
def test_each_says_everything_of_itself(one: Objective) -> None:
    assert one.name and one.column in n.POINT_COLUMNS and one.label and one.axis and one.noun and type(one).__doc__
    assert set(one.fills) <= set(columns_of()) and {one.column, *one.fills} >= set(one.dense_columns)
    worse, better = (0.7, 0.9) if one.direction == "maximise" else (0.9, 0.7)
    assert one.gain(better, 0.8) > one.gain(0.8, 0.8) > one.gain(worse, 0.8)
    assert one.origin(0.8, 0.1) == one.gain(0.8, 0.8) - one.margin(0.1) <= one.gain(0.8, 0.8)
    if one.scale == LOG2:
        assert abs(one.gain(2.0, 1.0)) == 1 and one.origin(3.0, 0.1) == 0
    assert (one.noise(0.5, 100) == (0.05 if one.quality else 0) and one.halved is not None) or one.quality


def test_accuracy_that_is_never_wrong_has_noise_all_the_same() -> None:
    assert 0 < OBJECTIVES["accuracy"].noise(1.0, 100) == pytest.approx(math.sqrt(0.005 * 0.995 / 100))


@pytest.mark.slow
@pytest.mark.ray
def test_an_objective_of_one_s_own_through_the_command_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = [{"step_ratio": 0.7, "steps": 2}]
    raw = raw_study(here, sweep=sweep, objectives=["accuracy", NAME, "compression"])
    file = write(here, raw)
    told = refusal(["run", str(file)], capsys)
    assert NAME in told and "--allow-code" in told and not (here / "results").exists()

    # The study begins without it: what is stored is measured, and nothing is trained again.
    assert main(["run", str(file), "--set", "objectives=[accuracy, compression]"]) == 0
    folder = here / "results" / "tiny"
    before = rows(folder / n.POINTS_FILE)
    capsys.readouterr()

    assert main(["run", str(file), "--allow-code"]) == 0
    shown = capsys.readouterr().out
    points = rows(folder / n.POINTS_FILE)
    assert "overconfidence" in shown and len(points) == 3
    assert [{key: row[key] for key in before[0]} for row in points] == before
    assert all(0 < row["overconfidence"] <= 1 for row in points)
    record = json.loads((folder / n.STEPS_FOLDER / points[1][n.STEP_ID] / n.STEP_FILE).read_bytes())
    assert record[SOURCES] == {"overconfidence": own.source_hash(NAME)}
    assert set(read_methods(folder / n.METHODS_FILE)[OBJECTIVE_KIND]) == {"accuracy", NAME, "compression"}

    assert analyse(["report", str(folder)]) == 0
    assert "overconfidence" in capsys.readouterr().out
    study = read_study(folder)
    assert (study.objectives[1].name, study.pruned["overconfidence"].notna().all()) == (NAME, True)
    assert (folder / n.REPORT_FOLDER / "other_axes.svg").is_file()
    page = (folder / n.REPORT_FOLDER / "index.html").read_text()
    header = (folder / n.REPORT_FOLDER / "front.csv").read_text().splitlines()[0]
    assert "overconfidence" in page and "overconfidence" in header

    settings = load_study(file, trusted=True)
    ledger = Ledger(folder, settings.goals, settings.reference.accuracy_drop)
    best = front(study.pruned, study.objectives, study.dense)
    assert set(best[n.STEP_ID]) == set(ledger.front)

    # Another source: measured again of the stored networks, and nothing is trained.
    give(here, OWN.replace("return sure", "return 0.5 * sure"))
    assert main(["run", str(file), "--allow-code"]) == 0
    assert "told anew" in capsys.readouterr().out
    again = {row[n.STEP_ID]: row for row in rows(folder / n.POINTS_FILE)}
    assert len(again) == len(points)
    for row in points:
        other = again[row[n.STEP_ID]]
        assert other["overconfidence"] == pytest.approx(row["overconfidence"] / 2)
        assert (other[n.ACCURACY], other[n.EPOCHS]) == (row[n.ACCURACY], row[n.EPOCHS])


def test_another_source_is_measured_again_and_a_new_column_is_filled(tree: Tree, here: Path) -> None:
    schedule = UnstructuredSchedule(step_ratio=0.5, steps=1, fine_tune_epochs=1)
    node = tree.chain(schedule)[0]
    before = tree.point(node, schedule, 1)
    assert "overconfidence" not in before

    tree.objectives = [objective(NAME, trusted=True)]
    trained = tree.epochs
    first = tree.point(node, schedule, 1)
    assert {key: first[key] for key in (n.ACCURACY, n.COMPRESSION)} == {
        key: before[key] for key in (n.ACCURACY, n.COMPRESSION)
    }
    assert first["overconfidence"] > 0 and first[n.REUSED]

    give(here, OWN.replace("return sure", "return 0.5 * sure"))
    tree.objectives = [objective(NAME, trusted=True)]
    assert tree.point(node, schedule, 1)["overconfidence"] == pytest.approx(first["overconfidence"] / 2)
    assert tree.epochs == trained

    tree.store.discard_weights(node.id)
    give(here, OWN)
    tree.objectives = [objective(NAME, trusted=True)]
    assert tree.point(node, schedule, 1)["overconfidence"] == first["overconfidence"]
    assert tree.epochs == trained + 1  # its weights were gone, and it is an objective


@pytest.mark.parametrize("weights", [True, False], ids=["stored", "gone"])
def test_a_column_of_ours_that_an_older_record_lacks_is_filled_where_that_is_cheap(
    tree: Tree, weights: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Widest(Objective):
        name, column, label = "widest", "widest_layer", "weights of the widest layer"

        def measure(self, context: Any) -> float:
            return max(total for _, total in context.counts.layers.values())

    schedule = UnstructuredSchedule(step_ratio=0.5, steps=1, fine_tune_epochs=1)
    node = tree.chain(schedule)[0]
    tree.point(node, schedule, 1)
    trained = tree.epochs
    if not weights:
        tree.store.discard_weights(node.id)
    ours = ("trainables.tree.OURS", "trainables.tree.MEASURED")
    for place, more in zip(ours, (Widest(), "widest_layer"), strict=True):
        module, _, name = place.rpartition(".")
        monkeypatch.setattr(place, (*getattr(sys.modules[module], name), more))
    point = tree.point(node, schedule, 1)
    assert (point["widest_layer"] is not None) == weights and point[n.REUSED] and tree.epochs == trained


NO_OBJECTIVE = {
    "no class": ("Overconfidence = len", "is no subclass"),
    "arguments": (OWN.replace("    column, ", "    def __init__(self, size): ...\n\n    column, "), "can't be made"),
    "a column of ours": (OWN.replace('"overconfidence", "over', '"macs", "over'), "there is a column of this name"),
    "no column": (OWN.replace('"overconfidence", "over', '"Over confidence", "over'), "column"),
    "a formula": (OWN.replace('"overconfidence", MINI', '"=1+1", MINI'), "label"),
    "mathematics": (OWN.replace('"overconfidence", MINI', '"$x_{$", MINI'), "label"),
    "a gain": (OWN + "\n    def gain(self, value, dense):\n        return 0.0\n", "gain of its own"),
    "not found": ("", "has no class 'Overconfidence'"),
}  # fmt: skip


@pytest.mark.parametrize(("source", "told"), NO_OBJECTIVE.values(), ids=NO_OBJECTIVE)
def test_what_is_no_objective_is_refused(source: str, told: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    give(here, source)
    file = write(here, raw_study(here, objectives=["accuracy", NAME]))
    assert told in refusal(["run", str(file), "--allow-code"], capsys)
    assert not (here / "results").exists()


@pytest.mark.parametrize("value", ["float('nan')", "1 / 0", "'many'", "2.0 ** 60"])
def test_what_measures_no_number_is_told(value: str, tree: Tree, here: Path) -> None:
    give(here, OWN.replace("sure[wrong].mean() if wrong.any() else 0.0", value))
    tree.objectives = [objective(NAME, trusted=True)]
    with pytest.raises(InputError, match=f"objectives: '{NAME}'.*correct"):
        tree.dense_point(0)


def test_analysis_knows_an_objective_by_its_description(tmp_path: Path) -> None:
    described = {"column": "joules", "label": "energy", "unit": "J", "direction": "minimise", "scale": "log2"}
    some = [dense(joules=8.0), made_up_point(joules=2.0), made_up_point(step_id="b", trial=1, accuracy=0.93, joules=4.0)]
    folder = write_study(tmp_path, some, settings={"objectives": ["accuracy", "lab.power:Energy"]})
    with pytest.raises(InputError, match=r"'lab\.power:Energy' cannot be used"):
        read_study(folder)
    (folder / n.METHODS_FILE).write_text(to_text({OBJECTIVE_KIND: {"lab.power:Energy": described}}))
    study = read_study(folder)
    assert list(excess(study.pruned, study.objectives, study.dense)[:, 1]) == [2, 1]
    assert study.objectives[1].axis == "reduction of energy (dense / pruned)"
    assert analyse(["report", str(folder)]) == 0
    assert "reduction of energy" in (folder / n.REPORT_FOLDER / "index.html").read_text()


BROKEN = {
    "no JSON": "{", "a list": "[]", "no mapping": '{"objectives": 3}', "no description": '{"objectives": {"a:B": 1}}',
    "a path": {"column": "../../x"}, "a column of ours": {"column": "accuracy"}, "direction": {"direction": "sideways"},
    "a terminal's": {"label": "\x1b[2J"}, "mathematics": {"label": "$\\frac{$"}, "slack": {"slack": -1.0},
    "long": {"label": "x" * 1000}, "missing": {"scale": None},
}  # fmt: skip


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_descriptions_are_data_from_anyone(content: str | dict[str, Any], tmp_path: Path) -> None:
    folder = write_study(tmp_path, [dense(), made_up_point()], settings={"objectives": ["accuracy", "a:B"]})
    good = {"column": "joules", "label": "energy", "unit": "J", "direction": "minimise", "scale": "log2"}
    text = content if isinstance(content, str) else to_text({OBJECTIVE_KIND: {"a:B": good | content}})
    (folder / n.METHODS_FILE).write_text(text)
    with pytest.raises(InputError, match=n.METHODS_FILE) as told:
        read_study(folder)
    assert "\n" not in str(told.value) and "\x1b" not in str(told.value)


def test_a_point_s_own_value_of_a_linear_objective_is_its_gain() -> None:
    class Linear(Objective):
        name, column, label, direction, slack = "a:B", "joules", "energy", "minimise", 2.0

        def measure(self, context: Any) -> float:
            return float(len(context.content))

    root = {n.ACCURACY: 0.9, "joules": 8.0}
    both = ("accuracy", Linear())
    assert gains({n.ACCURACY: 0.8, "joules": 3.0}, root, both) == [0.8, -3.0]
    assert reference(root, both, 0.1) == [0.8, -10.0]
    assert Description.model_validate(Linear().describe()).slack == 2.0


def test_a_latency_that_is_named_only_since_is_measured_of_every_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them is on a front before: a front is of points that have a value on every objective."""
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.01)
    monkeypatch.setattr(quiet.tempfile, "gettempdir", lambda: str(tmp_path))
    study = load_study(write(tmp_path, raw_study(tmp_path, objectives=["accuracy", "macs", "latency"])))
    session = prepare(study)
    ledger = Ledger(tmp_path, study.goals, study.drop)
    ledger.add_dense(session.tree.dense_point(0))
    for trial, kind in enumerate((UnstructuredSchedule, StructuredSchedule)):
        for row in walk(kind(step_ratio=0.5, fine_tune_epochs=0), session.tree):
            ledger.add({**row, n.TRIAL: trial})
    assert not ledger.front
    measure_latencies(session, ledger, Console(quiet=True))
    assert all(row[n.LATENCY] and row[n.LATENCY_DENSE] for row in ledger.points)
