"""What each layer can lose alone: the cuts, that they are steps as all others, and what is told of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml
from torch import nn

from analysis.__main__ import add_commands
from analysis.__main__ import main as analyse
from search import layers
from search.__main__ import _parser, main
from search.records.ledger import Ledger
from search.sensitivity import SHARES, probes
from search.session import prepare
from search.stages.ready import begin
from search.stages.tasks import probe_task
from search.study import load_study
from tests.conftest import digits_problem
from tests.search_helpers import one_line, raw_study, rows, write
from trainables.networks.anatomy import weights, widths
from trainables.node import ONLY, Node
from trainables.problem import Problem
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.records.objectives import ACCURACY
from trainables.schedule import StructuredSchedule, UnstructuredSchedule
from trainables.storage.store import Store
from trainables.tree import Tree


def layer_sizes(model: nn.Module) -> dict[str, int]:
    return {name.removesuffix(".weight"): weight.numel() for name, weight in weights(model).items()}


def probed(tree: Tree, share: float) -> list[tuple[str, str, Node]]:
    root = tree.problem.root(0)
    return [(one.family, one.name, one.node) for one in probes(tree.problem, tree.network(root).model, root, [share])]


def test_each_layer_loses_its_weights_and_no_other_does(tree: Tree) -> None:
    sizes = layer_sizes(tree.problem.build())
    found = [(name, node) for family, name, node in probed(tree, 0.5) if family == n.UNSTRUCTURED]
    assert [name for name, _ in found] == list(sizes)
    for name, node in found:
        kept = tree.record(node)[n.LAYERS]
        assert {other: count for other, (count, _) in kept.items()} == {**sizes, name: sizes[name] - round(sizes[name] / 2)}


@pytest.mark.parametrize("network", ["cnn", "resnet20"])
def test_each_group_loses_its_channels_and_no_other_does(network: str, tmp_path: Path) -> None:
    tree = Tree(digits_problem(network, dense={"epochs": 1}), Store(tmp_path))
    dense, groups = widths(tree.problem.build()), set()
    for one in probes(tree.problem, tree.network(tree.problem.root(0)).model, tree.problem.root(0), [0.5]):
        if one.family == n.STRUCTURED:
            now = widths(tree.network(one.node).model)
            assert {name for name in dense if now[name] < dense[name]} == set(one.unit.layers)
            assert groups.isdisjoint(one.unit.layers) and one.name in one.unit.layers
            assert one.unit.size == sum(dense[name] for name in one.unit.layers)
            groups |= set(one.unit.layers)
    assert groups == set(dense) - {tree.problem.gate.outputs[0]}


def test_what_may_not_go_is_left_out() -> None:
    model = {"name": "cnn", "arguments": {"width": 4}, "keep": ["features.0"], "max_sparsity": {"features.3": 0.25}}
    problem = digits_problem()
    spared = Problem(problem.data, problem.model.model_validate(model), problem.dense)
    root = spared.root(0)
    found = list(probes(spared, spared.build(), root, [0.5]))
    assert found and all(one.name != "features.0" for one in found)
    everything = Problem(problem.data, problem.model.model_validate({**model, "keep": ["*"]}), problem.dense)
    with pytest.raises(InputError, match=r"^model.name: nothing of 'cnn' can be pruned"):
        list(probes(everything, everything.build(), root))


def test_a_cut_is_a_step_as_all_others_are(tree: Tree) -> None:
    [*_, (_, _, node)] = probed(tree, 0.5)
    assert node.settings[ONLY] and node.parent == tree.problem.root(0)
    for schedule in (UnstructuredSchedule(step_ratio=0.5), StructuredSchedule(step_ratio=0.5)):
        assert all(ONLY not in other.settings for other in tree.chain(schedule))
    probe_task(tree.problem, tree.store, [node], "layer", None)
    record = tree.known(node.id)
    assert record is not None and record[n.EPOCHS] == 0 and not tree.has_weights(node.id)
    again = Tree(tree.problem, tree.store)
    assert len(again.content(again.node(node.id))) == record[n.STORED_BYTES]  # from its record alone
    assert again.record_of(node) == record


def test_a_network_without_batchnorm_has_nothing_to_recalibrate(monkeypatch: pytest.MonkeyPatch) -> None:
    with_it, without = digits_problem(), digits_problem()
    monkeypatch.setitem(without.__dict__, "_facts", (0, [], 0))
    for problem, retrain in ((with_it, "recalibrate"), (without, "fine_tune")):
        one = next(probes(problem, problem.build(), problem.root(0)))
        assert one.how[n.RETRAIN] == retrain and not one.node.settings.get(n.EPOCHS)


@pytest.mark.parametrize(
    ("points", "allowed", "share"),
    [
        ([(0.5, 0.0), (0.9, 0.04)], 0.01, 0.6),  # a quarter of the way
        ([(0.5, 0.02), (0.9, 0.5)], 0.01, 0.25),
        ([(0.5, -0.01), (0.9, 0.005)], 0.01, 0.9),  # never beyond what was measured
        ([(0.5, 0.03), (0.9, 0.0)], 0.01, 0.5 / 3),  # where the loss comes, though it goes again
    ],
)
def test_the_largest_share_within_a_drop(points: list[tuple[float, float]], allowed: float, share: float) -> None:
    assert layers.largest_share(points, allowed) == pytest.approx(share)


@pytest.mark.parametrize("given", ["0", "-1", "1q", "1%", "x", "nan"])
def test_a_drop_that_cannot_be_is_one_line(given: str) -> None:
    with pytest.raises(InputError, match=rf"^--max-drop: '{given}'"):
        layers.allowed_drop(given, ACCURACY)
    assert layers.allowed_drop("1.5 points", ACCURACY) == 0.015


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a study whose cuts are all in the store, so that no Ray has to start."""
    study = load_study(write(tmp_path, raw_study(tmp_path)))
    session = prepare(study)
    begin(session)
    arguments = ["sensitivity", str(study.folder)]
    assert main(arguments) == 2
    assert "has no dense network yet; run the study, or give its study file" in one_line(capsys.readouterr().err)
    assert analyse(arguments) == 2 and "nothing was measured yet" in one_line(capsys.readouterr().err)
    root = session.tree.dense_point(0)
    Ledger(study.folder, study.goals, study.drop).add_dense(root)
    network = session.tree.network(session.tree.problem.root(0)).model
    found = list(probes(session.tree.problem, network, session.tree.problem.root(0)))
    probe_task(session.tree.problem, session.tree.store, [one.node for one in found], "all", None)

    parser, commands = _parser("pruning-front")
    add_commands(commands)
    assert main([*arguments, "--max-drop", "2"], parser) == 0
    out = capsys.readouterr().out
    assert f"{len(found)} cuts, of which {len(found)} are cached" in out
    snippets = [yaml.safe_load(line) for line in out.splitlines() if line.startswith("model: ")]
    assert len(snippets) == 2
    for snippet in snippets:
        load_study(
            write(tmp_path, raw_study(tmp_path, model={"name": "cnn", "arguments": {"width": 4}, **snippet["model"]}))
        )
        assert all(0 <= share <= 0.98 for share in snippet["model"]["max_sparsity"].values())
    assert "the loss is carried by " in out and f"figures: python -m analysis sensitivity {study.folder}" in out
    told = rows(study.folder / n.SENSITIVITY_FILE)
    assert {row[n.FAMILY] for row in told} == SHARES.keys()
    assert all(row[n.DENSE_VALUE] == root[n.ACCURACY] for row in told)
    report = study.folder / n.REPORT_FOLDER
    assert {file.name for file in report.iterdir()} >= {f"sensitivity_{family}.png" for family in SHARES}
    table = pd.read_csv(report / "sensitivity.csv")
    assert len(table) == len(told)
    assert table["loss"].tolist() == pytest.approx((table[n.DENSE_VALUE] - table[n.ACCURACY]).tolist())
