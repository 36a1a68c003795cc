"""Objectives by the names that a study file gives them: this program's, and classes of the user's own."""

from __future__ import annotations

from pydantic import ValidationError

from trainables import own
from trainables.measuring import runtimes
from trainables.records.names import InputError
from trainables.records.objectives import ACCURACY, LATENCY, OBJECTIVES, Description, Objective, Quality
from trainables.settings import nearest, one_line

FIELD = "objectives"


def names(measure: Quality = ACCURACY) -> list[str]:
    """This program's objectives for a task with this measure."""
    return [measure.name, *(name for name, one in OBJECTIVES.items() if not one.quality)]


def objective(name: str, measure: Quality = ACCURACY, *, trusted: bool) -> Objective:
    """The objective of this name; InputError if there is none, or it is the user's own and can't be used or trusted.

    ``measure`` is the task's.
    """
    if name == measure.name:
        return measure
    known = names(measure)
    if name in known:
        return OBJECTIVES[name]
    if name.startswith(f"{LATENCY.name}."):
        return runtimes.chosen(name, FIELD, trusted=trusted)
    if not own.is_own(name):
        raise InputError(f"{FIELD}: {name!r} is no objective; {nearest(name, known)}, or package.module:Class")
    kind = own.load(name, FIELD, "class", trusted=trusted)
    if not (isinstance(kind, type) and issubclass(kind, Objective)):
        raise InputError(f"{FIELD}: {name!r} is no subclass of trainables.records.objectives.Objective; make it one")
    try:
        made = kind()
    except Exception as error:  # what code of the user's own raises can be anything
        raise InputError(f"{FIELD}: {name!r} can't be made without arguments ({one_line(error)}); correct it") from error
    _check(made, name)
    made.name, made.source = name, own.source_hash(name)
    return made


def _check(made: Objective, name: str) -> None:
    try:
        Description.model_validate(made.describe())
    except ValidationError as error:
        wrong = error.errors()[0]
        raise InputError(f"{FIELD}: {name!r}: {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}; correct it") from None
    if made.of_host or made.fills:
        raise InputError(f"{FIELD}: {name!r} fills one column, the same on every host; leave of_host and fills out")
    final = [what for what in ("gain", "origin", "margin") if getattr(type(made), what) is not getattr(Objective, what)]
    if final:
        raise InputError(f"{FIELD}: {name!r} has a {final[0]} of its own; give direction, scale and slack instead")
