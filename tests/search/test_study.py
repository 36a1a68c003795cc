"""Study files: presets, defaults written out, overrides, sweeps, and the explanation of every key."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import FixedTrial

from search.__main__ import main
from search.sampling.space import FamilySpace, SearchSpace, SpaceSettings, UnstructuredSpace
from search.session import renamed
from search.study import Study, check_folder, describe, load_study, to_yaml
from tests import ROOT
from tests.search_helpers import raw_study, write
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.schedule import StructuredSchedule, UnstructuredSchedule

PRESETS = sorted((ROOT / "search" / "studies").glob("*.yaml"))


@pytest.fixture(params=PRESETS, ids=lambda path: path.stem)
def preset(request: pytest.FixtureRequest) -> Study:
    return load_study(request.param)


def test_there_is_a_preset_to_begin_with() -> None:
    assert "quickstart" in {path.stem for path in PRESETS}


def test_defaults_written_out_are_the_same_study(preset: Study, tmp_path: Path) -> None:
    written = write(tmp_path, to_yaml(preset))
    assert load_study(written) == preset
    assert to_yaml(load_study(written)) == to_yaml(preset)
    assert set(yaml.safe_load(written.read_text())) == set(Study.model_fields)
    assert load_study(written).schedules() == preset.schedules()


def test_a_preset_is_named_after_its_file(preset: Study, request: pytest.FixtureRequest) -> None:
    assert preset.name == request.node.callspec.id


def test_starting_points_are_schedules_of_the_space(preset: Study) -> None:
    if preset.space is None:
        assert preset.schedules()
        return
    space = SearchSpace(preset.space)
    for params in space.starting_points():
        schedule = space.schedule(FixedTrial(params))
        assert schedule.steps == {"mixed": 2}.get(schedule.family, 1)  # one cut, of each kind


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("search.trials=7", "search.trials", 7),
        ("search.trials=null", "search.trials", None),
        ("search.starting_points=false", "search.starting_points", False),
        ("dense.learning_rate=1e-2", "dense.learning_rate", 0.01),
        ("objectives=[accuracy, macs, latency]", "objectives", ("accuracy", "macs", "latency")),
        ("space.unstructured.step_ratio=[0.5, 0.9]", "space.unstructured.step_ratio", (0.5, 0.9)),
        ("space.structured=null", "space.structured", None),
        ("model.arguments={width: 8}", "model.arguments", {"width": 8}),
        ("model.arguments.width=9", "model.arguments", {"width": 9}),
        ("regularisation.group_norm=0", "regularisation.group_norm", 0),
        ("name=a=b", "name", "a=b"),
    ],
)
def test_a_key_is_overridden(override: str, key: str, value: Any, tmp_path: Path) -> None:
    file = write(tmp_path, raw_study(tmp_path, search={"trials": 5, "minutes": 1}))
    if key == "name":  # the value is all that follows the first sign; as a name it is refused
        with pytest.raises(InputError, match="'a=b'"):
            load_study(file, [override])
        return
    found: Any = load_study(file, [override])
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value) or isinstance(value, int)


def test_the_last_override_of_a_key_counts(tmp_path: Path) -> None:
    file = write(tmp_path, raw_study(tmp_path))
    assert load_study(file, ["search.trials=7", "dense.epochs=9", "search.trials=8"]).search.trials == 8


def sweep(tmp: Path, *entries: dict[str, Any]) -> list[Any]:
    return load_study(write(tmp, raw_study(tmp, sweep=list(entries)))).schedules()


def test_a_list_in_a_sweep_is_a_choice(tmp_path: Path) -> None:
    found = sweep(
        tmp_path, {"importance": ["magnitude", "random"], "step_ratio": [0.3, 0.5], "seed": [0, 1, 2], "steps": 2}
    )
    assert len(found) == 12
    assert found[0] == UnstructuredSchedule(step_ratio=0.3, steps=2)
    assert found[-1] == UnstructuredSchedule(importance="random", step_ratio=0.5, seed=2, steps=2)
    assert [schedule.seed for schedule in found[:3]] == [0, 1, 2]  # the last key varies fastest


def test_levels_are_one_schedule_and_lists_of_levels_a_choice(tmp_path: Path) -> None:
    (one,) = sweep(tmp_path, {"levels": [0.5, 0.7, 0.9]})
    assert (one.schedule, one.steps, one.targets()) == ("explicit", 3, [500_000, 700_000, 900_000])
    assert [schedule.levels for schedule in sweep(tmp_path, {"levels": [[0.5], [0.5, 0.9]]})] == [(0.5,), (0.5, 0.9)]


def test_a_schedule_that_a_sweep_names_twice_is_run_once(tmp_path: Path) -> None:
    found = sweep(
        tmp_path,
        {"family": "structured", "step_ratio": 0.5},
        {"step_ratio": [0.5, 0.5]},
        {"step_ratio": 0.5, "steps": [1, 2]},
    )
    half = UnstructuredSchedule(step_ratio=0.5)
    assert found == [StructuredSchedule(step_ratio=0.5), half, half.model_copy(update={"steps": 2})]


def test_what_is_told_under_another_name_is_one_schedule_and_said(tmp_path: Path) -> None:
    entry = {"family": "structured", "step_ratio": 0.5, "importance": ["lamp", "magnitude_l2"]}
    assert sweep(tmp_path, entry) == [StructuredSchedule(step_ratio=0.5, importance="magnitude_l2")]
    assert len(sweep(tmp_path, {**entry, "scope": ["local", "global"]})) == 3
    space = {"structured": {"importance": ["lamp", "fpgm"], "scope": ["global"]}}
    for raw, told in (
        ({"sweep": [entry]}, True), ({"sweep": [{**entry, "scope": "global"}]}, False), ({"space": space}, False),
        ({"space": {"structured": {"importance": ["lamp"]}}}, True), ({"space": {"unstructured": {}}}, False),
    ):  # fmt: skip
        found = renamed(load_study(write(tmp_path, raw_study(tmp_path, **raw))))
        assert found == ["importance lamp with scope local, as magnitude_l2: the two rank alike"] * told


@pytest.mark.parametrize(("seeds", "reason"), [
    ([0, 1, 2, 3, 4], r"the sweep chooses on \[0, 1\] too; give seeds that its structured .* such as \[2, 3, 4\]"),
    ([1], r"the sweep chooses on \[1\] too"), ([7, 8, 7], "a seed is given twice"),
])  # fmt: skip
def test_finalists_run_on_fresh_seeds_each_once(seeds: list[int], reason: str, tmp_path: Path) -> None:
    entries = [{"family": "structured", "step_ratio": 0.5, "seed": [0, 1]}, {"step_ratio": 0.5, "seed": 2}]
    raw = raw_study(tmp_path, sweep=entries, finalists={"seeds": seeds})
    with pytest.raises(InputError, match=rf"finalists\.seeds: .*{reason}") as refused:
        load_study(write(tmp_path, raw))
    assert "\n" not in str(refused.value)
    # The other family's schedules choose no finalists: they may have any seed.
    assert load_study(write(tmp_path, raw), ["finalists.seeds=[2, 3]"]).finalists is not None


@pytest.mark.parametrize("entry", [{}, {"family": "structured", "retrain": "scratch"}])
def test_finalists_need_schedules_that_compete(entry: dict[str, str], tmp_path: Path) -> None:
    raw = raw_study(tmp_path, sweep=[{"step_ratio": 0.5, **entry}], finalists={"seeds": [5]})
    with pytest.raises(InputError, match=r"finalists\.family: no schedule of the sweep is structured and pruned"):
        load_study(write(tmp_path, raw))


def test_families_can_be_a_choice(tmp_path: Path) -> None:
    found = sweep(tmp_path, {"family": ["structured", "unstructured"], "importance": "random", "step_ratio": 0.5})
    assert [schedule.family for schedule in found] == ["structured", "unstructured"]


@pytest.mark.parametrize(("ratio", "sparsity", "steps"), [(0.5, 0.75, 2), (0.5, 0.7499, 1), (0.9, 0.99, 2), (0.9, 0.9, 1)])
def test_the_largest_sparsity_bounds_the_steps(ratio: float, sparsity: float, steps: int) -> None:
    space = FamilySpace(step_ratio=(0.1, ratio), max_sparsity=sparsity)
    assert space.most_steps(ratio) == steps
    assert FamilySpace(step_ratio=(0.1, ratio), max_sparsity=sparsity, max_steps=1).most_steps(ratio) == 1


def test_no_schedule_goes_beyond_the_largest_sparsity() -> None:
    family = UnstructuredSpace(step_ratio=(0.1, 0.9, 0.98), max_sparsity=0.9)
    space = SearchSpace(SpaceSettings(unstructured=family))
    asked = [*space.longest(), *space.starting_points()]
    assert {params["unstructured.step_ratio"] for params in asked} == {0.1, 0.9}
    assert max(space.schedule(FixedTrial(params)).targets()[-1] for params in asked) <= 900_000
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assert max(space.schedule(drawn.ask()).targets()[-1] for _ in range(50)) <= 900_000


def test_every_key_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    explained = dict(describe())
    assert {key.split(".")[0] for key in explained} == set(Study.model_fields)
    for key, text in explained.items():
        words, default, _ = text.partition(" [required]" if text.endswith(" [required]") else " [default ")
        assert words.strip(), f"{key} has no explanation"
        assert default, f"{key} has no default"
    with pytest.raises(SystemExit) as end:
        main(["run", "--help"])
    assert end.value.code == 0
    lines = {line.strip() for line in capsys.readouterr().out.splitlines()}
    assert set(explained) <= lines


def test_every_key_that_is_written_out_is_explained(preset: Study) -> None:
    explained = dict(describe())

    def keys(section: Any, path: str) -> list[str]:
        if not isinstance(section, dict) or path in explained:
            return [path]
        return [key for name, value in section.items() for key in keys(value, f"{path}.{name}".lstrip("."))]

    for key in keys(json.loads(preset.model_dump_json()), ""):
        assert key in explained or any(longer.startswith(f"{key}.") for longer in explained)


GOES_ON = (
    "search.trials=99", "search.sampler=tpe", "search.seed=9", "keep=none", "space.structured=null",
    "reference.accuracy_drop=0.2", "objectives=[accuracy, macs]", "reuse=[results/other]",
    "limits.max_drop=0.5",
)  # fmt: skip


@pytest.mark.parametrize("override", GOES_ON)
def test_a_study_goes_on_with_what_leaves_its_steps_as_they_are(override: str, tmp_path: Path) -> None:
    file = begun(tmp_path)
    check_folder(load_study(file, [override]))


def test_limits_are_kept_as_they_are_and_must_be_of_what_is_measured(tmp_path: Path) -> None:
    file = write(tmp_path, raw_study(tmp_path, limits={"max_drop": "1%", "max_bytes": "64 KiB"}))
    study = load_study(file)
    assert study.limits.given == {"max_drop": "1%", "max_bytes": 65536}
    assert load_study(write(tmp_path, to_yaml(study))).limits == study.limits
    for override, told in (
        ("limits.max_bytes=64 kBB", "limits.max_bytes: '64 kBB' cannot be used: there is no unit 'kBB'; did you mean 'kB'"),
        ("limits.min_accuracy=0.9", "max_drop and min_accuracy both limit the measure; give one of them"),
        ("limits.max_drop=2 pixels", "limits.max_drop: there is no unit 'pixels'; did you mean"),
        ("limits.max_latency=2ms", "limits: the study measures nothing that max_latency limits; add it to objectives"),
        ("limits.max_byte=3", "did you mean 'max_bytes'"),
    ):
        with pytest.raises(InputError, match=re.escape(told)):
            load_study(file, [override])


@pytest.mark.parametrize("override", ["dense.epochs=9", "retraining.learning_rate=0.3", "precision=bf16", "data.limit=200"])
def test_what_changes_a_step_s_meaning_is_refused(override: str, tmp_path: Path) -> None:
    file = begun(tmp_path)
    with pytest.raises(InputError, match=rf"^{override.split('=', maxsplit=1)[0]}: "):
        check_folder(load_study(file, [override]))


def begun(tmp_path: Path) -> Path:
    """The file of a study in its folder."""
    study = load_study(write(tmp_path, raw_study(tmp_path)))
    study.folder.mkdir(parents=True)
    file = study.folder / n.STUDY_FILE
    file.write_text(to_yaml(study))
    return file
