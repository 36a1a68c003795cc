"""What happens at a node of the tree, from network to network: a class for each kind of node."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import nn

from trainables.methods import Need
from trainables.networks.alone import channels_alone, weights_alone
from trainables.networks.anatomy import replay
from trainables.networks.limits import copy_frozen
from trainables.networks.network import Masks, Network
from trainables.networks.oracle import WrongCutError, compare, survivors
from trainables.networks.reproducible import reproducible
from trainables.networks.running import channels_last, copied, evaluating
from trainables.node import BETWEEN, CUT, KIND, ONLY, ROOT, Node
from trainables.problem import Problem
from trainables.pruning import channels, masks
from trainables.pruning.channel_importances import CHANNEL_IMPORTANCES
from trainables.pruning.channel_scopes import CHANNEL_SCOPES
from trainables.pruning.pruners import PRUNERS, Regulariser
from trainables.pruning.sample import Sample
from trainables.pruning.weight_importances import WEIGHT_IMPORTANCES
from trainables.pruning.weight_scopes import WEIGHT_SCOPES
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.schedule import REMOVED
from trainables.tasks.base import Task
from trainables.training import recalibrating
from trainables.training.loop import LearningRate, Recipe, evaluate, fit, threads
from trainables.training.padding import PADDED, Padded, pad
from trainables.training.recalibrating import recalibrate
from trainables.training.resuming import Resumable
from trainables.training.retraining import Plan, retraining_of

AfterEpoch = Callable[[int], object]
"""Is called after each epoch of a node's training, with the number that it has trained so far."""


MOST_CHECKED = 30_000_000
"""Parameters of a network whose every cut is compared with the network before it, which takes 40 bytes each. Of larger ones
the gate's cuts alone are."""
KEEP = "keep the layers whole that decide by their widths (model.keep)"


class NothingRemovedError(RuntimeError):
    """A step that should prune removed nothing."""


@dataclass(frozen=True)
class Bench:
    """What a node is made with: the problem, and of the tree what a node may need of it."""

    problem: Problem
    node: Node
    after_epoch: AfterEpoch | None = None
    resumable: Resumable | None = None
    early: Network | None = None
    """The dense network at its early epoch, for those that go back to it."""
    dense: Network | None = None
    """The dense network, for those that learn from it."""


class Made(NamedTuple):
    """What making a node gave."""

    network: Network
    early: Network | None = None
    """Early weights of a dense network that was trained here."""
    before: float | None = None
    """The task's measure between a cut and its retraining."""
    recalibrated: float | None = None
    """The same with BatchNorm's statistics estimated anew."""


class Step(ABC):
    """A kind of node."""

    kind: ClassVar[str]
    settings: ClassVar[tuple[str, ...]]
    """What the settings of such a node must have."""
    cuts: ClassVar[bool] = False
    """Whether it must have removed something."""

    @abstractmethod
    def make(self, parent: Network | None, bench: Bench) -> Made:
        """The node's network, from its parent's."""

    def needs(self, node: Node, problem: Problem) -> frozenset[Need]:  # noqa: ARG002 - for those that do
        """What it needs beside its parent's network."""
        return frozenset()

    @abstractmethod
    def epochs(self, node: Node, problem: Problem) -> int:
        """The epochs that it trains, itself alone."""


class Dense(Step):
    """The network before any pruning: trained here, or given as a checkpoint."""

    kind, settings = ROOT, (n.SEED,)

    def make(self, parent: Network | None, bench: Bench) -> Made:  # noqa: ARG002
        """The dense network, and its early weights for rewinding (none for one that was given, which brings none)."""
        problem, node = bench.problem, bench.node
        with threads(problem.dense.threads), reproducible(node.seed):
            model = problem.build()
            loaded = problem.load_weights(model)
            masks.masking(model, loaded.masks)(model)
            if problem.given:
                return Made(Network(model, loaded.masks))
            early = problem.build()

            def remember(epoch: int, trained: nn.Module) -> None:
                if epoch == problem.dense.rewind_epoch:
                    early.load_state_dict(trained.state_dict())

            def after(epoch: int, trained: nn.Module) -> None:
                remember(epoch, trained)
                if bench.after_epoch is not None:
                    bench.after_epoch(epoch)

            remember(0, model)
            if bench.resumable is not None:
                bench.resumable.beside["early"] = early
            fit(model, problem.data, problem.dense_recipe, node.seed, after_epoch=after, resumable=bench.resumable)
        return Made(Network(model), Network(early))

    def epochs(self, node: Node, problem: Problem) -> int:  # noqa: ARG002
        """The dense epochs; a network that was given has been trained."""
        return 0 if problem.given else problem.dense.epochs


class Regularise(Step):
    """A training with a structured pruner's penalty, so that the channels to be cut grow small first."""

    kind, settings = BETWEEN, (n.PRUNER, n.EPOCHS)

    def make(self, parent: Network | None, bench: Bench) -> Made:
        """The network with small channels."""
        assert parent is not None
        problem, node = bench.problem, bench.node
        pruner = _regulariser(node, problem)
        epochs = int(node.settings[n.EPOCHS])
        constant = LearningRate((0.0, float(epochs)), (pruner.learning_rate, pruner.learning_rate))
        recipe = problem.recipe(Plan(constant, 0, epochs))
        penalty = pruner.penalty(parent.model, problem.anatomy)
        after = counted(recipe, bench.after_epoch)
        fit(
            parent.model,
            problem.data,
            recipe,
            node.seed,
            before_update=penalty,
            after_update=masks.masking(parent.model, parent.masks),
            after_epoch=after,
            resumable=bench.resumable,
        )
        return Made(parent)

    def epochs(self, node: Node, problem: Problem) -> int:  # noqa: ARG002
        """Its epochs."""
        return int(node.settings[n.EPOCHS])


class Prune(Step):
    """A cut, and the retraining of what it leaves."""

    kind, settings, cuts = CUT, (n.FAMILY, n.IMPORTANCE, n.SCOPE, REMOVED), True

    def make(self, parent: Network | None, bench: Bench) -> Made:
        """The pruned network."""
        assert parent is not None
        problem = bench.problem
        with reproducible(bench.node.seed):
            network = cut(parent, bench.node, problem)
        before = evaluate(network.model, problem.data, problem.device)
        recalibrated = recalibrating.look(network.model, problem.data, before, bench.node.seed, problem.device)
        return Made(retrain(network, bench), None, before, recalibrated)

    def needs(self, node: Node, problem: Problem) -> frozenset[Need]:
        """What its retraining needs."""
        return retraining_of(node.settings, trusted=problem.trusted).needs

    def epochs(self, node: Node, problem: Problem) -> int:
        """The epochs of its retraining."""
        return retraining_of(node.settings, trusted=problem.trusted).epochs_trained(problem.taught)


def look(parent: Network, node: Node, problem: Problem) -> float | None:
    """What a step measures that cuts and only recalibrates, before it is stored; None where that has no value."""
    bench = Bench(problem, node)
    try:
        with reproducible(node.seed):
            network = cut(parent, node, problem)
        network = retraining_of(node.settings, trusted=problem.trusted).begin(network, Starts(bench, network))
        return evaluate(network.model, problem.data, problem.device)
    except (NothingRemovedError, WrongCutError, InputError):  # as a step would find; a look only leaves its question open
        return None


KINDS: Mapping[str, Step] = {step.kind: step for step in (Dense(), Regularise(), Prune())}


def can_be(settings: Mapping[str, Any]) -> bool:
    """Whether these can be a node's settings: of a kind that there is, with all that it needs."""
    step = KINDS.get(str(settings.get(KIND)))
    return step is not None and settings.keys() >= set(step.settings)


def step_of(node: Node) -> Step:
    """What happens at a node."""
    return KINDS[node.settings[KIND]]


def cut(network: Network, node: Node, problem: Problem) -> Network:
    """Remove what the node's settings say, down to its target sparsity; a target of 0 leaves the network as it is."""
    if not node.settings[REMOVED]:
        return network
    return CUTS[node.settings[n.FAMILY]](network, node, problem)


def _cut_weights(network: Network, node: Node, problem: Problem) -> Network:
    settings, trusted = node.settings, problem.trusted
    importance = WEIGHT_IMPORTANCES.of(settings, trusted=trusted)
    scope = WEIGHT_SCOPES.of(settings, trusted=trusted)
    sample, spared = Sample(problem.data, node.seed), problem.spared_in(network.model)
    if ONLY in settings:
        spared = weights_alone(network.model, spared, settings[ONLY])
    found = masks.cut(network, importance, scope, settings[REMOVED], sample, spared)
    network.model.zero_grad()
    masks.masking(network.model, found)(network.model)
    return Network(network.model, found, network.removed)


def _cut_channels(network: Network, node: Node, problem: Problem) -> Network:
    settings, trusted, model = node.settings, problem.trusted, network.model
    importance = CHANNEL_IMPORTANCES.of(settings, trusted=trusted)
    scope = CHANNEL_SCOPES.of(settings, trusted=trusted)
    sample, round_to = Sample(problem.data, node.seed), settings[n.ROUND_TO]
    checked = sum(parameter.numel() for parameter in model.parameters()) <= MOST_CHECKED
    before = copied(model).cpu() if checked or network.masks else model
    anatomy = channels_alone(model, problem.anatomy, settings[ONLY]) if ONLY in settings else problem.anatomy
    removed = channels.cut(model, anatomy, importance, scope, settings[REMOVED], round_to, sample)
    if not removed:
        raise NothingRemovedError(
            f"no channel could be removed at {settings[REMOVED] / 1e4:g} % ({settings[n.SCOPE]}, round_to "
            f"{round_to}); ask for more, or for a smaller round_to"
        )
    if checked:
        try:
            compare(before, removed, anatomy)
        except WrongCutError as wrong:
            raise WrongCutError(
                f"a cut of {settings[REMOVED] / 1e4:g} % of the channels is wrong: {wrong}; {KEEP}"
            ) from wrong
    model.zero_grad()
    cut_masks: Masks = {}
    if network.masks:  # of a checkpoint that was pruned already
        left = survivors(before, removed, problem.anatomy)
        cut_masks = {name: mask.flatten()[left[name]] for name, mask in network.masks.items()}
    return Network(model, cut_masks, [*network.removed, *removed])


CUTS: Mapping[str, Callable[[Network, Node, Problem], Network]] = {
    n.UNSTRUCTURED: _cut_weights,
    n.STRUCTURED: _cut_channels,
}


def retrain(network: Network, bench: Bench) -> Network:
    """Train what is left, as the node's settings say."""
    problem, node = bench.problem, bench.node
    retraining = retraining_of(node.settings, trusted=problem.trusted)
    starts = Starts(bench, network)
    network = retraining.begin(network, starts)
    hold = masks.masking(network.model, network.masks)
    hold(network.model)
    recipe = problem.recipe(retraining.plan(problem.taught), retraining.batch_size)
    after = counted(recipe, bench.after_epoch)
    padded = _padded(network, bench, recipe) if PADDED in node.settings else None
    fit(
        padded.model if padded else network.model,
        problem.data,
        recipe,
        node.seed,
        after_update=padded.hold if padded else hold,
        after_epoch=after,
        resumable=bench.resumable,
        loss=retraining.loss(starts) if recipe.epochs else None,
    )
    if padded:
        padded.copy_to(network.model)
    return network


def _padded(network: Network, bench: Bench, recipe: Recipe) -> Padded | None:
    problem = bench.problem
    with reproducible(bench.node.seed):  # what is drawn here is not drawn of the training's
        padded = pad(network, problem.build, problem.skeleton)
    if padded and recipe.clip_norm is not None:
        padded.hold_gradients()
    return padded


@dataclass(frozen=True)
class Starts:
    """What the retraining of a pruned ``network`` can begin with or learn from (``retraining.Beginnings``)."""

    bench: Bench
    network: Network

    def early(self) -> Network:
        """The dense network at its early epoch."""
        assert self.bench.early is not None, "a retraining that goes back to early weights says that it needs them"
        return self.bench.early

    def afresh(self) -> nn.Module:
        """New random weights in the pruned shape, drawn by the node's seed; what is frozen stays."""
        problem = self.bench.problem
        with reproducible(self.bench.node.seed):
            model = problem.build()
        replay(model, self.network.removed, problem.skeleton)
        copy_frozen(model, self.network.model)
        return model

    def recalibrated(self, images: int) -> Network:
        """The network with statistics of images drawn by the node's seed."""
        problem, network = self.bench.problem, self.network
        recalibrate(network.model, problem.data, images, self.bench.node.seed, problem.device)
        return network

    @property
    def task(self) -> Task:
        """The data's."""
        return self.bench.problem.data.task

    def dense(self) -> nn.Module:
        """The dense network on the device."""
        assert self.bench.dense is not None, "a retraining that learns from the dense network says that it needs it"
        return evaluating(channels_last(self.bench.dense.model.to(self.bench.problem.device))).requires_grad_(False)


def counted(recipe: Recipe, after_epoch: AfterEpoch | None) -> Callable[[int, nn.Module], None] | None:
    """``after_epoch`` for a training that may be the end of a longer schedule."""
    if (told := after_epoch) is None:
        return None

    def count(epoch: int, _model: nn.Module) -> None:
        told(epoch - recipe.start)

    return count


def _regulariser(node: Node, problem: Problem) -> Any:
    pruner = PRUNERS.of(node.settings, trusted=problem.trusted)
    assert isinstance(pruner, Regulariser)
    return pruner
