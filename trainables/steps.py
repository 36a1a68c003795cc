"""What happens at a node of the tree, as functions from network to network: train, regularise, cut, retrain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from trainables.networks.anatomy import replay
from trainables.networks.checkpoint import load_checkpoint
from trainables.networks.network import Network
from trainables.problem import Problem
from trainables.pruning import channels as structured
from trainables.pruning import masks as unstructured
from trainables.pruning import scores
from trainables.records import names as n
from trainables.schedule import Node
from trainables.training.loop import Recipe, fit, threads
from trainables.training.reproducible import reproducible
from trainables.training.resuming import Resumable

AfterEpoch = Callable[[int], object]
"""Is called after each epoch of a node's training, with the number that it has trained so far."""


class NothingRemovedError(RuntimeError):
    """A step that should prune removed nothing."""


def train_dense(
    problem: Problem, node: Node, after_epoch: AfterEpoch | None = None, resumable: Resumable | None = None
) -> tuple[Network, Network | None]:
    """The dense network, and its early weights for rewinding (None for a checkpoint, which brings none)."""
    with threads(problem.dense.threads), reproducible(node.seed):
        model = problem.build()
        if problem.model.checkpoint is not None:
            load_checkpoint(model, problem.model.checkpoint)
            return Network(model), None
        early = problem.build()

        def remember(epoch: int, trained: nn.Module) -> None:
            if epoch == problem.dense.rewind_epoch:
                early.load_state_dict(trained.state_dict())

        def after(epoch: int, trained: nn.Module) -> None:
            remember(epoch, trained)
            if after_epoch is not None:
                after_epoch(epoch)

        remember(0, model)
        if resumable is not None:
            resumable.beside["early"] = early
        recipe = problem.recipe(dict(node.settings))
        fit(model, problem.data, recipe, node.seed, after_epoch=after, resumable=resumable)
    return Network(model), Network(early)


def train_sparse(
    network: Network,
    node: Node,
    problem: Problem,
    after_epoch: AfterEpoch | None = None,
    resumable: Resumable | None = None,
) -> Network:
    """Train with a structured pruner's regulariser, so that the channels to be cut grow small first."""
    settings: dict[str, Any] = dict(node.settings)
    penalty = structured.regulariser(network.model, problem.anatomy, settings[n.PRUNER], settings)
    recipe = problem.recipe(settings)
    counted = _counted(recipe, after_epoch)
    fit(network.model, problem.data, recipe, node.seed, before_update=penalty, after_epoch=counted, resumable=resumable)
    return network


def cut(network: Network, node: Node, problem: Problem) -> Network:
    """Remove what the node's settings say, down to its target sparsity."""
    settings = node.settings
    if settings["family"] == n.STRUCTURED:
        return _cut_channels(network, node, problem)
    if settings[n.IMPORTANCE] in unstructured.NEEDS_GRADIENTS:
        scores.gradients(network.model, *_score_data(node, problem))
    masks = unstructured.cut(
        network.model, network.masks, settings[n.IMPORTANCE], settings[n.SCOPE], settings["removed_ppm"], node.seed
    )
    unstructured.masking(network.model, masks)(network.model)
    return Network(network.model, masks)


def _cut_channels(network: Network, node: Node, problem: Problem) -> Network:
    settings, model = node.settings, network.model
    images, labels = _score_data(node, problem) if settings[n.IMPORTANCE] in structured.NEEDS_DATA else (None, None)
    importance = scores.structured_importance(settings[n.IMPORTANCE], model, images, labels)
    removed = structured.cut(
        model, problem.anatomy, importance, settings[n.SCOPE], settings["removed_ppm"], settings[n.ROUND_TO], node.seed
    )
    if not removed:
        raise NothingRemovedError(
            f"no channel could be removed at {settings['removed_ppm'] / 1e4:g} % ({settings[n.SCOPE]}, round_to "
            f"{settings[n.ROUND_TO]}); ask for more, or for a smaller round_to"
        )
    model.zero_grad()
    return Network(model, {}, [*network.removed, *removed])


def _score_data(node: Node, problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    # Scores are computed on the CPU wherever training runs: torch-pruning mixes devices badly, and the set is small.
    return scores.draw(problem.data, node.settings["score_images"], node.seed, "cpu")


def retrain(
    network: Network,
    node: Node,
    problem: Problem,
    early: Network | None,
    after_epoch: AfterEpoch | None = None,
    resumable: Resumable | None = None,
) -> Network:
    """Train what is left: fine-tune it, rewind its learning rate, rewind its weights to ``early``, or start afresh."""
    if early is not None:
        network.model.load_state_dict(early.model.state_dict())
    if node.settings.get(n.RETRAIN) == "scratch":
        network = _afresh(network, node, problem)
    hold = unstructured.masking(network.model, network.masks)
    hold(network.model)
    recipe = problem.recipe(dict(node.settings))
    counted = _counted(recipe, after_epoch)
    fit(network.model, problem.data, recipe, node.seed, after_update=hold, after_epoch=counted, resumable=resumable)
    return network


def _counted(recipe: Recipe, after_epoch: AfterEpoch | None) -> Callable[[int, nn.Module], None] | None:
    """``after_epoch`` for a training that may be the end of a longer schedule."""
    if (told := after_epoch) is None:
        return None

    def counted(epoch: int, _model: nn.Module) -> None:
        told(epoch - recipe.start)

    return counted


def _afresh(network: Network, node: Node, problem: Problem) -> Network:
    """New random weights in the shapes and masks that pruning left: the control of Liu et al. 2019, arXiv:1810.05270."""
    with reproducible(node.seed):
        model = problem.build()
    replay(model, network.removed, problem.anatomy)
    return Network(model, network.masks, network.removed)
