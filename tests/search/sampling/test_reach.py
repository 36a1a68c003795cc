"""How far a space reaches, and starting points that end at a size: told of the untrained network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FixedTrial

from search.sampling.reach import SIZES, Reach, network
from search.sampling.space import CHAINS, SearchSpace, SpaceSettings
from search.session import prepare
from search.study import Study
from tests.conftest import MakeProblem
from tests.search_helpers import raw_study, refusal, write
from trainables.records import names as n
from trainables.records.limits import Limits
from trainables.records.names import InputError
from trainables.records.objectives import ACCURACY

FORMS = ("fp32", "int8")


@pytest.fixture
def settings() -> SpaceSettings:
    return SpaceSettings.model_validate({"unstructured": {}, "structured": {"max_sparsity": 0.75}, "mixed": {}})


@pytest.fixture
def reach(problem: MakeProblem, settings: SpaceSettings) -> Reach:
    return Reach(settings.families, SearchSpace(settings), problem(width=8), FORMS)


def test_weights_that_go_leave_all_macs_and_channels_that_go_leave_fewer(reach: Reach) -> None:
    weights, channels = reach._least[n.UNSTRUCTURED], reach._least[n.STRUCTURED]
    assert weights["macs"] == reach._dense["macs"]
    assert channels["macs"] < reach._dense["macs"] / 4  # most layers lose 7 of 10 channels on both sides
    assert weights["bytes"] < reach._dense["bytes"] / 20


@pytest.mark.parametrize(("name", "share"), [("macs", 0.5), ("params", 0.3), ("bytes", 0.2)])
def test_an_end_is_the_least_that_comes_to_its_target(
    name: str, share: float, problem: MakeProblem, settings: SpaceSettings, reach: Reach
) -> None:
    space, made = SearchSpace(settings), problem(width=8)
    ends = dict(reach.ends([(name, share)]))
    assert n.STRUCTURED in ends and (n.UNSTRUCTURED in ends) == (name != "macs")
    for family in ends.keys() - {n.MIXED}:
        at, before = (
            SIZES[name].of(network(made, space.one_cut(family, sparsity)), made, FORMS)
            for sparsity in (ends[family], ends[family] - 0.01)
        )
        assert at <= share * reach._dense[name] < before


def test_cuts_that_can_remove_nothing_are_no_error(problem: MakeProblem) -> None:
    settings = SpaceSettings.model_validate({"structured": {"round_to": [64]}})  # no layer has as many channels
    reach = Reach(settings.families, SearchSpace(settings), problem(width=8), ("fp32",))
    assert reach._least[n.STRUCTURED] == reach._dense
    with pytest.raises(InputError, match=r"^search.targets.params: "):
        list(reach.ends([("params", 0.9)]))


def test_starting_points_come_to_an_end_and_go_no_step_further(settings: SpaceSettings) -> None:
    usual = list(SearchSpace(settings).starting_points())
    space = SearchSpace(settings, ends=[(n.UNSTRUCTURED, 0.8), (n.STRUCTURED, 0.5), (n.STRUCTURED, 0.99)])
    points = list(space.starting_points())
    schedules = [space.schedule(FixedTrial(point)) for point in points[: -len(usual) or None]]
    assert {schedule.family for schedule in schedules} == {n.UNSTRUCTURED, n.STRUCTURED}
    assert len(schedules) <= 2 * CHAINS  # 99 % of the channels are beyond max_sparsity
    for schedule in schedules:
        end, targets = {n.UNSTRUCTURED: 800_000, n.STRUCTURED: 500_000}[schedule.family], [0, *schedule.targets()]
        assert targets[-2] < end <= targets[-1]
    assert all(point in points for point in usual) and len(points) == len({str(point) for point in points})


def test_what_no_family_comes_to_is_told_or_refused(reach: Reach) -> None:
    with pytest.raises(InputError, match=r"^search.targets.macs: no schedule of this space leaves 0.1% of the dense"):
        list(reach.ends([("macs", 0.001)]))
    [line] = reach.beyond(Limits.model_validate({"max_macs": "0.5%", "max_bytes": "50%", "max_drop": 1}), ACCURACY)
    assert line.startswith("max_macs allows ") and " leave about " in line


def test_a_study_tells_it_before_it_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = raw_study(tmp_path, search={"trials": 1, "targets": {"macs": 0.6}}, limits={"max_params": 10})
    made = prepare(Study.model_validate(raw))
    assert [line.partition(" ")[0] for line in made.notes["Within reach"]] == [n.UNSTRUCTURED, n.STRUCTURED]
    assert made.notes["Out of reach"][0].startswith("max_params allows 10, ")
    first: dict[str, Any] = dict(made.space.starting_points()[0])
    assert first["family"] == n.STRUCTURED
    file = str(write(tmp_path, raw))
    assert "search.targets.latency" in refusal(["run", file, "--target", "latency=0.5"], capsys)
    assert "search.targets.macs" in refusal(["run", file, "--target", "macs=2"], capsys)
    assert "starting_points" in refusal(["run", file, "--set", "search.starting_points=false"], capsys)
    assert not (tmp_path / "results").exists()
