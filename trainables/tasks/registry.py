"""All tasks that a study can name, and the ``task`` section of a study file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from trainables import own
from trainables.methods import Registry, section
from trainables.records.names import InputError
from trainables.settings import Settings
from trainables.tasks.base import Task
from trainables.tasks.labels import Classification, Multilabel, Regression
from trainables.tasks.segmentation import Segmentation


class Tasks(Registry[Task]):
    """Tasks by name. What a user's own calls its ``name`` is the name of its measure."""

    def load(self, name: str, *, trusted: bool) -> type[Task]:
        """The class of this name; InputError if there is none, or it can't be used or isn't ``trusted``."""
        if name in self:
            return self[name]
        if own.is_own(name):
            found = own.load(name, self.field, "class", trusted=trusted)
            measured = vars(found).get("name", getattr(found, "measured", "")) if isinstance(found, type) else ""
            kind = super().load(name, trusted=trusted)
            kind.measured = measured
            if missing := sorted(kind.__abstractmethods__):
                raise InputError(f"{self.field}: {name!r} has no {missing[0]}; write it")
            if not measured:
                raise InputError(f"{self.field}: {name!r} has no name; give what its measure is called, name = '...'")
            return kind
        return super().load(name, trusted=trusted)


TASKS = Tasks("task", Task, (Classification, Multilabel, Regression, Segmentation))
USUAL = Classification.name

if TYPE_CHECKING:

    class _OfTasks(Settings):
        """The fields of the tasks."""

else:
    _OfTasks = section("_OfTasks", __name__, "The fields of the tasks.", TASKS.values())


class _Name(Settings):
    name: Annotated[str, AfterValidator(TASKS.known)] = Field(
        USUAL, description=f"{TASKS.help()} | package.module:Task (--allow-code)"
    )


class TaskSettings(_OfTasks, _Name):
    """What networks are trained for, and measured by."""


def task_of(settings: TaskSettings, methods: Mapping[str, Mapping[str, Any]]) -> Task:
    """The task that a study names, with its settings; one of the user's own has them in ``methods``."""
    if TASKS.has_own(settings.name):
        TASKS.check(settings.name, methods.get(settings.name, {}))
        return TASKS.make(settings.name, methods.get(settings.name, {}))
    return TASKS.make(settings.name, settings.model_dump(exclude={"name"}))


def spec(task: Task) -> str:
    """The task as text, which any process makes it of again."""
    return json.dumps({"name": task.name, "settings": task.model_dump(mode="json")}, sort_keys=True)


@lru_cache(maxsize=64)
def of_spec(text: str) -> Task:
    """The task of a text; a study that names code which may not be run has been refused."""
    told = json.loads(text)
    TASKS.load(told["name"], trusted=True)
    return TASKS.make(told["name"], told["settings"])


def is_own_task(task: Task) -> bool:
    """Whether it is one of the user's own."""
    return TASKS.has_own(task.name)


def identity(task: Task) -> dict[str, Any]:
    """What stands for it in the address of a dense network: nothing for the usual one."""
    changed = task.model_dump(mode="json", exclude_defaults=True)
    if is_own_task(task):
        return {"name": task.name, "source": own.source_hash(task.name), **({"settings": changed} if changed else {})}
    return {"name": task.name, **changed} if changed or task.name != USUAL else {}
