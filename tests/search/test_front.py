"""The public face, from Python: a study, its front, and what can be done with it."""

from __future__ import annotations

import copy
import importlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import search
from tests import ROOT
from tests.search_helpers import raw_study, refusal, rows, tree_of
from trainables.export import load as load_exported
from trainables.records import names as n

NET = '''
"""A network that a program has in memory."""
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3))
        self.head, self.scale = nn.Linear(width, 10), 1.0

    def forward(self, x):
        return self.head(torch.relu(self.body(x)).mean((2, 3))) * self.scale
'''
SWEEP = [{"step_ratio": 0.5, "steps": 2}, {"family": "structured", "step_ratio": 0.3}]
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A module of the user's own, where no worker would find it."""
    folder = tmp_path_factory.mktemp("nets")
    (folder / "net_in_memory.py").write_text(NET)
    sys.path.insert(0, str(folder))
    made = importlib.import_module("net_in_memory")
    sys.path.remove(str(folder))
    yield made
    del sys.modules["net_in_memory"]


@pytest.fixture
def net(nets: ModuleType) -> nn.Module:
    torch.manual_seed(0)
    return nets.Net()


def study_of(tmp_path: Path, **changes: Any) -> search.Study:
    return search.Study(**raw_study(tmp_path, **{"model": None, **changes}))


def test_importing_it_takes_no_time() -> None:
    told = "import sys, search; print(sorted({'torch', 'ray', 'pandas', 'optuna', 'pydantic'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", told], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603
    assert done.stdout.strip() == "[]"
    assert all(getattr(search, name) for name in search.__all__)


def test_a_study_is_made_of_keys_as_of_a_file(tmp_path: Path) -> None:
    preset = ROOT / "search" / "studies" / "quickstart.yaml"
    loaded = search.Study.load(preset, {"search.trials": 3, "data": {"dataset": "digits"}})
    assert (loaded.search.trials, loaded.trusted) == (3, False)
    assert search.Study.load(preset, ["search.trials=3", "data={dataset: digits}"]) == loaded
    assert search.Study(**loaded.model_dump()) == loaded


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"spce": {}}, "study: unknown key 'spce'; did you mean 'space'?"),
        ({"search": {"trials": 0}}, "study: search.trials: 0 cannot be used"),
        ({"objectives": ["accuracy", "mine:Objective"]}, "--allow-code"),
        ({"sweep": [{"family": "mixd"}]}, "sweep.0.family: 'mixd' is no family"),
    ],
)
def test_what_is_wrong_with_a_study_is_one_line(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(search.InputError) as raised:
        study_of(tmp_path, **changes)
    assert told in str(raised.value) and "\n" not in str(raised.value)


def test_a_network_is_named_by_its_code_and_its_weights(nets: ModuleType, net: nn.Module, tmp_path: Path) -> None:
    study = study_of(tmp_path)
    name = study.of(net).model.name
    assert study.of(copy.deepcopy(net).eval()).model.name == name == study.of(net).of(net).model.name
    other_weights, other_attribute, hooked = (copy.deepcopy(net) for _ in range(3))
    with torch.no_grad():
        other_weights.head.bias[0] += 1
    other_attribute.scale = 2.0
    hooked.head.register_forward_hook(lambda _module, _given, output: output * 2)
    names = [study.of(one).model.name for one in (net, other_weights, other_attribute, hooked)]
    code = [one.rpartition("-")[0] for one in names]
    assert len(set(names)) == 4
    assert code[0] == code[1] and len(set(code)) == 3


def test_one_that_can_be_no_network_of_a_study_is_refused(net: nn.Module, tmp_path: Path) -> None:
    study, broken, odd = study_of(tmp_path), copy.deepcopy(net), copy.deepcopy(net)
    with torch.no_grad():
        broken.head.bias[0] = torch.nan
    odd.held = threading.Lock()
    for given, told in ((broken, "NaN values in 'head.bias'"), (odd, "can't be copied"), ("net", "no torch.nn.Module")):
        with pytest.raises(search.InputError, match=told):
            study.of(given)  # type: ignore[arg-type]
    with pytest.raises(search.InputError, match="'cnn' is named, and a network is given too"):
        study_of(tmp_path, model={"name": "cnn"}).of(net)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
class TestRuns:
    def test_a_network_in_memory_from_run_to_export(
        self, net: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from ray.tune.logger import TBXLoggerCallback  # noqa: PLC0415

        study, before = study_of(tmp_path, sweep=SWEEP), [signal.getsignal(number) for number in HANDLED]
        front = search.run(study, model=net, callbacks=[TBXLoggerCallback()])
        assert [signal.getsignal(number) for number in HANDLED] == before
        folder = front.folder
        assert folder == tmp_path / "results" / "tiny"
        written = rows(folder / n.POINTS_FILE)
        assert list(front.points.columns) == list(written[0])
        assert front.points.step_id.tolist() == [row[n.STEP_ID] for row in written] and len(written) == 4
        assert front.points.accuracy.tolist() == [row[n.ACCURACY] for row in written]
        assert set(front.members.step_id) <= set(front.points.step_id) and len(front.members)
        self.logged(folder, written)

        bias = net.head.bias.detach().clone()
        with torch.no_grad():
            net.head.bias += 1  # the study has a copy
        confirmed = front.confirm()
        assert confirmed.test_accuracy.between(0, 1).all() and set(confirmed.step_id) == set(front.points.step_id)
        with torch.no_grad():
            net.head.bias.copy_(bias)

        step_id = front.export(written[3][n.STEP_ID][:12], tmp_path / "pruned.safetensors")
        assert step_id == written[3][n.STEP_ID]
        afresh = type(net)()
        pruned = load_exported(tmp_path / "pruned.safetensors", model=afresh).model
        assert sum(one.numel() for one in pruned.parameters()) == written[3][n.PARAMS]
        with pytest.raises(search.InputError, match=r"load\(file, model="):
            load_exported(tmp_path / "pruned.safetensors")

        state = tree_of(folder / n.STEPS_FOLDER)
        again = search.run(study, model=copy.deepcopy(net))
        assert again.points.equals(front.points) and tree_of(folder / n.STEPS_FOLDER) == state
        assert search.load(folder).points.equals(front.points)
        assert search.load(folder, model=net).confirm().equals(confirmed)
        self.refused(study, net, tmp_path, capsys, monkeypatch)

        monkeypatch.setattr("search.confirm._open", None)  # nothing is opened again
        assert Path(search.load(folder).pack()).exists() and not list(folder.glob(f"*/*/{n.STEP_FILE}"))
        state = tree_of(folder / n.STEPS_FOLDER)
        assert search.run(study, model=net).points.equals(front.points) and tree_of(folder / n.STEPS_FOLDER) == state
        assert search.load(folder, model=net).confirm().equals(confirmed)

    def logged(self, folder: Path, written: list[dict[str, Any]]) -> None:
        """What TensorBoard reads: one file a trial, one value a step."""
        found = {}
        for file in sorted((folder / n.LOGS_FOLDER).glob("*/events.out.tfevents.*")):
            found[file.parent.name] = events_of(file)
        assert list(found) == ["trial_00000", "trial_00001"]
        for trial, name in enumerate(found):
            points = [row for row in written if row[n.TRIAL] == trial]
            for column in (n.ACCURACY, n.COMPRESSION):
                logged = found[name][f"ray/tune/{column}"]
                assert [step for step, _ in logged] == [row[n.STEP] for row in points]
                assert [value for _, value in logged] == pytest.approx([row[column] for row in points])

    def refused(
        self, study: search.Study, net: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        folder, other = tmp_path / "results" / "tiny", copy.deepcopy(net)
        other.scale = 2.0
        before = tree_of(folder)
        with pytest.raises(search.InputError, match=r"model.name: 'in-memory:.* holds a study with 'in-memory:"):
            search.run(study, model=other)
        with pytest.raises(search.InputError, match="its code or its attributes aren't those of 'in-memory:"):
            search.load(folder, model=other)
        with pytest.raises(search.InputError, match=r"model.name: 'cnn', but .* holds a study with 'in-memory:"):
            search.run(study)
        monkeypatch.chdir(tmp_path)
        for command in (
            ["run", str(folder / n.STUDY_FILE)],
            ["confirm", str(folder)],
            ["export", str(folder), "--point", search.load(folder).points.step_id[0], "--to", "x.safetensors"],
        ):
            assert "go on from Python" in refusal(command, capsys)
        assert tree_of(folder) == before


def events_of(file: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value), of a TensorBoard file: records of a length, its checksum, an event and its checksum."""
    from tensorboardX.proto.event_pb2 import Event  # noqa: PLC0415

    content, found, at = file.read_bytes(), dict[str, list[tuple[int, float]]](), 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 8], "little")
        event = Event.FromString(content[at + 12 : at + 12 + length])
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
        at += 12 + length + 4
    return found
