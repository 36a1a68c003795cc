"""From a schedule to the addresses of its steps, with the settings of the methods that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain as chained
from typing import TYPE_CHECKING, Any, TypeVar

from trainables.methods import Method, Registry, section
from trainables.node import BETWEEN, CUT, KIND, Node
from trainables.pruning.pruners import PRUNERS
from trainables.records import names as n
from trainables.schedule import FAMILIES, REMOVED, BaseSchedule, Schedule, StructuredSchedule
from trainables.settings import Settings
from trainables.training.retraining import RETRAININGS, Retraining, identity, takes_epochs

M = TypeVar("M", bound=Method)

if TYPE_CHECKING:

    class RetrainSettings(Settings):
        """The fields of the methods that score, choose and retrain."""

    class RegularisationSettings(Settings):
        """The fields of the pruners."""

else:
    RetrainSettings = section(
        "RetrainSettings",
        __name__,
        "How steps score, choose and retrain; rewinding has the dense schedule's learning rates.",
        chained(
            RETRAININGS.values(),
            *(family.importances.values() for family in FAMILIES.values()),
            *(family.scopes.values() for family in FAMILIES.values()),
        ),
        leave_out={n.EPOCHS},
    )
    RegularisationSettings = section(
        "RegularisationSettings", __name__, "The regularised training before a cut.", PRUNERS.values()
    )


@dataclass(frozen=True)
class MethodSettings:
    """The settings of a study's methods: of this program's own, and, by name, of the user's ``own``."""

    retrain: Settings = field(default_factory=RetrainSettings)
    regularisation: Settings = field(default_factory=RegularisationSettings)
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def chain(self, root: Node, schedule: Schedule, limits: Mapping[str, Any] | None = None) -> list[Node]:
        """The node of each step of ``schedule``, in order, below ``root``; regularised trainings lie between them.

        ``limits`` say what of the network is spared.
        """
        nodes, node = [], root
        between, step = self._between(schedule), self._step(schedule) | dict(limits or {})
        for target in schedule.targets():
            if between:
                node = Node(node, between | dict(limits or {}))
            node = Node(node, {**step, REMOVED: target})
            nodes.append(node)
        return nodes

    def retraining(self, schedule: BaseSchedule) -> Retraining:
        """How the steps of ``schedule`` retrain."""
        epochs = {n.EPOCHS: schedule.fine_tune_epochs} if takes_epochs(schedule.retrain) else {}
        return self._method(RETRAININGS, schedule.retrain, self.retrain, epochs)

    def _between(self, schedule: Schedule) -> dict[str, Any] | None:
        if not isinstance(schedule, StructuredSchedule) or not PRUNERS[schedule.pruner].regularises:
            return None
        pruner = self._method(PRUNERS, schedule.pruner, self.regularisation)
        return {KIND: BETWEEN, **PRUNERS.identity(pruner), n.EPOCHS: schedule.sparse_epochs}

    def _step(self, schedule: Schedule) -> dict[str, Any]:
        importances: Registry[Any] = schedule.importances
        scopes: Registry[Any] = schedule.scopes
        importance = self._method(importances, schedule.importance, self.retrain)
        scope = self._method(scopes, schedule.scope, self.retrain)
        rounding = {n.ROUND_TO: schedule.round_to} if isinstance(schedule, StructuredSchedule) else {}
        cut = importances.identity(importance) | scopes.identity(scope) | rounding
        return {KIND: CUT, n.FAMILY: schedule.family, **cut, **identity(self.retraining(schedule))}

    def _method(
        self, registry: Registry[M], name: str, section: Settings | None = None, fields: Mapping[str, Any] | None = None
    ) -> M:
        """The method of this name with the study's settings for it."""
        shared = section.model_dump() if section else {}
        return registry.make(name, fields or {}, self.own.get(name, shared))
