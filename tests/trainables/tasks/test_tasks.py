"""Tasks: measures in closed form, what targets must be, and each task from its data to pruned networks and their report."""

from __future__ import annotations

import math
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from search.session import problem_of
from search.study import Study
from tests import ROOT
from tests.search_helpers import raw_study
from tests.task_helpers import NETS, write_masks, write_numbers
from trainables import own
from trainables.data import mapped
from trainables.data.dataset import DataSettings, load
from trainables.data.preparation import changed, draw
from trainables.problem import Problem
from trainables.pruning.sample import Sample
from trainables.records import names as n
from trainables.records.methods import described, measure_of
from trainables.records.names import InputError
from trainables.records.objectives import ACCURACY
from trainables.records.points import is_record
from trainables.schedule import Schedule, StructuredSchedule, UnstructuredSchedule
from trainables.storage.store import Store
from trainables.tasks import measures
from trainables.tasks.labels import Classification, Multilabel, Regression
from trainables.tasks.registry import TASKS, TaskSettings, identity, of_spec, spec, task_of
from trainables.tasks.segmentation import Segmentation
from trainables.training.retraining import Distill
from trainables.tree import Tree

MODULE = "task_for_tests"
PLAIN = {"crop": 0, "flip": False}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the user's module in it, as the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    (tmp_path / f"{MODULE}.py").write_text(NETS)
    sys.modules.pop(MODULE, None)
    own.cached_hash.cache_clear()
    TASKS._own.clear()
    of_spec.cache_clear()
    return tmp_path


def study_of(here: Path, kind: str, **changes: Any) -> Study:
    """A study of each task."""
    numbers = {"dataset": "csv", "root": str(here / "numbers"), "validation_fraction": 0.5, **PLAIN}
    made = {
        "segmentation": {
            "data": {"dataset": "folder", "root": str(here / "masks"), "validation_fraction": 0.25},
            "task": {"name": "segmentation"}, "model": {"name": f"{MODULE}:maps"},
        },
        "regression": {
            "data": {**numbers, "label_columns": ["red", "green"]},
            "task": {"name": "regression", "measured_by": "mae"}, "reference": {"drop": 0.3},
        },
        "multilabel": {
            "data": {**numbers, "label_columns": ["has_red", "has_green"]},
            "task": {"name": "multilabel"},
        },
        "own": {
            "data": {"dataset": f"{MODULE}:squares", **PLAIN}, "task": {"name": f"{MODULE}:Detector"},
            "model": {"name": f"{MODULE}:boxes"}, "reference": {"drop": 4.0},
        },
    }[kind]  # fmt: skip
    if kind == "segmentation" and not (here / "masks").exists():
        write_masks(here / "masks")
    if kind in ("regression", "multilabel") and not (here / "numbers").exists():
        write_numbers(here / "numbers")
    dense = {"epochs": 16, "learning_rate": 0.1, "batch_size": 8, "threads": 1}
    raw = raw_study(here, **{"dense": dense, "sweep": [{"step_ratio": 0.5}], **made, **changes})
    return Study(allow_code=True, **raw)


def tree_of(study: Study, folder: Path) -> Tree:
    problem = problem_of(study, trusted=True)
    return Tree(problem, Store(folder), objectives=study.goals, forms=study.storage_forms)


def test_measures_are_what_they_say() -> None:
    answers, labels = torch.tensor([0, 0, 1, 1, 2, 2, 2, 2]), torch.tensor([0, 0, 0, 1, 2, 2, 1, 2])
    assert measures.share_right(answers, labels) == 6 / 8
    assert measures.balanced_accuracy(answers, labels) == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert measures.macro_f1(answers, labels) == pytest.approx((4 / 5 + 2 / 4 + 6 / 7) / 3)
    logits = torch.tensor([[3.0, 0], [1, 0], [2, 0], [0, 0]])  # by rising score of class 1: 0, 2, 1, 3
    assert measures.auc(logits, torch.tensor([0, 1, 0, 1])) == 1 and measures.auc(logits, torch.tensor([1, 0, 1, 0])) == 0
    assert measures.auc(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])) == 0.5
    scores, truth = torch.tensor([[0.9], [0.8], [0.7], [0.1]]), torch.tensor([[1], [0], [1], [0]])
    assert measures.mean_average_precision(scores, truth) == pytest.approx((1 + 2 / 3) / 2)
    targets = torch.tensor([[1.0], [2.0], [3.0]])
    assert measures.r2(targets, targets) == 1 and measures.r2(torch.full((3, 1), 2.0), targets) == 0
    assert (
        measures.mae(targets + 0.5, targets) == 0.5 and measures.error_of_mean(measures.missed(targets + 0.5, targets)) == 0
    )
    among = measures.share_among(measures.best_five(torch.arange(8.0).repeat(2, 1)), torch.tensor([3, 2]))
    assert among == 0.5


def test_the_standard_error_of_a_mean_is_found_by_drawing_images_anew() -> None:
    draw = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(400, 1, generator=draw), torch.zeros(400, 1)
    task = Regression(measured_by="mae")
    assert super(type(task), task).measure(outputs, targets) == pytest.approx(0.8, abs=0.1)
    resampled = super(Regression.__mro__[2], task).error(outputs, targets)
    assert resampled == pytest.approx(task.error(outputs, targets), rel=0.4)


def test_the_error_of_a_difference_is_of_the_same_images() -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (400,), generator=draw)
    answers = torch.where(torch.rand(400, generator=draw) < 0.2, 1 - labels, labels)
    others = torch.where(torch.rand(400, generator=draw) < 0.05, 1 - answers, answers)  # it errs on nearly the same
    each = (answers == labels).double() - (others == labels).double()
    classes = Classification()
    assert classes.difference_error(answers, others, labels) == pytest.approx(float(each.std()) / 20)
    assert classes.difference_error(answers, answers, labels) == 0 < classes.error(answers, labels)
    assert classes.difference_error(answers, others, labels) < 0.7 * classes.error(answers, labels)
    drawn = super(Classification.__mro__[1], classes).difference_error(answers, others, labels)  # by the bootstrap
    assert drawn == pytest.approx(classes.difference_error(answers, others, labels), rel=0.4)
    targets = torch.randn(100, 2, generator=draw)
    outputs, shifted = targets + 0.1 * torch.randn(100, 2, generator=draw), targets + 0.5
    for task in (Regression(measured_by="mae"), Regression()):
        assert task.difference_error(outputs, outputs, targets) == 0 < task.difference_error(outputs, shifted, targets)
    masks = torch.randint(3, (20, 8, 8), generator=draw).to(torch.uint8)
    said = torch.where(torch.rand(20, 8, 8, generator=draw) < 0.1, 0, masks).to(torch.int16)
    areas = Segmentation()
    assert areas.difference_error(said, said, masks) == 0 < areas.difference_error(said, masks.to(torch.int16), masks)


def test_an_example_of_use_says_what_a_reader_wants_to_know() -> None:
    told = {"outputs": np.array([[0.1, -2.0], [-1.0, 3.0]]), "names": ("a", "b")}

    def shown(task: Any, *names: str) -> Any:
        return eval(task.answer("outputs", *names), told)  # noqa: S307 - our own text

    assert shown(Classification(), "names") == ["a", "b"] and shown(Classification()).tolist() == [0, 1]
    assert shown(Multilabel(), "names") == [["a"], ["b"]] and shown(Multilabel()).tolist() == [[True, False], [False, True]]
    assert shown(Regression(), "names") is told["outputs"]
    told["outputs"] = np.zeros((2, 3, 4, 4))
    assert shown(Segmentation(), "names").shape == (2, 4, 4)


def test_a_segmentation_ignores_what_it_is_told_to() -> None:
    task = Segmentation()
    targets = torch.tensor([[[0, 1], [1, 255]], [[0, 0], [255, 255]]], dtype=torch.uint8)
    answers = torch.tensor([[[0, 1], [0, 1]], [[0, 1], [0, 0]]], dtype=torch.int16)
    # of class 0: 2 right, 3 there, 3 said; of class 1: 1 right, 2 there, 2 said
    assert task.measure(answers, targets) == pytest.approx((2 / 4 + 1 / 3) / 2)
    logits = torch.nn.functional.one_hot(answers.long(), 2).permute(0, 3, 1, 2).float()
    assert torch.equal(task.kept(logits), answers) and task.error(answers, targets) > 0
    nothing = torch.full_like(targets, 255)
    assert float(task.loss(logits, nothing)) == 0
    assert float(task.loss(100 * logits[:1, :, :1], targets[:1, :1])) == pytest.approx(0, abs=1e-6)


def test_an_old_classification_has_no_task_in_its_identity_and_another_has() -> None:
    usual = task_of(TaskSettings(), {})
    assert identity(usual) == {} and usual.quality is ACCURACY and described(usual.quality) == {}
    assert identity(task_of(TaskSettings(measured_by="accuracy"), {})) == {}
    top = task_of(TaskSettings(measured_by="top5", label_smoothing=0.1), {})
    assert identity(top) == {"name": "classification", "measured_by": "top5", "label_smoothing": 0.1}
    for task in (usual, top, Segmentation(ignore_index=0), Multilabel()):
        assert of_spec(spec(task)) == task
        assert measure_of(described(task.quality)).describe() == task.quality.describe()
    mae = Regression(measured_by="mae").quality
    assert (mae.gain(0.2, 0.1), mae.origin(0.1, 0.3)) == (-0.2, pytest.approx(-0.4)) and mae.told(0.25) == "0.25"


def test_class_weights_are_of_the_training_images() -> None:
    labels = np.array([0, 0, 0, 1])
    task = Classification(class_weights="balanced").fitted(labels, ("a", "b"))
    assert task.class_weights == pytest.approx((4 / 6, 4 / 2))
    outputs, targets = torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 0])
    plain = Classification()
    assert float(task.summed(outputs, targets)) == pytest.approx(4 / 6 * float(plain.summed(outputs, targets)))
    with pytest.raises(InputError, match="3 values for 2 classes"):
        Classification(class_weights=(1, 2, 3)).fitted(labels, ("a", "b"))


@pytest.mark.parametrize("kind", ["segmentation", "regression", "multilabel", "own"])
def test_each_task_goes_from_its_data_to_pruned_networks(kind: str, here: Path) -> None:
    study = study_of(here, kind)
    tree, measure = tree_of(study, here / "steps"), study.measure
    assert study.objectives == (measure.name, "compression") and measure.name != "accuracy"
    dense = tree.dense_point(0)
    fair = {"segmentation": 0.5, "regression": 0.25, "multilabel": 0.6, "own": 4.0}[kind]
    assert measure.gain(dense[measure.column], 0) > measure.gain(fair, 0) and 0 <= dense[measure.error] < 1
    assert (dense[n.ACCURACY], dense[measure.before]) == (None, dense[measure.column])
    cuts: list[Schedule] = [UnstructuredSchedule(importance="taylor", step_ratio=0.5)]
    if kind != "own":  # looking at a network of a user's own takes a process
        cuts.append(StructuredSchedule(importance="hessian", step_ratio=0.3))
    for cut in cuts:
        point = tree.point(tree.chain(cut)[0], cut, 1)
        assert point[n.COMPRESSION] > 1 and measure.low <= point[measure.column] <= measure.high
        record = tree.known(point[n.STEP_ID])
        assert record is not None and is_record(record) and not is_record({**record, measure.column: None})
        assert not is_record({key: value for key, value in record.items() if key != "measure"})
    again = tree_of(study, here / "steps")
    assert again.point(again.chain(cuts[0])[0], cuts[0], 1)[n.REUSED]


def test_scores_are_of_the_task_s_own_loss(here: Path) -> None:
    found = []
    for penalty in ("mse", "l1"):
        study = study_of(here, "regression", task={"name": "regression", "measured_by": "r2", "penalty": penalty})
        problem = problem_of(study, trusted=True)
        torch.manual_seed(0)
        model = problem.build()
        Sample(problem.data, 0).gradients(model, 8)
        found.append(next(iter(model.parameters())).grad)
    assert not torch.equal(*found)


def test_distillation_is_for_classes_alone(here: Path) -> None:
    problem = problem_of(study_of(here, "regression"), trusted=True)
    with pytest.raises(InputError, match="'distill' needs logits of classes, and the task is 'regression'"):
        problem.check(UnstructuredSchedule(step_ratio=0.5, retrain="distill"))
    draw = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 3, 4, 5, generator=draw), torch.randn(2, 3, 4, 5, generator=draw)
    pixels = (maps.permute(0, 2, 3, 1).reshape(-1, 3) for maps in (one, other))
    assert float(Distill().divergence(one, other)) == pytest.approx(float(Distill().divergence(*pixels)), rel=1e-5)


def test_many_masks_stay_in_their_file_and_steps_are_the_same_to_the_bit(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(here, "segmentation", dense={"epochs": 2, "batch_size": 8, "threads": 1})
    cut, states, records = UnstructuredSchedule(step_ratio=0.5, importance="taylor"), [], []
    for bound in (10**9, 0):
        monkeypatch.setattr(mapped, "MAPPED_FROM", bound)
        tree = tree_of(study, here / str(bound))
        data = tree.problem.data
        assert (
            isinstance(data.train_labels, mapped.Mapped) == isinstance(data.validation_labels, mapped.Mapped) == (not bound)
        )
        assert bound or len(pickle.dumps(data)) < 4000
        node = tree.chain(cut)[-1]
        states.append(tree.network(node).model.state_dict())
        records.append({key: tree.record_of(node)[key] for key in ("id", "mean_iou", "mean_iou_error", "mean_iou_before")})
    assert records[0] == records[1]
    assert all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())


def test_masks_of_more_than_a_byte_are_kept_in_memory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"dataset": "folder", "root": str(write_masks(here / "masks")), "validation_fraction": 0.25}
    plain = load(DataSettings(**data), task=Segmentation())
    wide = here / "masks" / "train" / "masks" / "003.png"
    Image.fromarray(np.asarray(Image.open(wide)).astype(np.int32)).save(wide.with_suffix(".tif"))
    wide.unlink()
    monkeypatch.setattr(mapped, "MAPPED_FROM", 0)
    for _ in range(2):  # decoded, and from the cache
        found = load(DataSettings(**data), task=Segmentation())
        assert isinstance(found.train_labels, np.ndarray) and isinstance(found.train_images, mapped.Mapped)
        assert found.fingerprint == plain.fingerprint and found.train_labels.dtype == np.uint8


def test_masks_are_cropped_and_mirrored_with_their_images(here: Path) -> None:
    data = problem_of(study_of(here, "segmentation", data={
        "dataset": "folder", "root": str(write_masks(here / "masks")), "validation_fraction": 0.25, "crop": 3, "flip": True,
    }), trusted=True).data  # fmt: skip
    masks = torch.arange(300, 300 + 16 * 16).reshape(1, 16, 16).repeat(20, 1, 1)
    images = masks[..., None].float()
    moved, targets = changed(images, masks, data, draw(data, 20, torch.Generator().manual_seed(0)))
    there = targets != 255
    assert torch.equal(moved[..., 0][there].long(), targets[there]) and not moved[..., 0][~there].any()
    assert len({tuple(one.flatten().tolist()) for one in targets}) > 10


@pytest.mark.parametrize("size", [[8, 8], 12])
def test_masks_are_resized_with_their_images(here: Path, size: Any) -> None:
    data = {"dataset": "folder", "root": str(write_masks(here / "masks")), "validation_fraction": 0.25, "size": size}
    found = problem_of(study_of(here, "segmentation", data=data), trusted=True).data
    assert found.train_labels.shape[1:] == found.shape[1:] and set(np.unique(found.train_labels)) <= {0, 1, 2, 255}
    bright = found.train_images.max(1) > 150
    assert (found.train_labels[bright] > 0).mean() > 0.7 and found.train_labels[~bright].astype(bool).mean() < 0.2


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("segmentation", {"data": {"resize": "random_resized_crop"}}, "'random_resized_crop' can't be done to masks"),
    ("segmentation", {"model": {"name": "cnn"}}, "turns images [2, 3, 16, 16] into [2, 3] in evaluation, not into maps of"),
    ("regression", {"model": {"name": f"{MODULE}:maps"}}, "into [2, 2, 16, 16] in evaluation, not into logits [2, 2]"),
    ("regression", {"data": {"label_columns": ["rde"]}}, "has no column 'rde'; did you mean 'red'?"),
    ("regression", {"data": {"label_columns": None, "label_column": "has_red"}}, "regression has a finite number"),
    ("multilabel", {"data": {"label_columns": ["red", "has_green"]}}, "for 'red'; give 0 or 1 for each label"),
    ("own", {"task": {"name": f"{MODULE}:Fails"}}, "its measure fails (ZeroDivisionError: by hand); correct it"),
    ("own", {"task": {"name": f"{MODULE}:NoNumber"}}, "nothing is nan, which is no finite number"),
    ("own", {"task": {"name": f"{MODULE}:Nameless"}}, "has no name; give what its measure is called"),
    ("own", {"task": {"name": f"{MODULE}:Taken"}}, "there is a column of this name; choose another"),
    ("own", {"task": {"name": f"{MODULE}:boxes"}}, "is no Task; derive it from trainables.tasks.base.Task"),
    ("own", {"reference": {}}, "reference.drop: distance has no scale that all know"),
    ("own", {"objectives": ["accuracy", "compression"]}, "'accuracy' is no objective; valid: compression, distance"),
    ("own", {"methods": {f"{MODULE}:Detector": {"strenght": 2}}}, "unknown key 'strenght'"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "changes", "words"), BAD, ids=[words[:30] for _, _, words in BAD])
def test_what_does_not_fit_a_task_is_one_line(here: Path, kind: str, changes: dict[str, Any], words: str) -> None:
    data = study_of(here, kind).data.model_dump(exclude_defaults=True)
    with pytest.raises(InputError) as error:
        problem_of(study_of(here, kind, **{**changes, "data": data | changes.get("data", {})}), trusted=True)
    assert words in str(error.value) and "\n" not in str(error.value)


def wrong_mask(folder: Path) -> None:
    from PIL import Image  # noqa: PLC0415

    Image.new("L", (9, 16)).save(folder / "train" / "masks" / "003.png")


def wrong_class(folder: Path) -> None:
    from PIL import Image  # noqa: PLC0415

    for file in sorted((folder / "validation" / "masks").iterdir())[:1]:
        Image.new("L", (16, 16), 7).save(file)


def no_mask(folder: Path) -> None:
    (folder / "train" / "masks" / "003.png").unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (wrong_mask, "003.png' is 16x16 pixels and its mask 9x16; make them alike"),
        (wrong_class, "item 0 of validation has class 7 in its mask, and there are 3 classes"),
        (no_mask, "003.png' has nothing of its name in masks"),
    ],
)
def test_damaged_masks_are_one_line(here: Path, damage: Any, words: str) -> None:
    root = write_masks(here / "masks", parts=("train", "validation"))
    damage(root)
    with pytest.raises(InputError, match=r"^data\.") as error:
        problem_of(study_of(here, "segmentation"), trusted=True)
    assert words in str(error.value)


def test_a_number_that_is_none_is_one_line(here: Path) -> None:
    study = study_of(here, "regression")
    file = here / "numbers" / "labels.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:3], lines[3].replace("train,0", "train,nan0", 1), *lines[4:]]))
    with pytest.raises(InputError, match=r"data.label_columns: 'red' is 'nan0.* in line 4 of .*; give a finite number"):
        problem_of(study, trusted=True)


def test_a_problem_comes_to_another_process_with_its_task(here: Path) -> None:
    import pickle  # noqa: PLC0415

    problem = problem_of(study_of(here, "own", methods={f"{MODULE}:Detector": {"strength": 2.0}}), trusted=True)
    told: Problem = pickle.loads(pickle.dumps(problem))  # noqa: S301
    assert told.root(0).id == problem.root(0).id and told.data.task.model_dump() == {"strength": 2.0}
    assert problem.root(0).settings["task"]["settings"] == {"strength": 2.0}
    assert math.isfinite(told.data.task.quality.low)
