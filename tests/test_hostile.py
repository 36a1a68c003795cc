"""Folders of results come from anyone: whatever lies in one, no code of it runs, nothing outside it is read or written, and
what can't be used is one line or is computed again."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
import torch
from obstore.store import from_url
from PIL import Image

from analysis import load as analysis_load
from analysis.__main__ import main as analysis_main
from search.__main__ import main
from search.records.asked import Asks
from search.records.journal import lines_of
from search.records.ledger import Ledger
from search.records.provenance import Run, changes, read_before
from search.sampling.space import Sweep
from search.session import prepare
from search.stages.ready import begin
from search.study import load_study, read_yaml
from search.tables import front_table
from tests.made_up import dense, point, write_study
from tests.search_helpers import SWEEP, one_line, raw_study, refusal, tree_of, write
from trainables.data import cache as image_cache
from trainables.data.sets.folder import ImageFiles
from trainables.exporting import network_file as export
from trainables.loading.checkpoint import load_checkpoint
from trainables.networks.factory import ModelSettings, build
from trainables.networks.network import metadata
from trainables.networks.size import check_size
from trainables.node import address
from trainables.problem import Problem
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.records.untrusted import MOST_YAML, check_links, parse_json, parse_yaml, read
from trainables.storage.store import Store, _checksum, to_json
from trainables.tree import Tree, walk

EXPORTED = "exported.safetensors"
STUDY_FILES = (n.STUDY_FILE, n.POINTS_FILE, n.TRIALS_FILE, n.PROVENANCE_FILE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Problem]:
    """A finished sweep of one schedule, with an exported file beside it; made without Ray."""
    tmp = tmp_path_factory.mktemp("made")
    study = load_study(write(tmp, raw_study(tmp, sweep=SWEEP)))
    session = prepare(study)
    begin(session)
    ledger = Ledger(study.folder, study.objectives, study.reference.accuracy_drop)
    schedule = study.schedules()[0]
    ledger.add_dense(session.tree.dense_point(0))
    for row in walk(schedule, session.tree):
        ledger.add({**row, n.TRIAL: 0})
    ledger.add_trial(0, n.COMPLETE, schedule.model_dump(mode="json"))
    (study.folder / n.PROVENANCE_FILE).write_bytes(to_json({"runs": 1, "hours": 0.1, "data": {"validation_images": 99}}))
    export.export(session.tree.network(session.tree.chain(schedule)[-1]), session.tree.problem, study.folder / EXPORTED)
    return study.folder, session.tree.problem


@pytest.fixture
def folder(made: tuple[Path, Problem], tmp_path: Path) -> Path:
    """A copy of the study, to be spoiled."""
    return Path(shutil.copytree(made[0], tmp_path / "results" / "tiny"))


@pytest.fixture
def tree(made: tuple[Path, Problem], folder: Path) -> Tree:
    return Tree(made[1], Store(folder / n.STEPS_FOLDER))


def last_step(folder: Path) -> str:
    return str(json.loads((folder / n.POINTS_FILE).read_text().splitlines()[-1])[n.STEP_ID])


def commands(folder: Path) -> Iterator[tuple[Callable[[list[str]], int], list[str]]]:
    """Everything that reads a folder of results."""
    yield analysis_main, ["report", str(folder)]
    yield analysis_main, ["compare", str(folder)]
    yield main, ["confirm", str(folder)]
    yield main, ["export", str(folder), "--point", last_step(folder), "--to", str(folder.parent / "out.safetensors")]


class Harm:
    """A pickle that leaves a mark when it is read."""

    mark: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.fixture
def harm(tmp_path: Path) -> Iterator[bytes]:
    Harm.mark = tmp_path / "harm"
    yield pickle.dumps(Harm())
    assert not Harm.mark.exists()


def test_the_pickle_would_do_harm(tmp_path: Path) -> None:
    Harm.mark = tmp_path / "harm"
    pickle.loads(pickle.dumps(Harm()))  # noqa: S301
    assert Harm.mark.exists()


@pytest.mark.parametrize("name", [n.STEP_FILE, n.WEIGHTS_FILE])
def test_a_pickle_for_a_step_is_computed_again(name: str, harm: bytes, tree: Tree, folder: Path) -> None:
    step_id = last_step(folder)
    before = tree.content(tree.node(step_id))
    node = tree.node(step_id)
    (Path(tree.store.place) / step_id / name).write_bytes(harm)
    assert tree.content(node) == before and tree.epochs == 1


@pytest.mark.parametrize("name", STUDY_FILES)
def test_a_pickle_for_a_file_of_the_study_is_one_line(
    name: str, harm: bytes, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).write_bytes(harm)
    assert analysis_main(["report", str(folder)]) == 2
    assert name in one_line(capsys.readouterr().err)


def test_pickles_for_anything_else_are_refused(harm: bytes, folder: Path, tmp_path: Path) -> None:
    network = build(ModelSettings(name="cnn", arguments={"width": 4}), 10, (1, 8, 8), trusted=False)
    ledger = Ledger(folder, ("accuracy", "compression"), 0.1)
    for name in (EXPORTED, n.ASKED_FILE, n.OPTUNA_FILE, "weights.safetensors", "weights.pt", "images.npy"):
        (folder / name).write_bytes(harm)
    with pytest.raises(InputError):
        export.load(folder / EXPORTED)
    with pytest.raises(InputError, match=n.OPTUNA_FILE):
        list(lines_of(folder, ledger, {}, Sweep([])))
    with pytest.raises(InputError, match=n.ASKED_FILE):
        Asks(folder)
    for name in ("weights.safetensors", "weights.pt"):
        with pytest.raises(InputError):
            load_checkpoint(network, str(folder / name))
    items = ImageFiles(folder, [folder / "0.png"], np.zeros(1, np.int64))
    assert image_cache._cached(folder / "images.npy", items) is None
    np.save(tmp_path / "objects.npy", np.array([Harm()], object), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", kept=np.zeros(1), targets=np.zeros(1), left_out=np.array([], str), mixed=False)
    assert image_cache._cached(tmp_path / "objects.npy", items) is None
    np.save(tmp_path / "whole.npy", np.zeros((1, 1, 2, 2), np.uint8))
    np.savez(tmp_path / "whole.npz", kept=np.array([Harm()], object), allow_pickle=True)
    assert image_cache._cached(tmp_path / "whole.npy", items) is None


@pytest.mark.parametrize("text", ["", "[]", '{"runs": "many"}', '{"runs": NaN}', "[" * 9999, '{"first_run": 1}'])
def test_a_damaged_provenance_is_written_anew_at_the_end_of_a_run(text: str, tmp_path: Path) -> None:
    (tmp_path / n.PROVENANCE_FILE).write_text(text)
    assert read_before(tmp_path / n.PROVENANCE_FILE) == {"runs": 0, "hours": 0.0, "nodes": {}, n.HISTORY: []}
    whole = {"first_run": "2026-01-01", "runs": 2, "hours": 0.5}
    (tmp_path / n.PROVENANCE_FILE).write_bytes(to_json(whole))
    before = read_before(tmp_path / n.PROVENANCE_FILE)
    assert {name: before[name] for name in whole} == whole


@pytest.mark.parametrize("nodes", [[1], "node", None, {"a host": {"processor": "one"}}])
def test_of_nodes_that_earlier_runs_saw_what_is_damaged_is_left_out(
    nodes: Any, made: tuple[Path, Problem], tmp_path: Path
) -> None:
    study = load_study(made[0] / n.STUDY_FILE)
    ledger = Ledger(made[0], study.objectives, study.reference.accuracy_drop)
    file = tmp_path / n.PROVENANCE_FILE
    file.write_bytes(to_json({"first_run": "2026-01-01", "runs": 2, "hours": 0.5, "nodes": nodes, n.HISTORY: nodes}))
    Run(tmp_path, prepare(study).tree, ledger).end()
    told = json.loads(file.read_text())
    assert (told["runs"], [entry["first"] for entry in told[n.HISTORY]]) == (3, [3] if nodes == [1] else [1, 3])
    assert told["nodes"] == (nodes if isinstance(nodes, dict) else {})


def test_what_a_provenance_says_of_earlier_runs_is_told_in_one_plain_line() -> None:
    before = {"versions": {"torch": "\x1b[2J" + "1" * 999}, "hardware": [1], "nodes": "none", "code": None}
    told = changes(before, {"versions": {"torch": "2.0", "ray": "1"}, "hardware": {"cores": 4}, "code": {"sha256": "a"}})
    assert told is not None
    assert told.isprintable() and len(told) < 120 and told.endswith("1, now 2.0")


DRIVER_S = ("driver.lock", n.ASKED_FILE, n.OPTUNA_FILE, n.CONFIRMED_FILE)
LINKS = (*STUDY_FILES, *DRIVER_S, n.REPORT_FOLDER, n.LATENCY_FOLDER, "steps/x")


@pytest.mark.parametrize("name", LINKS)
def test_a_link_that_leads_out_is_named_and_not_followed(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    is_folder, asked = "." not in name, list(commands(folder))
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside if is_folder else outside / "file")
    before = tree_of(outside)
    for command, arguments in asked:
        assert command(arguments) == 2, arguments
        assert f"{folder / name}: is a link" in one_line(capsys.readouterr().err)
    study = write(tmp_path, raw_study(tmp_path, sweep=SWEEP))
    assert f"{folder / name}: is a link" in refusal(["run", str(study)], capsys)
    assert tree_of(outside) == before and (outside / "file").read_text() == "precious"


def test_links_within_the_folder_and_to_the_folder_are_fine(folder: Path, tmp_path: Path) -> None:
    (folder / "latest").symlink_to(folder / n.POINTS_FILE)
    (tmp_path / "elsewhere").symlink_to(folder)
    check_links(tmp_path / "elsewhere")
    (folder / "latest").unlink()
    (folder / "loop").symlink_to(folder / "loop")
    with pytest.raises(InputError, match="loop"):
        check_links(folder)


def test_a_pipe_is_not_waited_for(tree: Tree, folder: Path, tmp_path: Path) -> None:
    step_id = last_step(folder)
    node = tree.node(step_id)
    for name in (n.STEP_FILE, n.WEIGHTS_FILE):
        (Path(tree.store.place) / step_id / name).unlink()
        os.mkfifo(Path(tree.store.place) / step_id / name)
    assert tree.known(step_id) is None
    tree.content(node)  # computed again
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        read(tmp_path)


BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 8)}]\n" for old, new in zip("abcdefghij", "bcdefghijk", strict=True)
)
YAML = {
    "a key twice": ("name: a\nsearch: {trials: 1, seed: 2, trials: 3}", "line 2: the key 'trials' is given twice"),
    "aliases that grow": (BOMB, "its aliases stand for more than"),
    "an alias of itself": ("name: &a [*a]", "nested too deeply"),
    "depth": ("name: " + "[" * 80 + "]" * 80, "nested too deeply"),
    "a number without end": ("name: 0x" + "f" * 9999, "a number has 10001 digits"),
    "length": ("name: " + "a" * MOST_YAML, "is longer than"),
    "a tag": ("name: !!python/object/apply:os.system ['touch harm']", "python/object/apply:os.system"),
    "a tag that does not fit": ("name: !!int ''", "doesn't fit its tag"),
    "a pickle": (pickle.dumps(b"x").decode("latin-1"), "forbidden characters"),
}


@pytest.mark.parametrize("text, told", YAML.values(), ids=YAML)
def test_yaml_that_is_no_plain_data_is_one_line(text: str, told: str, folder: Path, tmp_path: Path) -> None:
    (folder / n.STUDY_FILE).write_text(text, encoding="utf-8")
    for reader in (lambda: read_yaml(folder / n.STUDY_FILE), lambda: analysis_load.load_study(folder)):
        with pytest.raises(InputError) as error:
            reader()
        assert told in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 500
    assert not (tmp_path / "harm").exists()


def test_an_override_with_a_key_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = write(tmp_path, raw_study(tmp_path))
    assert "'trials' is given twice" in refusal(["run", str(study), "--set", "search={trials: 1, trials: 2}"], capsys)


def test_anchors_and_merges_are_plain_data() -> None:
    assert parse_yaml("a: &x {b: 1}\nc: *x\nd: {<<: *x, b: 2}") == {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 2}}


@pytest.mark.parametrize(
    "text", ["NaN", "[-Infinity]", "[1e999]", "[" * 70 + "]" * 70, "[" * 10**6, "1" * 999, b"\xff", ""]
)
def test_json_that_is_no_plain_data_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r".+") as error:
        parse_json(text)
    assert len(str(error.value)) < 300


ABSURD = {
    "accuracy": {n.ACCURACY: 1e308}, "negative bytes": {n.STORED_BYTES: -1}, "huge": {n.MACS: 1e308},
    "tiny": {n.COMPRESSION: 5e-324}, "nothing": {n.COMPRESSION: 0}, "a list": {n.ACCURACY: [1]}, "text": {n.EPOCHS: "1"},
    "an escape": {n.IMPORTANCE: "\x1b[2J"}, "a formula": {n.IMPORTANCE: "=HYPERLINK(1)"}, "a path": {n.STEP_ID: "../../x"},
    "a path of a shape": {n.SHAPE_ID: "../../x"}, "another seed": {n.SEED: 7}, "a seed in a list": {n.SEED: [0]},
}  # fmt: skip


@pytest.mark.parametrize("change", ABSURD.values(), ids=ABSURD)
def test_absurd_points_are_one_line_and_write_nothing(
    change: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (folder / n.POINTS_FILE).read_text().splitlines()
    (folder / n.POINTS_FILE).write_text("\n".join([*lines[:-1], json.dumps(json.loads(lines[-1]) | change)]) + "\n")
    before = tree_of(folder)
    column = next(iter(change))
    assert column in refusal(["confirm", str(folder)], capsys)
    if not column.endswith("_id"):  # analysis makes no path of an address
        assert analysis_main(["report", str(folder)]) == 2
        assert column in one_line(capsys.readouterr().err)
    assert {name: state for name, state in tree_of(folder).items() if name != "driver.lock"} == before


def spoiled(record: dict[str, Any], **changes: Any) -> bytes:
    """A record whose checksum fits what it says."""
    record = {**record, **changes}
    del record["checksum"]
    return to_json({**record, "checksum": _checksum(record)})


FALSE_RECORDS: dict[str, dict[str, Any]] = {
    "accuracy": {n.ACCURACY: 1e308}, "no accuracy": {n.ACCURACY: None}, "a shape that is a path": {n.SHAPE_ID: "../../x"},
    "no settings": {"settings": None}, "other settings": {"settings": {"kind": "prune"}},
    "itself as parent": {"parent": "id"}, "a path as parent": {"parent": "../../x"},
    "layers": {"layers": {"conv": [1]}}, "checksums": {"checksums": []},
}  # fmt: skip


@pytest.mark.parametrize("change", FALSE_RECORDS.values(), ids=FALSE_RECORDS)
def test_a_false_record_counts_as_none(change: dict[str, Any], tree: Tree, folder: Path) -> None:
    step_id = last_step(folder)
    node, file = tree.node(step_id), Path(tree.store.place) / step_id / n.STEP_FILE
    record = json.loads(file.read_bytes())
    file.write_bytes(spoiled(record))
    assert tree.known(step_id) is not None
    file.write_bytes(spoiled(record, **{key: step_id if value == "id" else value for key, value in change.items()}))
    assert tree.known(step_id) is None
    with pytest.raises(InputError, match=step_id):
        tree.node(step_id)
    assert tree.record(node)[n.ACCURACY] == record[n.ACCURACY] and tree.epochs == 1


def test_settings_that_were_addressed_but_say_nothing_count_as_none(tree: Tree) -> None:
    settings: dict[str, Any] = {"kind": "prune"}
    own = address(None, settings)
    record = tree.known(tree.problem.root(0).id)
    assert record is not None
    (Path(tree.store.place) / own).mkdir()
    (Path(tree.store.place) / own / n.STEP_FILE).write_bytes(spoiled(record, id=own, parent=None, settings=settings))
    assert tree.store.record(own) is not None and tree.known(own) is None


@pytest.mark.parametrize("step_id", ["../tiny", "/etc", ".", "..", "", "a/b", "a\x00b"])
def test_an_address_is_never_a_path(step_id: str, tree: Tree) -> None:
    assert tree.store.record(step_id) is None


def rewritten(content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """A safetensors file with a changed record in its header."""
    (length,) = struct.unpack("<Q", content[:8])
    header, record = json.loads(content[8 : 8 + length]), metadata(content)
    change(record)
    header["__metadata__"]["pruning"] = json.dumps(record)
    packed = json.dumps(header).encode()
    return struct.pack("<Q", len(packed)) + packed + content[8 + length :]


HUGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "width": lambda record: record["export"].update(arguments={"width": 20_000}),
    "a width beyond all": lambda record: record["export"].update(arguments={"width": 10**18}),
    "images": lambda record: record["export"].update(shape=[1, 60_000, 60_000]),
    "channels": lambda record: record["export"].update(shape=[10**12, 8, 8], mean=[0.5], std=[0.5]),
    "activations": lambda record: record["export"].update(shape=[1, 9_000, 9_000]),
    "work": lambda record: record["export"].update(arguments={"width": 300}, shape=[1, 450, 450]),
    "a std of nothing": lambda record: record["export"].update(std=[0.0]),
    "a mean that is none": lambda record: record["export"].update(mean=[float("nan")]),
    "a mean too many": lambda record: record["export"].update(mean=[0.5, 0.5]),
    "infinite channels": lambda record: record.update(removed=[["features.0", True, [float("inf")]]]),
    "depth": lambda record: record.update(removed=json.loads("[" * 80 + "]" * 80)),
}


@pytest.mark.parametrize("change", HUGE.values(), ids=HUGE)
def test_an_exported_file_cannot_ask_for_memory_or_work(change: Callable[[dict[str, Any]], object], folder: Path) -> None:
    file = folder / EXPORTED
    file.write_bytes(rewritten(file.read_bytes(), change))
    with pytest.raises(InputError) as error:
        export.load(file)
    assert "\n" not in str(error.value)


def test_an_exported_file_with_nan_is_refused(made: tuple[Path, Problem], tree: Tree, folder: Path) -> None:
    network = tree.network(tree.node(last_step(folder)))
    with torch.no_grad():
        next(network.model.parameters())[0] = float("nan")
    export.export(network, made[1], folder / EXPORTED)
    with pytest.raises(InputError, match="infinite or NaN"):
        export.load(folder / EXPORTED)


def test_most_bytes_is_what_a_trusted_file_may_take(folder: Path) -> None:
    export.load(folder / EXPORTED)
    with pytest.raises(InputError, match="most_bytes"):
        export.load(folder / EXPORTED, most_bytes=1000)


@pytest.mark.parametrize("name", ["regnet_y_400mf", "swin_v2_t", "vit_b_32", "mobilenet_v2"])
def test_sizes_are_found_without_memory(name: str) -> None:
    settings = ModelSettings(name=f"torchvision:{name}")
    check_size(settings, 10, (3, 224, 224), 10**9, "")
    with pytest.raises(InputError):
        check_size(settings, 10, (3, 224, 224), 10**6, "")


def test_a_study_that_no_machine_can_hold_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = write(tmp_path, raw_study(tmp_path, model={"name": "cnn", "arguments": {"width": 100_000}}))
    assert "width" in refusal(["run", str(study)], capsys)


FACTORY = "harmful_factory_of_a_results_folder"


def test_a_folder_of_results_names_no_code_to_import(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"{FACTORY}.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'harm')!r}).touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = (folder / n.STUDY_FILE).read_text().replace("name: cnn", f"name: {FACTORY}:make").replace("width: 4", "{}")
    (folder / n.STUDY_FILE).write_text(text)
    change: dict[str, Any] = {"model": f"{FACTORY}:make", "arguments": {}}
    (folder / EXPORTED).write_bytes(rewritten((folder / EXPORTED).read_bytes(), lambda r: r["export"].update(change)))
    with pytest.raises(InputError, match="would run code"):
        export.load(folder / EXPORTED)
    for command, arguments in commands(folder):
        code = command(arguments)
        assert code == (0 if command is analysis_main else 2), (arguments, capsys.readouterr())
        assert command is analysis_main or "add --allow-code" in capsys.readouterr().err
    study = write(tmp_path, raw_study(tmp_path, sweep=SWEEP))  # names no code; what lies in the folder is only compared
    assert "model.name" in refusal(["run", str(study)], capsys)
    assert not (tmp_path / "harm").exists()


HOSTILE_NAMES = ("<script>alert(1)</script>", "\x1b[2J\x1b]0;title\x07", "[/red][link=x]", "$\\frac{", "a\nb\rc", "=1+1")


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_reach_neither_terminal_nor_page_as_more_than_text(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = {n.TRIAL: 0, n.STATE: n.FAILED, n.REASON: name, n.SCHEDULE: {name: name}}
    folder = write_study(tmp_path, [dense(), point()], settings={"name": name, "data": {"dataset": name}}, trials=[trial])
    (folder / n.PROVENANCE_FILE).write_text(json.dumps({name: name, "data": {"classes": [name]}}))
    assert analysis_main(["report", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in shown)
    page = (folder / n.REPORT_FOLDER / "index.html").read_text()
    assert "<script>alert" not in page and page.count("<script") == 3  # the data, plotly.js and what uses both
    assert all(c.isprintable() for c in str(InputError(f"{name}: no")))


def test_markup_in_a_recipe_is_text() -> None:
    row = {**point(importance="[/red]", scope="[bold]"), n.PRUNER: None}
    assert front_table([row]).row_count == 1
    cells = list(front_table([row]).columns[3].cells)
    assert cells == ["unstructured: \\[/red], \\[bold]; one cut of 50%; 1 epoch of fine-tuning after it"]


@pytest.mark.parametrize("name", [n.REPORT_FOLDER, f"{n.REPORT_FOLDER}/index.html"])
def test_what_lies_where_the_report_belongs_is_one_line(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch() if name == n.REPORT_FOLDER else (folder / name).mkdir()
    assert analysis_main(["report", str(folder)]) == 2
    assert name in one_line(capsys.readouterr().err)


def damaged(content: bytes, draw: random.Random) -> bytes:
    """A byte flipped, a part cut out, doubled or overwritten, or the end cut off."""
    damage = bytearray(content)
    first = draw.randrange(len(damage))
    last = min(len(damage), first + draw.choice([1, 1, 2, 8, 64, 500]))
    kind = draw.randrange(5)
    if kind == 0:
        damage[first] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del damage[first:last]
    elif kind == 2:
        damage[first:first] = damage[first:last]
    elif kind == 3:
        damage[first:last] = draw.choice([b"NaN", b"1e999", b"-1", b"null", b"[" * 99, b"\x00", b"*a", b"../", b"\n"])
    else:
        del damage[first:]
    return bytes(damage)


def read_study(folder: Path, _: Tree) -> None:
    load_study(folder / n.STUDY_FILE).schedules()
    analysis_load.load_study(folder)


def read_driver_files(folder: Path, _: Tree) -> None:
    front_table(Ledger(folder, ("accuracy", "compression"), 0.1).front_rows())
    analysis_load.load_study(folder)


def read_step(folder: Path, tree: Tree) -> None:
    for step_id in tree.store.ids():
        record = tree.known(step_id)
        assert record is None or tree.store.weights(record) is None or tree.network(tree.node(step_id))


def read_export(folder: Path, _: Tree) -> None:
    export.load(folder / EXPORTED)


FUZZED: dict[str, Callable[[Path, Tree], None]] = {
    n.STUDY_FILE: read_study, n.POINTS_FILE: read_driver_files, n.TRIALS_FILE: read_driver_files,
    n.PROVENANCE_FILE: read_driver_files, f"STEP/{n.STEP_FILE}": read_step, f"STEP/{n.WEIGHTS_FILE}": read_step,
    EXPORTED: read_export,
}  # fmt: skip
ROUNDS = 40


@pytest.mark.parametrize("name", FUZZED)
def test_damage_is_refused_in_a_line_or_made_good(name: str, folder: Path, tree: Tree) -> None:
    file = folder / name.replace("STEP", f"{n.STEPS_FOLDER}/{last_step(folder)}")
    whole = file.read_bytes()
    refused = 0
    for number in range(ROUNDS):
        file.write_bytes(damaged(whole, random.Random(number)))
        try:
            FUZZED[name](folder, tree)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused or "STEP" in name


def told_elsewhere(folder: Path, what: str, becomes: str) -> None:
    """The folder of results says something else about where things are."""
    file = folder / n.STUDY_FILE
    before = file.read_text()
    assert what in before
    file.write_text(before.replace(what, becomes))


def test_a_url_that_only_a_folder_of_results_names_is_not_touched(
    folder: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = next(line for line in (folder / n.STUDY_FILE).read_text().splitlines() if line.startswith("storage:"))
    told_elsewhere(folder, storage, f"storage: {bucket}/prod")
    step, client = last_step(folder), from_url(bucket, client_options={"allow_http": True})
    monkeypatch.chdir(tmp_path)
    commands = (["confirm"], ["export", "--point", step, "--to", str(tmp_path / "pruned.safetensors")])
    for command, *arguments in commands:
        line = refusal([command, str(folder), *arguments], capsys)
        assert f"{bucket}/prod/tiny; if you trust it, give this URL" in line
        assert f"--set storage={bucket}/prod" in line
        line = refusal([command, f"{bucket}/results/tiny", *arguments], capsys)  # what the folder here says is elsewhere
        assert f"with its steps in {bucket}/prod/tiny" in line
    assert [entry for page in obstore.list(client) for entry in page] == []
    line = refusal(["confirm", str(folder), "--set", f"storage={bucket}/prod"], capsys)
    assert f"{bucket}/prod/tiny/steps: has no whole record of step" in line  # it was looked for there


def pictures_at(root: Path) -> Path:
    """A few images of two classes, to train and to test on."""
    draw = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in "ab":
            (root / part / name).mkdir(parents=True)
            for number in range(12):
                pixels = draw.integers(0, 256, (8, 8), np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")
    return root


def test_a_data_root_that_only_a_folder_of_results_names_is_read_and_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = pictures_at(tmp_path / "pictures")
    settings = {"dataset": "folder", "root": str(root), "validation_fraction": 0.3}
    study = load_study(write(tmp_path, raw_study(tmp_path, sweep=SWEEP, data=settings)))
    session = prepare(study)
    begin(session)
    ledger = Ledger(study.folder, study.objectives, study.reference.accuracy_drop)
    ledger.add_dense(session.tree.dense_point(0))
    ledger.add({**next(walk(study.schedules()[0], session.tree)), n.TRIAL: 0})
    shutil.rmtree(root / image_cache.CACHE_FOLDER)
    before = tree_of(root)
    assert main(["confirm", str(study.folder)]) == 0
    assert tree_of(root) == before
    (study.folder / n.CONFIRMED_FILE).unlink()
    shutil.rmtree(tmp_path / "cache")
    assert main(["confirm", str(study.folder), "--set", f"data.root={root}"]) == 0
    assert (root / image_cache.CACHE_FOLDER).exists()


def test_nothing_is_downloaded_to_a_root_that_only_a_folder_of_results_names(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def download(*_: object) -> None:
        raise AssertionError("downloaded")

    monkeypatch.setattr("torchvision.datasets.CIFAR10.download", download)
    elsewhere = tmp_path / "elsewhere"
    told_elsewhere(folder, "dataset: digits", "dataset: cifar10")
    told_elsewhere(folder, "root: data", f"root: {elsewhere}")
    line = refusal(["confirm", str(folder)], capsys)
    assert line.startswith(f"error: data.root: CIFAR-10 is not in '{elsewhere}'")
    assert "--set data.root=..." in line
    assert not elsewhere.exists()
    assert "downloaded to" in refusal(["confirm", str(folder), "--set", f"data.root={elsewhere}"], capsys)
