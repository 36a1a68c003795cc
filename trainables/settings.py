"""The base of everything a study file can hold, and the one way in which a bad value is put into words."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from trainables.records.names import InputError

S = TypeVar("S", bound="Settings")


class Settings(BaseModel):
    """A frozen, hashable section of a study; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


def nearest(word: str, known: Collection[str]) -> str:
    """A remedy for a name that is not known: the closest one if there is one, and all of them."""
    close = difflib.get_close_matches(word, list(known), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}valid: {', '.join(sorted(known))}"


def one_of(table: Callable[[], Collection[str]] | Collection[str]) -> Callable[[str], str]:
    """A validator for a name that must stand in a table; it says which names do."""

    def check(value: str) -> str:
        known = table() if callable(table) else table
        if value not in known:
            raise ValueError(nearest(value, known))
        return value

    return check


TRUSTED = "trusted"
"""The key of a validation's context that says whether methods of the user's own may be imported."""


def parse(kind: type[S], raw: Mapping[str, Any], where: str, *, trusted: bool = False) -> S:
    """``raw`` as ``kind``, or an InputError of one line for the first thing wrong with it.

    ``trusted`` lets methods of the user's own be imported.
    """
    try:
        return kind.model_validate(raw, context={TRUSTED: trusted})
    except ValidationError as error:
        raise refusal(kind, error, where) from None


def refusal(kind: type[BaseModel], error: ValidationError, where: str) -> InputError:
    """The first thing wrong with a ``kind``, as an error of one line."""
    # A misspelt key is the likelier cause than what it leaves missing, so it is told first.
    details = sorted(error.errors(), key=lambda d: d["type"] not in ("extra_forbidden", "invalid_key"))
    return InputError(f"{where}: {_sentence(kind, details[0])}")


def _sentence(kind: type[BaseModel], detail: ErrorDetails) -> str:
    path = [str(part) for part in detail["loc"] if not str(part).startswith(("function-", "tagged-union"))]
    field = ".".join(path) or "the file"
    if detail["type"] == "extra_forbidden":
        return f"unknown key {field!r}; {nearest(path[-1], _fields_at(kind, detail['loc'][:-1]))}"
    if detail["type"] == "missing":
        return f"{field}: missing; give it a value"
    if isinstance(refusal := detail.get("ctx", {}).get("error"), InputError):  # it tells the value and the remedy itself
        named, _, told = str(refusal).partition(": ")
        return f"{field}: {told}" if field.startswith(named) else str(refusal)
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message[:1].lower() + message[1:]
    if detail["type"] in ("tuple_type", "list_type"):
        message = "give a list, with its values in brackets"
    shown = repr(detail["input"])
    return f"{field}: {shown if len(shown) < 80 else shown[:77] + '...'} cannot be used: {message}"


def _fields_at(kind: type[BaseModel], path: tuple[int | str, ...]) -> Collection[str]:
    """The keys that are valid at ``path``, as far as the path leads through plain sections."""
    current: Any = kind
    for part in path:
        fields = getattr(current, "model_fields", {})
        if part in fields:
            current = _model_in(fields[part].annotation)
    return list(getattr(current, "model_fields", {}))


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _model_in(argument)) is not None:
            return found
    return None


def one_line(error: BaseException) -> str:
    """What an error of some library says, short enough for a message of one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
