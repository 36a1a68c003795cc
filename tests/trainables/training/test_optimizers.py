"""Optimizers, schedules and given recipes: what they do, and that what was there before keeps its address."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import MakeProblem, same_state, state_of
from trainables import own
from trainables.data.dataset import Data
from trainables.networks.factory import ModelSettings
from trainables.records.names import InputError
from trainables.schedule import UnstructuredSchedule
from trainables.settings import parse
from trainables.storage.folder import Folder
from trainables.training import resuming
from trainables.training.loop import DenseSettings, LearningRate, Recipe, dense_schedule, fit
from trainables.training.optimizers import OPTIMIZERS, AdamW, Optimizer, Sgd
from trainables.training.resuming import Resumable
from trainables.training.retraining import FineTune, LrRewind

OWN = '''
import torch
from trainables.training.optimizers import Optimizer


class Signs(Optimizer):
    """RMSprop."""

    alpha: float = 0.9

    def make(self, parameters, momentum, weight_decay):
        return torch.optim.RMSprop(parameters, lr=0.0, alpha=self.alpha, momentum=momentum)


class Nothing(Optimizer):
    """None."""

    def make(self, parameters, momentum, weight_decay):
        return None
'''


def recipe(optimizer: Optimizer, **changes: Any) -> Recipe:
    fields = {"rate": LearningRate((0.0, 2.0), (0.01, 0.0)), "start": 0, "stop": 2, "batch_size": 128, **changes}
    return Recipe(**fields, momentum=0.9, weight_decay=5e-4, precision="fp32", optimizer=optimizer)


def trained(
    problem: MakeProblem, data: Data, wanted: Recipe, resumable: Resumable | None = None, **hooks: Any
) -> nn.Module:
    torch.manual_seed(0)
    model = problem().build()
    fit(model, data, wanted, 0, resumable=resumable, **hooks)
    return model


@pytest.mark.parametrize(
    ("decay", "rates"),
    [("linear", (0.1, 0.5, 0.25, 0.0)), ("cosine", (0.1, 0.5, 0.25, 0.0)), ("constant", (0.1, 0.5, 0.5, 0.5))],
)
def test_schedules_decay_as_they_say(decay: str, rates: tuple[float, ...]) -> None:
    dense = DenseSettings(epochs=10, learning_rate=0.5, warmup=0.2, decay=decay)
    assert [dense_schedule(dense).at(epoch) for epoch in (0, 2, 6, 10)] == pytest.approx([rates[0] / 2, *rates[1:]])
    quarter = {"linear": 0.375, "cosine": 0.25 * (1 + 0.5**0.5), "constant": 0.5}[decay]
    assert dense_schedule(dense).at(4) == pytest.approx(quarter)


def test_what_is_as_before_keeps_its_address(problem: MakeProblem) -> None:
    def ids(**dense: Any) -> tuple[str, str]:
        made = problem(dense=dense)
        return made.root(0).id, made.chain(UnstructuredSchedule(step_ratio=0.5))[0].id

    usual = ids()
    assert ids(optimizer="sgd", decay="linear", clip_norm=None) == usual
    others = [ids(**change) for change in ({"optimizer": "adamw"}, {"decay": "cosine"}, {"clip_norm": 1.0})]
    assert len({usual, *others}) == 4
    assert set(problem().root(0).settings["dense"]).isdisjoint({"optimizer", "decay", "clip_norm", "recipe"})


def test_a_batch_size_of_retraining_is_part_of_its_steps_alone(problem: MakeProblem) -> None:
    usual, other = problem(), problem(retrain=type(problem().retrain)(batch_size=32))
    schedule = UnstructuredSchedule(step_ratio=0.5)
    assert usual.root(0).id == other.root(0).id
    assert "batch_size" not in usual.chain(schedule)[0].settings and other.chain(schedule)[0].settings["batch_size"] == 32
    plan = FineTune().plan(other.dense)
    assert (other.recipe(plan).batch_size, other.recipe(plan, 32).batch_size) == (128, 32)


def test_adamw_is_torch_s_own(problem: MakeProblem) -> None:
    made = AdamW().make(problem().build().parameters(), 0.8, 0.1)
    assert isinstance(made, torch.optim.AdamW) and made.defaults["betas"] == (0.8, 0.999)
    assert made.defaults["weight_decay"] == 0.1


def test_gradients_are_clipped_together(problem: MakeProblem, data: Data) -> None:
    norms: list[float] = []

    def note(model: nn.Module) -> None:
        norms.append(float(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])))

    trained(problem, data, recipe(Sgd(), stop=1), after_update=note)
    most = min(norms) / 2
    norms.clear()
    trained(problem, data, recipe(Sgd(), stop=1, clip_norm=most), after_update=note)
    assert norms == pytest.approx([most] * len(norms), rel=1e-4)


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_an_interrupted_training_goes_on_bit_by_bit(
    name: str, problem: MakeProblem, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe(OPTIMIZERS[name]())
    whole = state_of(trained(problem, data, wanted))
    monkeypatch.setattr(resuming, "INTERVAL", 0.0)
    monkeypatch.setattr(resuming, "SHARE", 0)
    left = iter(range(7))

    def stop(_model: nn.Module) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(problem, data, wanted, Resumable(Folder(tmp_path), "training"), after_update=stop)
    updates: list[int] = []
    again = trained(
        problem, data, wanted, Resumable(Folder(tmp_path), "training"), after_update=lambda _: updates.append(1)
    )
    assert same_state(state_of(again), whole) and len(updates) < 2 * (len(data.train_labels) // 128)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "optimizer_for_tests.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("optimizer_for_tests", None)
    own.cached_hash.cache_clear()
    OPTIMIZERS._own.clear()
    return "optimizer_for_tests"


def test_an_optimizer_of_the_user_s_own_is_part_of_the_address(mine: str, problem: MakeProblem) -> None:
    name = f"{mine}:Signs"
    with pytest.raises(InputError, match="--allow-code"):
        parse(DenseSettings, {"optimizer": name}, "dense")
    dense = parse(DenseSettings, {"optimizer": name, "epochs": 1}, "dense", trusted=True)
    made, other = (
        problem(trusted=True, own={name: {"alpha": alpha}}, dense=dense.model_dump(exclude_defaults=True))
        for alpha in (0.9, 0.5)
    )
    assert made.root(0).id != other.root(0).id and made.root(0).settings["optimizer"]["optimizer_source"]
    made.check_network()
    assert type(made.dense_recipe.optimizer).__name__ == "Signs"
    nothing = problem(trusted=True, dense={"optimizer": OPTIMIZERS.load(f"{mine}:Nothing", trusted=True).name})
    with pytest.raises(InputError, match=r"makes a NoneType, no torch.optim.Optimizer"):
        nothing.check_network()


TAUGHT = {"epochs": 20, "learning_rate": 0.4, "decay": "cosine"}


def test_a_given_network_can_be_rewound_if_its_schedule_is_told(problem: MakeProblem) -> None:
    def given(**dense: Any) -> Any:
        torch.manual_seed(0)
        return problem(model=ModelSettings().of(problem().build()), dense=dense)

    rewound, tuned = (UnstructuredSchedule(step_ratio=0.5, retrain=retrain) for retrain in ("lr_rewind", "fine_tune"))
    untold, told = given(), given(recipe=TAUGHT)
    with pytest.raises(InputError, match=r"which a network in memory doesn't bring; .*tell its schedule \(dense.recipe\)"):
        untold.check(rewound)
    told.check(rewound)
    assert untold.root(0).id == told.root(0).id and untold.chain(tuned)[0].id == told.chain(tuned)[0].id
    step = told.chain(rewound)[0]
    assert step.settings["recipe"] == {**TAUGHT, "warmup": 0.0} and "recipe" not in untold.chain(rewound)[0].settings
    plan = LrRewind(epochs=5).plan(told.taught)
    assert (plan.start, plan.stop) == (15, 20) and plan.rate.at(15) == pytest.approx(0.2 * (1 - 0.5**0.5))
    with pytest.raises(InputError, match=r"needs the dense training's recipe and early weights"):
        told.check(UnstructuredSchedule(step_ratio=0.5, retrain="weight_rewind"))
    with pytest.raises(InputError, match=r"21 epochs can't be rewound of dense.epochs 20"):
        told.check(rewound.model_copy(update={"fine_tune_epochs": 21}))
    with pytest.raises(InputError, match=r"dense.recipe: the dense network is trained here"):
        problem(dense={"recipe": TAUGHT}).check_network()
