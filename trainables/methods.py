"""What can be chosen in a study file is a class of its kind, which says everything of itself.

A method's fields are its settings. An instance's fields, and its name, are its identity: what has an effect on a step is a
field, and nothing else is. A registry holds the classes of one kind by name, in the order in which help shows them; a
user's own class is named ``package.module:Class``, and its source is part of its identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import ValidationInfo, create_model

from trainables import own
from trainables.records.names import InputError
from trainables.settings import Settings, nearest, parse

M = TypeVar("M", bound="Method")


class Need(Enum):
    """What a method can't work without; the words finish the sentence "it needs …"."""

    DENSE_SCHEDULE = "the dense training's schedule"
    EARLY_WEIGHTS = "the dense training's early weights"
    ALL_CHANNELS = "all channels of the dense network"
    DENSE_NETWORK = "the dense network's answers"
    CLASSES = "logits of classes"
    BATCH_NORM = "BatchNorm layers"


class Method(Settings):
    """A choice of one kind. Its docstring is its line in help; subclasses set what applies to them."""

    name: ClassVar[str]
    """What a study file, points and reports call it; of a user's own class, ``package.module:Class``."""
    label: ClassVar[str] = ""
    """Its words in a report, if its name isn't enough."""
    source: ClassVar[str] = ""
    """The publication that it comes from."""
    needs: ClassVar[frozenset[Need]] = frozenset()
    control: ClassVar[bool] = False
    """Whether it is there to be beaten."""

    @classmethod
    def described(cls) -> dict[str, Any]:
        """What a report says of it, as JSON."""
        return {"label": cls.label or cls.name, "about": cls.line(), "publication": cls.source, "control": cls.control}

    @classmethod
    def line(cls) -> str:
        """The first sentence of its docstring."""
        return " ".join((cls.__doc__ or "").partition("\n\n")[0].split())


class Registry(Mapping[str, type[M]], Generic[M]):
    """The methods of one kind by name; ``field`` is what a study file and a step's settings call the kind.

    Iterating gives this program's own. A user's class is there by its name once it has been loaded.
    """

    def __init__(self, field: str, base: type[Any], classes: Iterable[type[M]]) -> None:
        self.field, self.base = field, base
        self._classes = {one.name: one for one in classes}
        self._own: dict[str, type[M]] = {}

    def __getitem__(self, name: str) -> type[M]:
        return self._classes[name] if name in self._classes else self._own[name]

    def __contains__(self, name: object) -> bool:
        return name in self._classes or name in self._own

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def load(self, name: str, *, trusted: bool) -> type[M]:
        """The class of this name; InputError if there is none, or it is a user's own and not ``trusted``."""
        if name in self._classes or name in self._own:
            return self[name]
        if not own.is_own(name):
            raise InputError(f"{self.field}: {name!r} is not known; {nearest(name, self._classes)}, package.module:Class")
        found = own.load(name, self.field, "class", trusted=trusted)
        if not (isinstance(found, type) and issubclass(found, self.base)):
            raise InputError(f"{self.field}: {name!r} is no {self.base.__name__}; derive it from {_path(self.base)}")
        kind: type[M] = found
        kind.name = name
        self._own[name] = kind
        return kind

    def known(self, name: str, info: ValidationInfo) -> str:
        """A validator for a field that names a method; ``trusted`` in the validation's context lets it import a user's."""
        try:
            self.load(name, trusted=bool((info.context or {}).get("trusted")))
        except InputError as error:
            raise ValueError(str(error).removeprefix(f"{self.field}: ")) from None
        return name

    def make(self, name: str, *sections: Mapping[str, Any]) -> M:
        """The method of this name with its settings, each taken from the first of the sections that has it."""
        kind = self[name]
        values = {key: next((s[key] for s in sections if key in s), None) for key in kind.model_fields}
        return parse(kind, {key: value for key, value in values.items() if value is not None}, f"{self.field} {name}")

    def settings(self) -> set[str]:
        """The names of all settings of this program's own."""
        return {key for kind in self._classes.values() for key in kind.model_fields}

    def check(self, name: str, settings: Mapping[str, Any]) -> None:
        """InputError if these can't be the settings of the user's own method of this name."""
        parse(self[name], settings, f"methods.{name}")

    def has_own(self, name: str) -> bool:
        """Whether the user's own method of this name has been loaded."""
        return name in self._own

    def identity(self, method: Method) -> dict[str, Any]:
        """What of a step's settings stands for ``method``; ``of`` reads it back. What is off in ours is left out."""
        ours = method.name in self._classes
        fields = method.model_dump(mode="json", exclude_none=ours)
        if ours:
            return {self.field: method.name, **fields}
        settings = {f"{self.field}_settings": fields} if fields else {}
        return {self.field: method.name, f"{self.field}_source": own.source_hash(method.name), **settings}

    def of(self, settings: Mapping[str, Any], *, trusted: bool = False) -> M:
        """The method that a step's settings name."""
        name = settings[self.field]
        self.load(name, trusted=trusted)
        return self.make(name, settings.get(f"{self.field}_settings", {}), settings)

    def help(self) -> str:
        """The names, as a description of a field lists them."""
        return " | ".join(self._classes)


def check_own(methods: Mapping[str, Mapping[str, Any]], registries: Iterable[Registry[Any]]) -> None:
    """InputError if settings are given for a method that is named nowhere, or that it can't have."""
    known = list(registries)
    for name, settings in methods.items():
        kinds = [registry for registry in known if registry.has_own(name)]
        if not kinds:
            raise InputError(
                f"methods: {name!r} is named nowhere in the study; name it where it is to be used, or leave it out"
            )
        for registry in kinds:
            registry.check(name, settings)


def _path(kind: type[Any]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def section(name: str, module: str, doc: str, classes: Iterable[type[Settings]], leave_out: Iterable[str] = ()) -> Any:
    """A section of a study file with the settings of all these methods, each once."""
    left_out = set(leave_out)
    fields = {
        key: (field.annotation, field)
        for kind in classes
        for key, field in kind.model_fields.items()
        if key not in left_out
    }
    made: Any = create_model(name, __base__=Settings, __module__=module, __doc__=doc, **fields)  # type: ignore[call-overload]
    return made
