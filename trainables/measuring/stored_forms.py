"""What the stored forms of one network measure, each by itself: encoded, read back, and judged on every objective."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from trainables import own
from trainables.forms import compact
from trainables.forms.forms import FORMS, Form
from trainables.measuring.context import Stored, judged, lacks
from trainables.networks.network import Network
from trainables.problem import Problem
from trainables.records import names as n
from trainables.records.objectives import Objective, Quality
from trainables.records.points import fault_of, form_of, format_of, stored_format

SOURCE = "source"
"""The key of a form's columns that holds the code of one of the user's own."""


def named(forms: Sequence[str]) -> tuple[str, ...]:
    """The forms that are measured beside a step's own file; none where that is the only one."""
    return tuple(forms) if format_of(forms) == n.COMPACT else ()


def read_back(network: Network, name: str, problem: Problem) -> tuple[bytes, Network]:
    """The file of a network in a form, and what is in it."""
    form: Form = FORMS.load(name, trusted=problem.trusted)()
    content = compact.encode(network, form)
    return content, compact.decode(content, problem.build, problem.skeleton)


def measure(
    names: Sequence[str], stored: Stored, network: Network, problem: Problem, objectives: Sequence[Objective]
) -> dict[str, dict[str, Any]]:
    """The columns of each of these forms of ``network``, which ``stored`` has in its own file."""
    found = dict[str, dict[str, Any]]()
    for name in names:
        content, read = read_back(network, name, problem)
        columns = judged(objectives, replace(stored, model=read.model, content=content, timings=[]), {})
        found[name] = {n.STORED_FORMAT: n.COMPACT, **_source(name), **columns}
    return found


def lacking(record: Mapping[str, Any], names: Sequence[str], objectives: Sequence[Objective]) -> list[str]:
    """The forms of which a record doesn't tell, or not by the present code."""
    found = record.get(n.FORMS)
    told: Mapping[str, Any] = found if isinstance(found, dict) else {}
    return [name for name in names if not _whole(name, told.get(name), objectives)]


def _whole(name: str, columns: Any, objectives: Sequence[Objective]) -> bool:
    if not isinstance(columns, dict) or columns.get(n.STORED_FORMAT) != n.COMPACT:
        return False
    if columns.get(SOURCE) != _source(name).get(SOURCE) or any(lacks(columns, one) for one in objectives):
        return False
    measure = next((one for one in objectives if isinstance(one, Quality)), None)
    return fault_of(columns, (n.STORED_BYTES, n.COMPRESSION), objectives, measure) is None


def _source(name: str) -> dict[str, str]:
    return {SOURCE: own.source_hash(name)} if own.is_own(name) else {}


def points(point: Mapping[str, Any], record: Mapping[str, Any], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The point of a step in each form; what the step cost is told of the first alone."""
    for place, name in enumerate(names):
        columns = {key: value for key, value in record[n.FORMS][name].items() if key in point}
        free = {n.EPOCHS: 0, n.SECONDS: 0.0} if place else {}
        yield {**point, **columns, **free, n.FORM: name}


def columns_of(record: Mapping[str, Any], point: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a record tells of the file that a point is of."""
    if stored_format(point) == n.SAFETENSORS:
        return record
    found = record.get(n.FORMS)
    return {**record, **(found.get(form_of(point), {}) if isinstance(found, dict) else {})}
