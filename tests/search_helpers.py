"""What the tests of ``search`` share: a study so small that a whole run of it takes seconds."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from search.__main__ import main
from search.records.journal import NAME
from trainables.records import names as n

Raw = dict[str, Any]

UNSTRUCTURED_SPACE: Raw = {
    "importance": ["magnitude", "random"], "scope": ["global"], "retrain": ["fine_tune"], "step_ratio": [0.5, 0.8],
    "max_steps": 3, "fine_tune_epochs": [1],
}  # fmt: skip
STRUCTURED_SPACE: Raw = {
    "importance": ["magnitude_l2", "random"], "scope": ["local"], "retrain": ["fine_tune"], "step_ratio": [0.3, 0.5],
    "pruner": ["base"], "max_steps": 2, "fine_tune_epochs": [1],
}  # fmt: skip
SPACE: Raw = {"unstructured": UNSTRUCTURED_SPACE, "structured": STRUCTURED_SPACE}
SWEEP: list[Raw] = [{"step_ratio": 0.5, "steps": 2}]
FACTORY = "small_nets_for_tests"
DENSE_POINT: Raw = {
    n.STEP: 0, n.STEP_ID: "dense", n.FAMILY: n.DENSE, n.SEED: 0, n.ACCURACY: 0.9, n.COMPRESSION: 1.0, n.MACS: 800,
    n.EPOCHS: 30, n.TOTAL_EPOCHS: 0, n.REUSED: False, n.SPARSITY: 0.0,
}  # fmt: skip


def point(step_id: str, accuracy: float = 0.85, compression: float = 2.0, **changes: Any) -> Raw:
    """A pruned network as a row of ``points.jsonl``."""
    made = {
        n.TRIAL: 0, n.STEP: 1, n.STEP_ID: step_id, n.SEED: 0, n.ACCURACY: accuracy, n.COMPRESSION: compression, n.MACS: 400,
        n.EPOCHS: 1, n.TOTAL_EPOCHS: 1, n.REUSED: False, n.FAMILY: n.UNSTRUCTURED, n.SPARSITY: 0.5,
    }  # fmt: skip
    return made | changes


def raw_study(tmp: Path, **changes: Any) -> Raw:
    """A study of the digits and a narrow network; ``changes`` are top-level keys, None leaves one out."""
    raw: Raw = {
        "name": "tiny", "storage": str(tmp / "results"), "precision": "fp32",
        "data": {"dataset": "digits", "validation_fraction": 0.3, "limit": 300},
        "model": {"name": "cnn", "arguments": {"width": 4}},
        "dense": {"epochs": 2, "learning_rate": 0.1, "batch_size": 32, "threads": 1},
        "retraining": {"learning_rate": 0.05, "score_images": 32},
        "space": SPACE, "search": {"trials": 6},
    }  # fmt: skip
    raw |= changes
    if "sweep" in changes and "space" not in changes:
        del raw["space"]
    return copy.deepcopy({key: value for key, value in raw.items() if value is not None})


def write(tmp: Path, raw: Any, name: str = "study.yaml") -> Path:
    """``raw`` as a YAML file, or as it stands if it is text."""
    file = tmp / name
    file.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw, sort_keys=False))
    return file


def one_line(stderr: str) -> str:
    """The one line that a refusal must be."""
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("error: "), stderr
    return lines[0]


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What ``python -m search`` says when it refuses; nothing else may be said."""
    capsys.readouterr()
    code = main(arguments)
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    return one_line(err)


def rows(file: Path) -> list[Raw]:
    """The rows of a JSON-lines file."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def optuna_rows(folder: Path) -> list[FrozenTrial]:
    """The rows of the Optuna study in a folder of results."""
    storage = JournalStorage(JournalFileBackend(str(folder / n.OPTUNA_FILE)))
    return optuna.load_study(study_name=NAME, storage=storage).get_trials()


def tree_of(folder: Path) -> Mapping[str, tuple[int, int]]:
    """Every file below a folder: (size, time of writing)."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(file.relative_to(folder)): (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


NETS = '''
"""Networks that the tests of the command line ask for by name."""
import torch
from torch import nn


class Nothing(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(10))

    def forward(self, x):
        return x.flatten(1)[:, :10] * self.scale


def nothing_to_prune():
    return Nothing()


def small(width=8):
    convolutions = [nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def without_batchnorm():
    pool, flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), pool, flatten, nn.Linear(8, 10))
'''


def check_made_again(before: list[Raw], again: list[Raw], trials: int) -> None:
    """Points made again from the steps alone: a trial that found all of its steps left nothing; another has its number."""
    paid = {row[n.TRIAL] for row in before if row[n.STEP] and not row[n.REUSED]}
    assert [row for row in again if row[n.TRIAL] in paid] == [row for row in before if row[n.TRIAL] in paid]
    assert {row[n.TRIAL] for row in again} == {None, *range(trials)}
    assert {row[n.STEP_ID] for row in before} <= {row[n.STEP_ID] for row in again}
