"""What the report's page answers, and what it holds for its reader to look into."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import trainables.records.names as n
from analysis.confirmed import load_confirmed
from analysis.load import Study, load_study
from analysis.page import inline
from analysis.page.answers import FASTEST, SMALLEST, Answers, answers
from analysis.page.layers import Cell, Layers, layers
from analysis.page.networks import export_command, page_data
from analysis.pareto import front
from analysis.report import write_report
from tests.made_up import dense, point, write_study
from trainables.records.jsonl import packed
from trainables.records.objectives import COMPRESSION

SAFE, BOLD = point(step_id="safe", accuracy=0.96, compression=4.0), point(step_id="bold", accuracy=0.958, compression=8.0)


def study_of(folder: Path, rows: Sequence[Mapping[str, Any]], tested: Mapping[str, float] | None = None) -> Study:
    study = write_study(folder, [dense(), *rows])
    (study / n.PROVENANCE_FILE).write_text(json.dumps({"data": {"validation_images": 10_000}}))
    opened = [
        row | {n.TEST_ACCURACY: tested[row[n.STEP_ID]]} for row in (dense(), *rows) if row[n.STEP_ID] in (tested or {})
    ]
    (study / n.CONFIRMED_FILE).write_text("".join(json.dumps(row) + "\n" for row in opened))
    return load_study(study)


def told(study: Study) -> Answers:
    return answers(study, load_confirmed(study.folder))


def test_what_is_not_confirmed_is_promised_as_optimistic(tmp_path: Path) -> None:
    found = told(study_of(tmp_path, [SAFE, BOLD]))
    assert found.told[SMALLEST].startswith("8.00× smaller (120 kB) on validation data: optimistic by about 0.19 points")
    assert found.chosen == ("bold",) and "None of it is confirmed" in " ".join(found.trust)


def test_the_promise_is_the_confirmed_one(tmp_path: Path) -> None:
    found = told(study_of(tmp_path, [SAFE, BOLD], {"d0": 0.962, "safe": 0.959, "bold": 0.94}))
    assert found.told[SMALLEST].startswith(
        "4.00× smaller (120 kB), confirmed on the test data. 96.00% validation, 95.90% test"
    )
    assert "Validation data alone would have promised 8.00×" in found.told[SMALLEST]
    assert "(step id bold) lost 2.2 points on the test data" in found.told[SMALLEST]
    trust = " ".join(found.trust)  # validation less test: 0.1 and 1.8 points of the pruned networks, 0 of the dense one
    assert found.chosen == ("safe",) and "flattered them by 0.95 points" in trust


def test_nothing_within_the_limit_is_said(tmp_path: Path) -> None:
    found = told(study_of(tmp_path, [point(accuracy=0.9)]))
    assert found.told[SMALLEST].startswith("None: no network of this study is within 0.5 points") and found.chosen == ()


LATENCIES = {
    "faster": (0.21, "2.00× as fast (0.21 ms at batch 1) on validation data: optimistic"),
    "slower": (0.6, "None: no network within 1 point of the dense one is measurably faster than it."),
    "never timed": (None, "Latency was not measured"),
}


@pytest.mark.parametrize("latency, sentence", LATENCIES.values(), ids=LATENCIES)
def test_the_fastest_is_told_where_latency_was_measured(latency: float | None, sentence: str, tmp_path: Path) -> None:
    narrow = point(family=n.STRUCTURED, accuracy=0.96, macs=2_000_000, latency_ms=latency)
    found = told(study_of(tmp_path, [narrow]))
    assert found.told[FASTEST].startswith(sentence)
    assert any("run slower than the dense one at batch 1 (down to 0.700×)" in one for one in found.avoid) == (
        latency == 0.6
    )


def test_what_to_avoid(tmp_path: Path) -> None:
    def some(importance: str, loss: float, step: int) -> list[dict[str, Any]]:
        made = [point(step_id=f"{importance}{step}{i}", importance=importance, step=step) for i in range(5)]
        return [row | {n.ACCURACY: 0.962 - loss * (i + 1), n.COMPRESSION: 2.0 * (i + 1)} for i, row in enumerate(made)]

    rows = [*some("magnitude", 0.001, 2), *some("random", 0.02, 1), *some("taylor", 0.03, 1)]
    found = told(study_of(tmp_path, [*rows, point(step_id="far", accuracy=0.3, compression=90.0)]))
    assert found.avoid == (
        "Unstructured pruning by taylor: no better here than random importance.",
        "One cut to 10.0× or more: the best network lost 10 points, where the best of several cuts lost 0.5 points.",
        "Compression beyond 10.0×: each of the 1 networks there lost 10 points or more.",
    )


def test_the_command_that_exports_is_safe_to_paste() -> None:
    assert export_command(Path("results/mine"), point()) == (
        "python -m search export results/mine --point a1 --to a1.safetensors"
    )
    harm = "x; touch harm #\n$(touch harm)"
    words = shlex.split(export_command(Path(f"results/{harm}"), point(form=harm)), comments=True)
    assert words[4] == f"results/{n.printable(harm)}" and words[6] == f"a1:{n.printable(harm)}"
    assert re.fullmatch(r"[A-Za-z0-9-]+\.compact", words[8]) and len(words) == 9


def test_data_in_the_page_is_only_data() -> None:
    value = {"a": "</script><!-- & \u2028", "b": [1.5, None, True]}
    element = inline.data(value, "data")
    text = re.fullmatch(r'<script type="application/json" id="data">([^<>&\u2028]*)</script>', element)
    assert text and json.loads(text[1]) == value
    with pytest.raises(ValueError, match="ends its own element"):
        inline.script("'</SCRIPT>'")


def test_numbers_that_were_not_measured_are_null(tmp_path: Path) -> None:
    rows = [SAFE, point(step_id="untimed", macs=None)]
    study = study_of(tmp_path, rows, {"d0": 0.962, "safe": 0.959})
    best = front(study.pruned, study.objectives, study.dense)
    shown = page_data(study, best, load_confirmed(study.folder), COMPRESSION)
    networks = json.loads(json.dumps(shown, allow_nan=False))["networks"]
    assert networks["id"] == ["safe", "untimed"] and networks["front"] == [True, False]
    assert networks["macs"] == [4_200_000, None] and networks["test"] == [0.959, None]
    assert {len(values) for values in networks.values()} == {2}
    axes = {axis["key"]: axis for axis in shown["axes"]}
    assert next(iter(axes)) == "compression" and "latency" not in axes
    assert axes["compression"]["rising"] and not axes["macs"]["rising"]
    assert {column["key"] for column in shown["columns"]} <= networks.keys()


def test_the_page_is_one_file_that_asks_nobody_and_runs_only_its_own(tmp_path: Path) -> None:
    page = write_report(study_of(tmp_path, [SAFE])).read_text()
    ours = page.partition("<script>")[0]
    assert set(re.findall(r'src="(\w+:)', ours)) == {"data:"} and not re.search(r"<link|@import|url\(", ours)
    assert all(target.startswith("https://arxiv.org/") for target in re.findall(r'href="([^"]*)"', ours))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() for source in scripts]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy and len(scripts) == 2
    allowed = policy[1].replace("&#39;", "'")
    assert all(f"'sha256-{one}'" in allowed for one in hashes) and allowed.startswith("default-src 'none'")


def record(step_id: str, **kept: list[int]) -> dict[str, Any]:
    """A step's record as it stands on disk."""
    measured = {column: value for column, value in point().items() if column not in (n.STEP_ID, n.FAMILY)}
    return measured | {
        "id": step_id, "parent": None, "settings": {}, "layers": kept, n.SHAPE_ID: "s", n.CHANNEL_SPARSITY: 0.0,
        n.TOTAL_EPOCHS: 1, n.EMPTY_LAYERS: [],
    }  # fmt: skip


def looked_into(study: Study) -> Layers | None:
    return layers(study, front(study.pruned, study.objectives, study.dense), [])


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("together", [False, True], ids=["a file a step", "packed"])
def test_layers_stand_beside_the_dense_ones(together: bool, tmp_path: Path) -> None:
    study = study_of(tmp_path, [SAFE, BOLD])
    assert looked_into(study) is None
    steps = [record("d0", conv=[100, 100], head=[10, 10]), record("safe", conv=[20, 50], head=[10, 10])]
    steps.append(record("bold", another=[1, 1]))  # no layer of the dense network's
    texts = {step["id"]: (json.dumps(step) + "\n").encode() for step in steps}
    (study.folder / n.STEPS_FOLDER).mkdir()
    if together:
        (study.folder / n.STEPS_FOLDER / n.PACKED_FILE).write_bytes(packed(texts))
    else:
        for step_id, text in texts.items():
            (study.folder / n.STEPS_FOLDER / step_id).mkdir()
            (study.folder / n.STEPS_FOLDER / step_id / n.STEP_FILE).write_bytes(text)
    found = looked_into(study)
    assert found and found.dense == {"conv": 100, "head": 10}
    assert [(one.point, one.cells) for one in found.networks] == [
        ("safe", {"conv": Cell(0.2, 0.5), "head": Cell(1.0, 1.0)})
    ]
    assert found.networks[0].cells["conv"].told == "20.0% (tensor 50.0%)"
    page = write_report(study).read_text()
    assert "What is left of each layer" in page and "20.0% (tensor 50.0%)" in page


def test_damaged_records_of_steps_count_as_none(tmp_path: Path) -> None:
    study = study_of(tmp_path, [SAFE])
    for step_id, text in (("d0", "{"), ("safe", json.dumps(record("other", conv=[1, 2])))):
        (study.folder / n.STEPS_FOLDER / step_id).mkdir(parents=True)
        (study.folder / n.STEPS_FOLDER / step_id / n.STEP_FILE).write_text(text)
    assert looked_into(study) is None
