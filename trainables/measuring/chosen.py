"""Objectives by the names that a study file gives them: this program's, and classes of the user's own."""

from __future__ import annotations

from pydantic import ValidationError

from trainables import own
from trainables.records.names import InputError
from trainables.records.objectives import OBJECTIVES, Description, Objective
from trainables.settings import nearest, one_line

FIELD = "objectives"


def objective(name: str, *, trusted: bool) -> Objective:
    """The objective of this name; InputError if there is none, or it is the user's own and can't be used or trusted."""
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    if not own.is_own(name):
        raise InputError(f"{FIELD}: {name!r} is no objective; {nearest(name, OBJECTIVES)}, or package.module:Class")
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
