"""Making a study ready to run: its data, its network, and a look at everything that could be wrong with it."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from search.methods import REGISTRIES
from search.records.ledger import Ledger
from search.records.reused import reused_steps
from search.sampling.reach import Reach
from search.sampling.space import (
    FamilySpace,
    SearchSpace,
    Space,
    SpaceSettings,
    Sweep,
    asked_of_channels,
    without,
)
from search.study import Study, check_folder
from trainables.data import dataset as data
from trainables.loading.pretrained import published
from trainables.measuring import quiet
from trainables.measuring.runtimes import target_of
from trainables.methods import check_own
from trainables.networks.network import Network, encode
from trainables.node import Node
from trainables.problem import Problem
from trainables.pruning.compatibility import refusals
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.schedule import Schedule, StructuredSchedule, UnstructuredSchedule, told_as
from trainables.storage.base import is_url
from trainables.storage.store import Store
from trainables.training.loop import fastest_precision
from trainables.training.stepping import Precision
from trainables.tree import Tree

if TYPE_CHECKING:
    from search.cluster.nodes import Terms

FIELDS = {
    "data": "data.root", "checkpoint": "model.checkpoint", "weights": "model.weights",
    "threads": "resources.cpu", "device": "resources.gpu",
}  # fmt: skip
"""Where the study file says what a dense network's address holds under another name."""
OF_TRAINING = ("numerics", "precision", "device", "threads")
"""What a dense network's address holds that tells how it was trained, and nothing of the data or of its shapes."""


@dataclass(frozen=True)
class Session:
    """A study made ready to run: everything that could be wrong with it has been looked at.

    On a cluster, ``terms`` are what a node must fulfil, and ``nodes`` is the hardware of those that did, by host.
    """

    study: Study
    tree: Tree
    space: Space
    seeds: tuple[int, ...]
    refused: dict[str, dict[str, str]]
    protected: dict[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What is told at the start, by its subject."""
    terms: Terms | None = None
    nodes: dict[str, Any] = field(default_factory=dict)


def prepare(study: Study, *, trusted: bool = False, fastest: Precision | None = None) -> Session:
    """Load the data, build the network and check the study against both; InputError before anything is written.

    ``fastest`` is the precision that is fast where the trials will run, if that is not this machine.
    """
    check_folder(study, trusted=trusted)
    quiet.folder()  # of no use, it would be told of the first step
    if fastest is None:
        _check_resources(study)
    schedules = study.schedules(trusted=trusted)
    check_own(study.methods, REGISTRIES.values())
    problem = problem_of(study, trusted=trusted, fastest=fastest)
    for schedule in schedules:
        problem.check(schedule)
    settings, families = _cuttable(study.space, problem) if study.space is not None else (None, {})
    refused = _refusals(settings, study, problem)
    for one in (one for one in study.goals if one.of_host):
        target_of(one, problem).check()
    notes = _slow(problem, fastest or fastest_precision(problem.device))
    if settings is not None:
        possible = _possible(without(settings, refused), problem, refused)
        space, reached = _searched(possible, study, problem)
        notes |= reached
        refused |= {n.FAMILY: families} if families else {}
    else:
        for kind, reason in ((kind, reason) for kind, by in refused.items() for reason in by.values()):
            raise InputError(f"sweep: {kind} {reason}; leave it out")
        space = Sweep(schedules)
    tree = Tree(problem, steps_of(study, study.folder), objectives=study.goals, forms=study.storage_forms)
    seeds = tuple(sorted({schedule.seed for schedule in schedules})) or (0,)
    _check_disk(study, tree)
    asked = {*(settings.families if settings else ()), *(one.family for one in schedules)}
    return Session(study, tree, space, seeds, refused, _protected(asked, problem), notes)


def _searched(settings: SpaceSettings, study: Study, problem: Problem) -> tuple[Space, dict[str, Sequence[str]]]:
    """The space of a search, and how far it reaches in words."""
    rates = problem.methods.usual_rates
    reach = Reach(settings.families, SearchSpace(settings, rates), problem, study.storage_forms)
    space = SearchSpace(settings, rates, reach.ends(study.search.targets.items()))
    notes = {"Within reach": list(reach.told()), "Out of reach": list(reach.beyond(study.limits, study.measure))}
    return space, {subject: lines for subject, lines in notes.items() if lines}


def _slow(problem: Problem, fastest: Precision) -> dict[str, Sequence[str]]:
    """What to know of a precision that the hardware has to emulate."""
    if problem.precision == "fp32" or fastest == "bf16":
        return {}
    return {"Precision": ["bf16 is emulated here, many times slower than fp32; precision: auto takes what is fast"]}


def _protected(families: Collection[str], problem: Problem) -> dict[str, Any]:
    """What of the network stays whole, as JSON, in each of these families; none where all of it may go."""
    found: dict[str, Any] = {}
    wishes = problem.model.wishes.told()
    if {n.STRUCTURED, n.MIXED} & set(families) and (told := [*problem.gate.told(), *wishes]):
        found[n.STRUCTURED] = asdict(problem.gate) | {"told": told}
    if {n.UNSTRUCTURED, n.MIXED} & set(families) and problem.spared:
        shares = [f"{name} {share:.0%}" if share else name for name, share in problem.spared.items()]
        spared = f"{_few(shares)}: frozen, or limited in the study"
        found[n.UNSTRUCTURED] = {"spared": problem.spared, "told": [spared, *wishes]}
    return found


def _few(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def renamed(study: Study) -> list[str]:
    """What the study asks for and will find under another name, because the two rank alike; in words."""
    entries = [entry for entry in study.sweep or () if entry.get(n.FAMILY) == n.STRUCTURED]
    if study.space is not None and study.space.structured is not None:
        entries.append(study.space.structured.model_dump())
    default = StructuredSchedule.model_fields[n.SCOPE].default
    listed = [
        itertools.product(_listed(entry.get(n.IMPORTANCE)), _listed(entry.get(n.SCOPE, default))) for entry in entries
    ]
    found = ((name, scope, told_as(name, scope)) for name, scope in dict.fromkeys(itertools.chain(*listed)))
    return [
        f"importance {name} with scope {scope}, as {other}: the two rank alike"
        for name, scope, other in found
        if other != name
    ]


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def steps_of(study: Study, folder: Path) -> Store:
    """The steps of the study whose own files are in ``folder``, with those that it reads of other studies."""
    place = study.place_of(folder)
    steps = f"{place if is_url(place) else folder.absolute()}/{n.STEPS_FOLDER}"  # workers may run in another folder
    return Store(steps, reuse=reused_steps(study, folder))


def _check_resources(study: Study) -> None:
    """InputError if no trial could ever start here: Ray would wait for the resources for ever."""
    for name, asked, have in (
        ("cpu", study.resources.cpu, os.cpu_count() or 1), ("gpu", study.resources.gpu, torch.cuda.device_count()),
    ):  # fmt: skip
        if asked > have:
            raise InputError(f"resources.{name}: a trial takes {asked:g}, and this machine has {have}; lower it")


def _possible(settings: SpaceSettings, problem: Problem, refused: dict[str, dict[str, str]]) -> SpaceSettings:
    """The space without ways to retrain that the dense network can't be retrained in; the reasons go into ``refused``."""
    left = {}
    for family, space in settings.families.items():
        retrain: tuple[str, ...] = space.retrain  # type: ignore[attr-defined]
        reasons = {name: reason for name in retrain if (reason := _refuse_retraining(name, space, problem))}
        ways = tuple(name for name in retrain if name not in reasons)
        if not ways:
            raise InputError(next(iter(reasons.values())))
        refused[n.RETRAIN] = refused.get(n.RETRAIN, {}) | reasons
        left[family] = space.model_copy(update={"retrain": ways})
    return settings.model_copy(update=left)


def _refuse_retraining(retrain: str, space: FamilySpace, problem: Problem) -> str | None:
    """Why the dense network can't be retrained in this way, for the fewest epochs to choose from, or None if it can."""
    try:
        fewest = max(1, min(space.fine_tune_epochs))
        problem.check(UnstructuredSchedule(step_ratio=0.5, retrain=retrain, fine_tune_epochs=fewest))
    except InputError as refusal:
        return str(refusal)
    return None


def problem_of(study: Study, *, trusted: bool, fastest: Precision | None = None, writable: bool = True) -> Problem:
    """The study's data and network, ready for schedules; ``fastest`` is of ``prepare``, ``writable`` of ``data.load``."""
    device = "cuda" if study.resources.gpu > 0 else "cpu"
    if fastest is None:
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError(f"resources.gpu: {study.resources.gpu:g}, but torch finds no GPU here; set it to 0")
        fastest = fastest_precision(device)
    images = data.load(study.data, writable=writable, moments=_moments(study), task=study.made_task)
    problem = Problem(
        images, study.model, study.dense, study.retraining, study.regularisation,
        own=study.methods, precision=fastest if study.precision == "auto" else study.precision,
        threads=max(1, math.floor(study.resources.cpu)), device=device, trusted=trusted, latency=study.latency.model_dump(),
    )  # fmt: skip
    problem.check_network()
    return problem


def _moments(study: Study) -> data.Moments | None:
    """Mean and standard deviation that the study's published weights were trained with."""
    return published(study.model.name).moments if study.model.weights is not None else None


def _cuttable(settings: SpaceSettings, problem: Problem) -> tuple[SpaceSettings, dict[str, str]]:
    """The space without families in which nothing of the network can be pruned, and why; InputError if none is left."""
    refused = {family: f"{family}: {reason}" for family in settings.families if (reason := problem.refuse(family))}
    left = settings.model_copy(update=dict.fromkeys(refused))
    if not left.families:
        raise InputError(f"model.name: nothing of {problem.model.name!r} can be pruned; {next(iter(refused.values()))}")
    return left, refused


def _refusals(settings: SpaceSettings | None, study: Study, problem: Problem) -> dict[str, dict[str, str]]:
    """What of the study's structured choices can't work for its network."""
    if settings is not None:
        asked = asked_of_channels(settings)
    else:
        parts = (part for schedule in study.schedules() for part in schedule.parts)
        schedules = [part for part in parts if isinstance(part, StructuredSchedule)]
        asked = {kind: tuple(dict.fromkeys(getattr(s, kind) for s in schedules)) for kind in (n.IMPORTANCE, n.PRUNER)}
    return refusals(problem, asked.get(n.IMPORTANCE, ()), asked.get(n.PRUNER, ()))


def _check_disk(study: Study, tree: Tree) -> None:
    """InputError if the weights that the study may still write can't fit on the disk, kept at its end or not."""
    free = tree.store.storage.free()
    if free is None:
        return
    needed = len(encode(Network(tree.problem.build()))) * _networks_ahead(study, tree)
    if needed > free:
        raise InputError(
            f"storage: {study.place} needs up to {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "run fewer trials, or choose another storage"
        )


def _networks_ahead(study: Study, tree: Tree) -> int:
    """How many networks the study may still store: of a search a guess, of a sweep all, its finalists' included."""
    known = {*tree.store.ids()}
    if study.sweep is None:
        return max(0, 3 * (study.search.trials or 100) - len(known))
    schedules = study.schedules()
    swept = set().union(*(_lineage(tree, schedule) for schedule in schedules))
    final = study.finalists
    recipes = {schedule.model_copy(update={"seed": 0}) for schedule in schedules if final and final.compete(schedule)}
    if final is None or not recipes:
        return len(swept - known)
    steps = max(len(_lineage(tree, recipe)) for recipe in recipes) - 1
    again = len(final.seeds) * (1 + min(final.top + 1, len(recipes)) * steps)  # a dense network, and below it the recipes
    return len(swept - known) + max(0, again - len(known - swept))


def _lineage(tree: Tree, schedule: Schedule) -> set[str]:
    """The addresses of all networks that a schedule stores: the dense one, regularised ones, and its steps."""
    node: Node | None = tree.chain(schedule)[-1]
    found = set[str]()
    while node is not None:
        found.add(node.id)
        node = node.parent
    return found


def check_roots(tree: Tree, ledger: Ledger, remedy: str = "choose another `name`", *, trains: bool = True) -> None:
    """InputError if what a dense network depends on has changed since: its schedules would start from another one.

    Where nothing is trained any more, how it was trained doesn't matter.
    """
    for seed, row in ledger.dense.items():
        record, root = tree.known(row[n.STEP_ID]), tree.problem.root(seed)
        if record is None:
            continue
        before, now = record["settings"], root.settings
        keys = [key for key in {**now, **before} if now.get(key) != before.get(key)]
        for key in keys if trains else [key for key in keys if key not in OF_TRAINING]:
            raise InputError(
                f"{FIELDS.get(key, key)}: the dense network in {tree.store.place} was made with {key} {before.get(key)!r}, "
                f"and now it is {now.get(key)!r}; undo the change, or {remedy}"
            )
