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
from analysis.page.answers import Answers, answers
from analysis.page.layers import Cell, Layers, layers
from analysis.page.networks import export_command, page_data
from analysis.pareto import front
from analysis.report import write_report
from tests.made_up import dense, point, write_study
from trainables.records.confirmation import Member, Seen
from trainables.records.jsonl import packed
from trainables.records.objectives import COMPRESSION

SMALLEST, FASTEST = "Smallest file within 0.5 points", "Fastest within 1 point"
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
    assert found.told[SMALLEST].startswith("8.00× smaller (120 kB) on validation data: optimistic, by about 0.12 points in")
    assert found.chosen == ("bold",) and "None of it is confirmed" in " ".join(found.trust)


def test_the_promise_is_the_confirmed_one(tmp_path: Path) -> None:
    poor = point(step_id="poor", accuracy=0.5, compression=80.0)  # below the reference, so no member of the front
    found = told(study_of(tmp_path, [SAFE, BOLD, poor], {"d0": 0.962, "safe": 0.959, "bold": 0.94, "poor": 0.1}))
    assert found.told[SMALLEST].startswith(
        "4.00× smaller (120 kB), confirmed on the test data. 96.00% validation, 95.90% test"
    )
    assert "Validation data alone would have promised 8.00×" in found.told[SMALLEST]
    assert "(step id bold). It lost 2.2 points on the test data." in found.told[SMALLEST]
    trust = " ".join(found.trust)  # validation less test: 0.1 and 1.8 points of the pruned networks, 0 of the dense one
    assert found.chosen == ("safe",) and "flattered them by 0.95 points" in trust


def test_what_a_recipe_lost_on_fresh_seeds_counts_where_its_own_network_lost_less(tmp_path: Path) -> None:
    study = study_of(tmp_path, [SAFE, BOLD], {"d0": 0.962, "safe": 0.961, "bold": 0.96})
    seen = {"safe": (0.004, 0.003), "bold": (0.012, 0.01)}
    again = {
        name: Member({**SAFE, n.STEP_ID: name}, tuple(Seen(seed, 0.95, lost, lost) for seed, lost in enumerate(both)), 0.5)
        for name, both in seen.items()
    }
    assert told(study).chosen == ("bold",)
    found = answers(study, load_confirmed(study.folder), again)
    assert found.chosen == ("safe",)
    assert "The same recipe on 2 fresh seeds: 95.00 ± 0.00 % on the test data, 0.35 ± 0.07 points" in found.told[SMALLEST]
    assert "lost 0.2 points on the test data, and its recipe lost 1.1 points on fresh seeds" in found.told[SMALLEST]


def test_nothing_within_the_limit_is_said(tmp_path: Path) -> None:
    found = told(study_of(tmp_path, [point(accuracy=0.9)]))
    assert (
        found.told[SMALLEST].startswith("None: every network of this study loses more than 0.5 points.")
        and found.chosen == ()
    )


def test_the_page_tells_which_networks_are_within_the_study_s_limits(tmp_path: Path) -> None:
    small = point(step_id="small", stored_bytes=90_000, accuracy=0.95)
    study = load_study(write_study(tmp_path, [dense(), SAFE, small], settings={"limits": {"max_bytes": 100_000.0}}))
    shown = page_data(study, front(study.pruned, study.objectives, study.dense), {}, COMPRESSION)
    assert shown["networks"]["within"] == [False, True]
    assert "within the study’s limits" in write_report(study).read_text()


LATENCIES = {
    "faster": (0.21, "2.00× as fast (0.21 ms at batch 1) on validation data: optimistic"),
    "slower": (0.6, "None: no network that loses at most 1 point is measurably faster than the dense one."),
    "never timed": (None, "Latency was not measured"),
}


@pytest.mark.parametrize("latency, sentence", LATENCIES.values(), ids=LATENCIES)
def test_the_fastest_is_told_where_latency_was_measured(latency: float | None, sentence: str, tmp_path: Path) -> None:
    narrow = point(family=n.STRUCTURED, accuracy=0.96, macs=2_000_000, latency_ms=latency)
    found = told(study_of(tmp_path, [narrow]))
    assert found.told[FASTEST].startswith(sentence)
    assert any("run slower than the dense one at batch 1 (speed-up down to 0.700×)" in one for one in found.avoid) == (
        latency == 0.6
    )


def timed_networks(*speeds: tuple[int, float]) -> list[dict[str, Any]]:
    """Networks of half of the MACs, each of a ``round_to``, and as fast as it says."""
    shape = {"family": n.STRUCTURED, "accuracy": 0.93, "macs": 2_000_000}
    return [
        point(step_id=f"r{i}", round_to=step, latency_ms=0.42 / speed, **shape) for i, (step, speed) in enumerate(speeds)
    ]


ADVICE = {
    "helps": (
        [(1, 0.8)] * 3 + [(4, 0.9)] * 3 + [(8, 1.2)] * 3,
        "round_to 8 makes networks of about as many MACs 1.50× as fast",
    ),
    "helps nothing": ([(1, 0.8)] * 3 + [(8, 0.8)] * 3, "no round_to of this study helps; round_to 8 makes"),
    "too few": ([(1, 0.8)] * 3 + [(8, 1.2)] * 2, "too few to tell; try round_to: [1, 8]"),
    "none": ([(1, 0.8)] * 3, "too few to tell; try round_to: [1, 8]"),
}


@pytest.mark.parametrize("speeds, sentence", ADVICE.values(), ids=ADVICE)
def test_the_round_to_that_helps_is_told_as_measured(
    speeds: list[tuple[int, float]], sentence: str, tmp_path: Path
) -> None:
    [found] = [one for one in told(study_of(tmp_path, timed_networks(*speeds))).avoid if one.startswith("Fewer")]
    assert sentence in found and f"of {len(speeds)} networks that need fewer run slower" in found


def test_the_target_that_a_study_names_is_what_is_fast(tmp_path: Path) -> None:
    times = {"latency_onnx_ms": 0.1, "latency_onnx_dense_ms": 0.3}
    rows = [dense(latency_onnx_ms=0.3), point(family=n.STRUCTURED, accuracy=0.96, macs=2_000_000, **times)]
    folder = write_study(tmp_path / "timed", rows, settings={"objectives": ["accuracy", "latency.onnx"]})
    study = load_study(folder)
    assert told(study).told[FASTEST].startswith("3.00× as fast (0.1 ms by onnxruntime at batch 1)")
    write_report(study)
    page = (folder / n.REPORT_FOLDER / "index.html").read_text()
    assert "speed-up by onnxruntime at batch 1 (dense ms / pruned ms)" in page


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


def cut_alone(layer: str, share: float, accuracy: float, **changes: Any) -> dict[str, Any]:
    """A row of sensitivity.jsonl: of the dense network's accuracy of 0.9, known to half a point."""
    told = {n.FAMILY: n.UNSTRUCTURED, n.LAYER: layer, n.LAYERS: [layer], n.SHARE: share, n.REQUESTED_SPARSITY: share}
    return told | {
        n.DENSE_VALUE: 0.9,
        n.NOISE: 0.005,
        n.ACCURACY: accuracy,
        n.ACCURACY_BEFORE: 0.1,
        n.SPARSITY: 0.1,
        **changes,
    }


@pytest.mark.usefixtures("undrawn")
def test_the_report_says_which_layers_carry_the_loss_where_that_was_measured(tmp_path: Path) -> None:
    study = study_of(tmp_path, [SAFE])
    assert "What each layer can lose alone" not in write_report(study).read_text()
    cuts = [
        ("first<1>", 0.5, 0.84),
        ("first<1>", 0.9, 0.6),
        ("middle", 0.5, 0.895),
        ("middle", 0.9, 0.892),
        ("last", 0.5, 0.88),
    ]
    file = study.folder / n.SENSITIVITY_FILE
    file.write_text("".join(json.dumps(cut_alone(*cut)) + "\n" for cut in cuts))
    page = write_report(study).read_text()
    carried = "first&lt;1&gt;, which loses 30 points without 90% of it; last, which loses 2 points without 50% of it."
    assert f"Unstructured: the loss is carried by {carried}" in page
    assert "Unstructured: 90% of any of these could go within the noise: middle." in page
    assert re.search(r"first&lt;1&gt;</td><td class=\"number\">6</td><td class=\"number\">30</td></tr>", page)
    assert re.search(r"last</td><td class=\"number\">2</td><td class=\"number\">–</td></tr>", page)
    assert (study.folder / n.REPORT_FOLDER / "sensitivity_unstructured.png").exists()
    file.write_text(json.dumps(cut_alone("x", 0.5, 0.8, noise="much")))
    with pytest.raises(n.InputError, match="noise is no standard error"):
        write_report(study)
