"""What is left of each layer: the records of chosen steps beside the dense network's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

import trainables.records.names as n
from analysis import words
from analysis.columns import point_ids
from analysis.load import Study
from analysis.pareto import best_at_drops, excess
from analysis.tables import drops_of
from trainables.records.jsonl import unpacked
from trainables.records.objectives import Quality
from trainables.records.points import is_record
from trainables.records.untrusted import is_address, parse_json, read

MOST_NETWORKS = 5
LAYERS = "layers"
"""The key of a step's record: layer -> its prunable weights, those kept and those its tensor has."""


class Cell(NamedTuple):
    """What a network has left of a layer, as shares."""

    kept: float
    """of the dense layer's weights"""
    tensor: float
    """what the tensor has left: smaller where channels were cut"""

    @property
    def told(self) -> str:
        """In words: what is kept, and how where both channels and weights were cut."""
        if 0 < self.kept < self.tensor < 1:
            return f"{words.percent(self.kept)} (tensor {words.percent(self.tensor)})"
        return words.percent(self.kept)


class Network(NamedTuple):
    """A column of the table."""

    point: str
    heading: str
    cells: Mapping[str, Cell]


class Layers(NamedTuple):
    """Layer -> weights of the dense network, and the chosen networks beside it."""

    dense: Mapping[str, int]
    networks: Sequence[Network]


def layers(study: Study, best: pd.DataFrame, wanted: Collection[str]) -> Layers | None:
    """Of the networks that are ``wanted`` (points) and some of the front; None where the folder has no records of them."""
    chosen = _chosen(study, best, wanted)
    roots = study.dense.set_index(n.SEED)[n.STEP_ID]
    records = step_layers(study.folder, {*chosen[n.STEP_ID], *roots})
    dense = records.get(str(roots.iloc[0]))
    if not dense:
        return None
    columns = []
    for row in chosen.to_dict("records"):
        own, whole = records.get(row[n.STEP_ID]), records.get(str(roots[row[n.SEED]]))
        if own and whole and own.keys() == whole.keys() == dense.keys():
            cells = {name: _cell(*own[name], whole[name][1]) for name in own}
            columns.append(Network(str(row["point"]), _heading(row, study.measure), cells))
    return Layers({name: size for name, (_, size) in dense.items()}, columns) if columns else None


def step_layers(folder: Path, step_ids: Collection[str]) -> dict[str, dict[str, tuple[int, int]]]:
    """Step id -> layer -> (weights kept, weights of the tensor), of the steps whose records lie in the study's folder."""
    found = {}
    steps = folder / n.STEPS_FOLDER
    packed = _packed(steps)
    for step_id in step_ids:
        record = _record(steps, step_id, packed)
        if record is not None and record[LAYERS]:
            found[step_id] = {str(name): (int(kept), int(size)) for name, (kept, size) in record[LAYERS].items()}
    return found


def _chosen(study: Study, best: pd.DataFrame, wanted: Collection[str]) -> pd.DataFrame:
    """Those that are wanted, the best of each family, and of the front some between its ends that haven't collapsed."""
    rows = study.pruned.assign(point=point_ids(study.pruned))
    of_families = best_at_drops(study.pruned, study.dense, drops_of(study)[-1:], measure=study.measure)
    first = [*wanted, *point_ids(of_families)]
    alive = best[excess(best, study.objectives, study.dense, study.accuracy_drop).min(axis=1) > 0] if len(best) else best
    front = point_ids(alive).tolist()
    spread = [front[round(share * (len(front) - 1))] for share in (0.5, 1.0, 0.25, 0.75)] if front else []
    points = list(dict.fromkeys([*first, *spread]))[:MOST_NETWORKS]
    return rows[rows["point"].isin(points)].sort_values(n.COMPRESSION, kind="stable")


def _heading(row: Mapping[Any, Any], measure: Quality) -> str:
    return f"{row[n.FAMILY]}, {words.times(row[n.COMPRESSION])}, {words.quality(measure, row[measure.column])}"


def _packed(steps: Path) -> Mapping[str, bytes]:
    try:
        return unpacked(read(steps / n.PACKED_FILE), steps)
    except FileNotFoundError:
        return {}


def _record(steps: Path, step_id: str, packed: Mapping[str, bytes]) -> dict[str, Any] | None:
    if not is_address(step_id):
        return None
    try:
        text = read(steps / step_id / n.STEP_FILE)
    except FileNotFoundError:
        text = packed.get(step_id, b"")
    try:
        record = parse_json(text)
    except ValueError:  # a damaged record counts as none: its step is computed again when the study goes on
        return None
    return record if isinstance(record, dict) and record.get("id") == step_id and is_record(record) else None


def _cell(kept: int, size: int, whole: int) -> Cell:
    return Cell(_share(kept, whole), _share(size, whole))


def _share(part: int, whole: int) -> float:
    return min(1.0, max(0.0, part / whole)) if whole > 0 else 0.0
