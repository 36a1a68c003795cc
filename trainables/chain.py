"""From a schedule to the addresses of its steps, with the settings of the methods that it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain as chained
from typing import TYPE_CHECKING, Any, TypeVar

from trainables.methods import Method, Need, Registry, section
from trainables.node import BETWEEN, CUT, KIND, Node
from trainables.pruning.pruners import PRUNERS
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.schedule import FAMILIES, REMOVED, BaseSchedule, Schedule, StructuredSchedule, UnstructuredSchedule
from trainables.settings import Settings
from trainables.training.loop import DenseSettings
from trainables.training.padding import PADDED, Padding
from trainables.training.retraining import RATES, RETRAININGS, Recalibrate, Retraining, identity, takes_epochs

M = TypeVar("M", bound=Method)

RECIPE = "recipe"
Part = UnstructuredSchedule | StructuredSchedule
Limits = Callable[[str], Mapping[str, Any]]

if TYPE_CHECKING:

    class RetrainSettings(Settings):
        """The fields of the methods that score, choose and retrain, and of padding."""

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
            (Padding,),
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
    recipe: Mapping[str, Any] | None = None
    """The schedule that a given dense network has been trained with, of which steps tell that replay it."""
    pads: DenseSettings | None = None
    """The dense schedule, where networks are padded in retraining."""

    def chain(self, root: Node, schedule: Schedule, limits: Limits | None = None) -> list[Node]:
        """The node of each step of ``schedule``, in order, below ``root``; regularised trainings lie between them.

        ``limits`` say, for a family, what of the network is spared. InputError for channels below a step of weights.
        """
        nodes, node = list[Node](), root
        for part in schedule.parts:
            nodes += self._part(node, part, limits(part.family) if limits else {})
            node = nodes[-1]
        return nodes

    def looks(self, root: Node, schedule: Schedule, limits: Limits | None = None) -> list[Node]:
        """For each step of ``schedule`` the one that cuts as it does, from the same network, and then only recalibrates.

        Schedules that differ in how they retrain have the looks at their first cuts in common.
        """
        usual = {name: None for name in RATES if getattr(schedule, name) is not None}
        twin = schedule.model_copy(update={n.RETRAIN: Recalibrate.name, **usual})
        both = zip(self.chain(root, schedule, limits), self.chain(root, twin, limits), strict=True)
        return [Node(own.parent, other.settings) for own, other in both]

    def _part(self, node: Node, schedule: Part, limits: Mapping[str, Any]) -> list[Node]:
        if isinstance(schedule, StructuredSchedule) and _has_lost_weights(node):
            raise InputError("family: channels can't be cut after weights; cut the channels first (family: mixed)")
        nodes = []
        between, step = self._between(schedule), self._step(schedule) | dict(limits)
        pads = self.pads is not None and self.retraining(schedule).epochs_trained(self.pads) > 0
        for target in schedule.targets():
            if between:
                node = Node(node, between | dict(limits))
            node = Node(node, {**step, REMOVED: target})
            if pads and _has_lost_channels(node):
                node = Node(node.parent, {**node.settings, PADDED: True})
            nodes.append(node)
        return nodes

    def retraining(self, schedule: BaseSchedule) -> Retraining:
        """How the steps of ``schedule`` retrain."""
        chosen = {n.EPOCHS: schedule.fine_tune_epochs} if takes_epochs(schedule.retrain) else {}
        own = {RATES[name]: value for name in RATES if (value := getattr(schedule, name)) is not None}
        return self._method(RETRAININGS, schedule.retrain, self.retrain, chosen | own)

    @property
    def usual_rates(self) -> dict[str, Any]:
        """What fine-tuning has where a schedule doesn't say it, by the names that a schedule has for it."""
        return {name: getattr(self.retrain, field) for name, field in RATES.items()}

    def trained(self, schedule: BaseSchedule, dense: DenseSettings) -> dict[str, Any]:
        """The columns of points.jsonl that say how its steps retrain: epochs, and the rate that has an effect, if any."""
        retraining = self.retraining(schedule)
        epochs = retraining.epochs_trained(dense)
        rates = {name: getattr(retraining, field, None) if epochs else None for name, field in RATES.items()}
        return {n.FINE_TUNE_EPOCHS: epochs, **rates}

    def _between(self, schedule: Part) -> dict[str, Any] | None:
        if not isinstance(schedule, StructuredSchedule) or not PRUNERS[schedule.pruner].regularises:
            return None
        pruner = self._method(PRUNERS, schedule.pruner, self.regularisation)
        if schedule.strength is not None:
            factors = {name: schedule.strength * getattr(pruner, name) for name in pruner.strengths}
            pruner = pruner.model_copy(update=factors)
        return {KIND: BETWEEN, **PRUNERS.identity(pruner), n.EPOCHS: schedule.sparse_epochs}

    def _step(self, schedule: Part) -> dict[str, Any]:
        importances: Registry[Any] = schedule.importances
        scopes: Registry[Any] = schedule.scopes
        importance = self._method(importances, schedule.importance, self.retrain)
        scope = self._method(scopes, schedule.scope, self.retrain)
        rounding = {n.ROUND_TO: schedule.round_to} if isinstance(schedule, StructuredSchedule) else {}
        cut = importances.identity(importance) | scopes.identity(scope) | rounding
        retraining = self.retraining(schedule)
        trained = identity(retraining)
        if self.recipe and Need.DENSE_SCHEDULE in retraining.needs and n.RETRAIN in trained:
            trained[RECIPE] = dict(self.recipe)
        return {KIND: CUT, n.FAMILY: schedule.family, **cut, **trained}

    def _method(
        self, registry: Registry[M], name: str, section: Settings | None = None, fields: Mapping[str, Any] | None = None
    ) -> M:
        """The method of this name with the study's settings for it."""
        shared = section.model_dump() if section else {}
        return registry.make(name, fields or {}, self.own.get(name, shared))


def _has_lost_channels(node: Node | None) -> bool:
    """Whether ``node``, or a step above it, removes channels."""
    while node is not None:
        if node.settings.get(n.FAMILY) == n.STRUCTURED and node.settings[REMOVED]:
            return True
        node = node.parent
    return False


def _has_lost_weights(node: Node | None) -> bool:
    """Whether a step above, or at, ``node`` has removed single weights."""
    while node is not None:
        if node.settings.get(n.FAMILY) == n.UNSTRUCTURED:
            return True
        node = node.parent
    return False
