"""``methods.json``: the methods of a study, for those who can't import their classes: kind -> name -> description."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainables.records import names as n
from trainables.records.objectives import OBJECTIVES, Described, Description, Objective, latency_on
from trainables.records.untrusted import parse_json, read

OBJECTIVE_KIND = "objectives"
SOURCE = "source"
"""The key of a description that holds the hash of its code; null for a method of this program."""

Methods = Mapping[str, Mapping[str, Mapping[str, Any]]]


def to_text(methods: Methods) -> str:
    """The file's content."""
    return json.dumps(methods, indent=1, allow_nan=False) + "\n"


def read_methods(path: Path) -> Methods:
    """What a study's folder says of its methods; nothing where there is no file, as in old folders."""
    try:
        found = parse_json(read(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise n.InputError(f"{path}: can't be read ({error}); run the study again, which writes it anew") from None
    if not _mapping(found) or not all(_mapping(kind) and all(map(_mapping, kind.values())) for kind in found.values()):
        raise n.InputError(f"{path}: is no mapping of kinds to names to descriptions; run the study again")
    return dict(found)


def labels_of(kind: str, methods: Methods) -> dict[str, str]:
    """What reports call the methods of a kind, by name."""
    told = ((name, described.get("label")) for name, described in methods.get(kind, {}).items())
    return {name: n.printable(label) for name, label in told if isinstance(label, str)}


def _mapping(value: Any) -> bool:
    return isinstance(value, dict)


def objective_of(name: str, methods: Methods, where: Path) -> Objective | None:
    """The objective of this name: ours, or as the study's folder describes it; None if neither knows it."""
    described = methods.get(OBJECTIVE_KIND, {}).get(name)
    if (ours := OBJECTIVES.get(name) or latency_on(name)) or described is None:
        return ours
    try:
        return Described(n.printable(name), Description.model_validate(described))
    except ValidationError as error:
        wrong = error.errors()[0]
        field = ".".join(map(str, wrong["loc"]))
        raise n.InputError(f"{where}: {OBJECTIVE_KIND}.{name}.{field}: {wrong['msg']}; run the study again") from None
