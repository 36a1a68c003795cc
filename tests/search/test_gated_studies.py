"""Networks that can't be cut everywhere, through the command line: told before the first trial, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from search.__main__ import main
from tests.search_helpers import STRUCTURED_SPACE, UNSTRUCTURED_SPACE, raw_study, refusal, rows, write
from trainables.records import names as n

SWEEP = [{"family": n.STRUCTURED, "importance": "random", "step_ratio": 0.5, "steps": 2, "fine_tune_epochs": 1}]


def study(tmp_path: Path, network: str, **changes: Any) -> Path:
    model = {"name": f"tests.odd_networks:{network}"} | changes.pop("model", {})
    return write(tmp_path, raw_study(tmp_path, model=model, **changes))


def test_what_is_protected_is_told_and_in_provenance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = study(tmp_path, "padded_shortcut", sweep=SWEEP, model={"least_channels": 2, "max_sparsity": {"body.2.*": 0.5}})
    assert main(["run", str(file), "--allow-code"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Protected (structured): body.0.0: outputs are another network's" in told
    assert "of the weights and" in told
    assert "model.least_channels: 2" in told
    assert "model.max_sparsity: at most 50% of body.2.* may go" in told
    provenance = json.loads((tmp_path / "results/tiny" / n.PROVENANCE_FILE).read_bytes())
    protected = provenance["protected"][n.STRUCTURED]
    assert list(protected["protected"]) == ["body.0.0"]
    assert 0.39 < protected["weights"] < 0.41  # of body.0.0, and of the layer whose outputs are added to its
    assert [row[n.STEP] for row in rows(tmp_path / "results/tiny" / n.POINTS_FILE) if row[n.STEP]] == [1, 2]


@pytest.mark.parametrize(
    ("network", "model", "changes", "words"),
    [
        ("frozen", {}, {"space": {n.STRUCTURED: STRUCTURED_SPACE}}, "it is frozen"),
        ("frozen", {}, {"sweep": SWEEP}, "structured: no channel can go: it is frozen"),
        ("frozen", {}, {"space": {n.UNSTRUCTURED: UNSTRUCTURED_SPACE}}, "every weight is frozen"),
        ("depthwise", {"keep": ["bodi.*"]}, {"sweep": SWEEP}, "nearest: body"),
        ("depthwise", {"max_sparsity": {"body.*": 1.5}}, {"sweep": SWEEP}, "max_sparsity"),
        ("several_outputs", {"output": "logit"}, {"sweep": SWEEP}, "there are aux, logits"),
    ],
)
def test_what_cannot_be_pruned_is_refused_in_one_line(
    network: str, model: dict[str, Any], changes: dict[str, Any], words: str, tmp_path: Path, capsys: Any
) -> None:
    file = study(tmp_path, network, model=model, **changes)
    assert words in refusal(["run", str(file), "--allow-code"], capsys)
    assert not (tmp_path / "results").exists()


def test_a_family_in_which_nothing_can_go_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = {n.STRUCTURED: STRUCTURED_SPACE, n.UNSTRUCTURED: UNSTRUCTURED_SPACE}
    file = study(tmp_path, "nothing_to_cut", space=space, search={"trials": 1})
    assert main(["run", str(file), "--allow-code"]) == 0
    assert "Left out: family structured: no channel can go" in " ".join(capsys.readouterr().out.split())
    assert {row[n.FAMILY] for row in rows(tmp_path / "results/tiny" / n.POINTS_FILE)} == {n.DENSE, n.UNSTRUCTURED}
