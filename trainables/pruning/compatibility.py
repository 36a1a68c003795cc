"""Which methods of structured pruning work for a network, found by trying each on the untrained network once.

Done before a study starts, so that no trial is spent on a combination that can't work.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from trainables.networks.anatomy import Group, groups_in, leader, quiet, trace
from trainables.problem import Problem
from trainables.pruning.channel_importances import CHANNEL_IMPORTANCES, ChannelImportance, Scorer
from trainables.pruning.channels import can_be_cut, scores_of
from trainables.pruning.pruners import PRUNERS, Regulariser
from trainables.pruning.sample import Sample
from trainables.records import names as n
from trainables.training.kernels import trainable

PROBE_IMAGES = 4


def refusals(problem: Problem, importances: Iterable[str], pruners: Iterable[str]) -> dict[str, dict[str, str]]:
    """{"importance": {name: reason}, "pruner": {name: reason}} for those that can't work for the problem's network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = {
            n.IMPORTANCE: {name: refuse_importance(name, problem) for name in importances},
            n.PRUNER: {name: refuse_pruner(name, problem) for name in pruners},
        }
    return {kind: {name: reason for name, reason in by.items() if reason} for kind, by in found.items()}


def refuse_importance(name: str, problem: Problem) -> str | None:
    """Why this importance can't score the network's groups, or None if it can."""
    model, anatomy = problem.build(), problem.anatomy
    importance = CHANNEL_IMPORTANCES.make(name, {"score_images": PROBE_IMAGES}, problem.own.get(name, {}))
    try:
        scorer = importance.scorer(model, Sample(problem.data, 0))
        graph = trace(model, anatomy)
        for group in groups_in(graph, model, anatomy):
            if not can_be_cut(group, graph):
                continue
            reason = _refuse_group(importance, scorer, group)
            if reason is not None:
                return f"{name} can't be used: {reason}"
    except Exception as error:
        return f"{name} can't be used: torch-pruning fails on this network ({_line(error)})"
    return None


def _refuse_group(importance: ChannelImportance, scorer: Scorer, group: Group) -> str | None:
    first = leader(group)
    if reason := importance.refuses(group):
        return reason.format(leader=first)
    with quiet():
        score = scores_of(group, scorer)
    if score is None:
        return f"it has nothing to score in the group of {first} (BatchNorm is missing?)"
    if len(score) != len(group[0].idxs):
        return f"it gives {len(score)} scores for the {len(group[0].idxs)} channels of {first}"
    if not bool(torch.isfinite(score).all()):
        return f"its scores of {first} are not finite"
    return None


def refuse_pruner(name: str, problem: Problem) -> str | None:
    """Why this pruner's regulariser can't train the network, or None if it can."""
    # At its default strengths: those of the study may be 0, on purpose.
    pruner = PRUNERS.make(name, problem.own.get(name, {}))
    if not isinstance(pruner, Regulariser):
        return None
    model, anatomy = problem.build(), problem.anatomy
    try:
        hook = pruner.penalty(model, anatomy)
        images, labels = Sample(problem.data, 0).images(PROBE_IMAGES)
        model.train()
        with trainable(model):
            loss = problem.data.task.loss(model(images), labels)
        loss.backward()
        before = _gradients(model)
        hook(model)
    except Exception as error:
        return f"{name} can't be used: torch-pruning fails on this network ({_line(error)})"
    after = _gradients(model)
    if not bool(torch.isfinite(after).all()):
        return f"{name} can't be used: its regulariser gives gradients that are not finite"
    if torch.equal(before, after):
        return f"{name} can't be used: its regulariser finds nothing to act on (BatchNorm is missing?)"
    return None


def _gradients(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten().clone() for p in model.parameters() if p.grad is not None])


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
