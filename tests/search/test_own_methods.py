"""Methods of the user's own, through the command line: they run, are told like ours, and their source is in the steps."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search.__main__ import main
from tests import ROOT
from tests.conftest import ray_of_one_core
from tests.search_helpers import raw_study, refusal, rows, write
from trainables import own
from trainables.methods import Registry
from trainables.pruning.channel_importances import CHANNEL_IMPORTANCES
from trainables.pruning.weight_importances import WEIGHT_IMPORTANCES
from trainables.records import names as n
from trainables.training.retraining import RETRAININGS

MODULE = "methods_of_a_users_own"
METHODS = '''
"""Methods as a user would write them."""
import torch_pruning as tp
from pydantic import Field

from trainables.networks.anatomy import weights
from trainables.pruning.channel_importances import ChannelImportance
from trainables.pruning.weight_importances import WeightImportance
from trainables.training.loop import LearningRate
from trainables.training.retraining import Plan, Retraining


class Square(WeightImportance):
    """w to a power, which ranks as |w| does."""

    power: float = Field(2.0, gt=0)

    def scores(self, network, sample):
        return {name: weight.detach().abs() ** self.power for name, weight in weights(network.model).items()}


class Fourth(ChannelImportance):
    """L4 norm of a channel."""

    def scorer(self, model, sample):
        return tp.importance.MagnitudeImportance(p=4)


class Slow(Retraining):
    """At a tenth of the dense peak."""

    epochs: int = 1

    def plan(self, dense):
        rate = 0.1 * dense.learning_rate
        return Plan(LearningRate((0.0, 1.0), (rate, rate)), 0, self.epochs)


class Nothing:
    pass
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a module of methods."""
    (tmp_path / f"{MODULE}.py").write_text(METHODS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield tmp_path
    forget()


def forget() -> None:
    """As a new process would: nothing of the user's own is known."""
    sys.modules.pop(MODULE, None)
    own.cached_hash.cache_clear()
    registries: tuple[Registry[Any], ...] = (WEIGHT_IMPORTANCES, CHANNEL_IMPORTANCES, RETRAININGS)
    for registry in registries:
        registry._own.clear()


def study(here: Path, **changes: Any) -> Path:
    sweep = [
        {"importance": "magnitude", "step_ratio": 0.5, "steps": 2},
        {"importance": f"{MODULE}:Square", "step_ratio": 0.5, "retrain": f"{MODULE}:Slow", "fine_tune_epochs": 2},
        {"family": "structured", "importance": f"{MODULE}:Fourth", "step_ratio": 0.3},
    ]
    return write(here, raw_study(here, sweep=sweep, storage="results", **changes))


@pytest.fixture
def here_with_ray(here: Path) -> Iterator[Path]:
    """One Ray for several studies, started where the module is."""
    with ray_of_one_core():
        yield here


@pytest.mark.slow
@pytest.mark.ray
def test_they_run_and_are_told_as_ours_are(here_with_ray: Path) -> None:
    here = here_with_ray
    assert main(["run", str(study(here)), "--allow-code"]) == 0
    folder = here / "results" / "tiny"
    assert [row[n.STATE] for row in rows(folder / n.TRIALS_FILE)] == [n.COMPLETE] * 3
    points = rows(folder / n.POINTS_FILE)
    told = {(row[n.IMPORTANCE], row[n.RETRAIN], row[n.FINE_TUNE_EPOCHS]) for row in points if row[n.STEP]}
    assert (f"{MODULE}:Square", f"{MODULE}:Slow", 2) in told
    assert (f"{MODULE}:Fourth", "fine_tune", 1) in told
    paid = {row[n.STEP_ID]: row[n.EPOCHS] for row in points}

    # Another source is another method, and the steps of ours are found.
    (here / f"{MODULE}.py").write_text(METHODS.replace("0.1 * dense", "0.2 * dense"))
    forget()
    changed = study(here, name="changed")
    assert main(["run", str(changed), "--allow-code"]) == 0
    again = [row for row in rows(here / "results" / "changed" / n.POINTS_FILE) if row[n.STEP]]
    assert {row[n.IMPORTANCE] for row in again if row[n.STEP_ID] in paid} == {"magnitude"}
    assert len(again) == 4

    # Nothing that only a folder of results names is imported.
    forget()
    said = main(["export", str(folder), "--point", points[-1][n.STEP_ID], "--to", str(here / "out.safetensors")])
    assert said == 2
    assert MODULE not in sys.modules
    arguments = ["export", str(folder), "--point", points[1][n.STEP_ID], "--to", str(here / "out.safetensors")]
    (here / f"{MODULE}.py").write_text(METHODS)
    assert main([*arguments, "--allow-code"]) == 0


def test_settings_of_ones_own_count(here: Path) -> None:
    from search.session import prepare  # noqa: PLC0415
    from search.study import load_study  # noqa: PLC0415

    def ids(**changes: Any) -> list[str]:
        found = load_study(study(here, **changes), trusted=True)
        problem = prepare(found, trusted=True).tree.problem
        return [problem.chain(schedule)[-1].id for schedule in found.schedules()]

    plain, cubed = ids(), ids(methods={f"{MODULE}:Square": {"power": 3.0}})
    assert [one == other for one, other in zip(plain, cubed, strict=True)] == [True, False, True]


def test_what_cannot_be_used_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(study(here))
    line = refusal(["run", file], capsys)
    assert "would run code of yours; add --allow-code" in line
    assert not (here / "results").exists()
    for name, words in (
        (f"{MODULE}:Sqare", "has no class 'Sqare'; did you mean 'Square'?"),
        (f"{MODULE}:Nothing", "is no WeightImportance"),
        ("no_such_module_of_ones_own:Square", "cannot be imported"),
        (f"{MODULE}:Slow", "is no WeightImportance"),
    ):
        sweep = [{"importance": name, "step_ratio": 0.5}]
        wrong = write(here, raw_study(here, sweep=sweep, storage="results"), "wrong.yaml")
        assert words in refusal(["run", str(wrong), "--allow-code"], capsys)
    for methods, words in (
        ({f"{MODULE}:Square": {"power": -1}}, "power: -1 cannot be used"),
        ({f"{MODULE}:Square": {"pwer": 1}}, "unknown key 'pwer'"),
        ({f"{MODULE}:Nothing": {}}, "is named nowhere"),
    ):
        assert words in refusal(["run", str(study(here, methods=methods)), "--allow-code"], capsys)


def test_a_network_of_ones_own_that_changed_is_another_network(here: Path) -> None:
    from tests.conftest import digits_problem  # noqa: PLC0415
    from trainables.networks.factory import ModelSettings  # noqa: PLC0415

    def root() -> str:
        own.cached_hash.cache_clear()
        return digits_problem(model=ModelSettings(name=f"{MODULE}:net"), trusted=True).root(0).id

    layers = "nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)"
    network = f"from torch import nn\n\n\ndef net(num_classes):\n    return nn.Sequential({layers})\n"
    (here / f"{MODULE}.py").write_text(network)
    before = root()
    (here / f"{MODULE}.py").write_text(network.replace("ReLU", "Sigmoid"))
    assert root() != before
    (here / f"{MODULE}.py").write_text(network)
    assert root() == before
