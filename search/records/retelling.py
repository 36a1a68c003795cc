"""What is on record, told to an Optuna study that doesn't have it: its space or its objectives changed, or it was lost.

Values are the gains on the study's present objectives. What is not of the space any more stays on record, and on the front;
the sampler, which couldn't ask for it, doesn't hear of it. What an objective hasn't been measured of is not told either.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import groupby
from operator import itemgetter

from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial
from pydantic import ValidationError

from search.records.ledger import Ledger
from search.records.recovery import ADDED, FAILED, GIVEN_UP, KNOWN, REASON, schedule_of
from search.sampling.constraints import Constraints, constrained, no_constraints
from search.sampling.space import Params, Space
from trainables.records import names as n
from trainables.records.jsonl import Row
from trainables.records.names import InputError
from trainables.schedule import Schedule
from trainables.tree import Tree

Told = set[str | None]
"""Addresses of the steps that Optuna's study has with their values; each is told once."""
Tell = Callable[[FixedTrial, Mapping[str, object], list[Row]], FrozenTrial]
"""Makes the row of a step of its parameters, further attributes, and its points."""
OUTSIDE = "the space has changed"
UNMEASURED = "an objective was not measured"


def retold(
    space: Space, tree: Tree, ledger: Ledger, known: Iterable[FrozenTrial], constraints: Constraints = no_constraints
) -> Iterator[tuple[int, list[FrozenTrial]]]:
    """Each trial that has ended and is not among the ``known`` rows, with the rows that stand for it and its points.

    A trial whose points are lost is left out: it is taken up again, and finds its steps.
    """
    rows = list(known)
    told = {row.user_attrs.get(n.STEP_ID) for row in rows if row.state == TrialState.COMPLETE}
    numbers = {row.user_attrs.get(n.TRIAL) for row in rows}
    points = defaultdict[int, list[Row]](list)
    for row in ledger.points:
        if row[n.TRIAL] is not None:
            points[row[n.TRIAL]].append(row)
    for end in ledger.trials:
        trial = schedule_of(end)
        if trial is None or trial[0] in numbers:
            continue
        rows_of_trial = sorted(points.get(trial[0], ()), key=itemgetter(n.STEP))
        own = [list(forms) for _, forms in groupby(rows_of_trial, key=itemgetter(n.STEP))]
        if len(own) == trial[1].steps if end[n.STATE] == n.COMPLETE else points:
            tell = partial(_told, ledger=ledger, constraints=constraints)
            yield trial[0], list(_rows(space, tree, ledger, trial, end, own, told, tell))


def _rows(
    space: Space,
    tree: Tree,
    ledger: Ledger,
    trial: tuple[int, Schedule],
    end: Row,
    points: list[list[Row]],
    told: Told,
    tell: Tell,
) -> Iterator[FrozenTrial]:
    number, schedule = trial
    complete = end[n.STATE] == n.COMPLETE
    for forms in points[:-1] if complete else points:
        fixed, step_id = within(space, schedule, forms[0][n.STEP]), forms[0][n.STEP_ID]
        if fixed is not None and step_id not in told and all(map(ledger.measured, forms)):
            told.add(step_id)
            yield tell(fixed, {ADDED: number, n.STEP_ID: step_id}, forms)
    asked = within(space, schedule)
    if asked is None:
        return
    if complete:
        yield from _last(asked, number, points[-1], ledger, told, tell, sweep=space.size is not None)
    elif end[n.STATE] == n.FAILED:  # it would fail again; one that was stopped might be worth it now
        done = {forms[0][n.STEP_ID] for forms in points}
        given_up = next((node.id for node in tree.chain(schedule) if node.id not in done), None)
        yield _row(asked, {n.TRIAL: number, REASON: f"{FAILED}{end[n.REASON]}", GIVEN_UP: given_up})


def _last(
    asked: FixedTrial, number: int, forms: list[Row], ledger: Ledger, told: Told, tell: Tell, *, sweep: bool
) -> Iterator[FrozenTrial]:
    """The row of a trial that was asked for and ran to its end: a step is told once, and a sweep's trial always counted."""
    step_id = forms[0][n.STEP_ID]
    if step_id in told:
        yield _row(asked, {n.TRIAL: number, REASON: f"{KNOWN}{step_id}"})
    elif all(map(ledger.measured, forms)):
        told.add(step_id)
        yield tell(asked, {n.TRIAL: number, n.STEP_ID: step_id}, forms)
    elif sweep:
        yield _row(asked, {n.TRIAL: number, REASON: UNMEASURED})


def _told(
    fixed: FixedTrial, attributes: Mapping[str, object], forms: list[Row], ledger: Ledger, constraints: Constraints
) -> FrozenTrial:
    """The row of a step, with the values of the stored form that is worth most, and beside them those of each."""
    found = [constraints(row) for row in forms]
    values, each, limits = constrained([ledger.gains(row) for row in forms], found, ledger.reference_of(forms[0][n.SEED]))
    return _row(fixed, {**attributes, **each}, values, limits)


def _row(
    fixed: FixedTrial, attributes: Mapping[str, object], values: list[float] | None = None,
    constraints: Mapping[str, float] | None = None,
) -> FrozenTrial:  # fmt: skip
    state = TrialState.FAIL if values is None else TrialState.COMPLETE
    return create_trial(
        state=state, params=fixed.params, distributions=fixed.distributions, values=values, user_attrs=dict(attributes),
        constraints=dict(constraints or {}),
    )  # fmt: skip


def end_outside(lost: Mapping[int, Schedule], space: Space, ledger: Ledger) -> None:
    """Put on record as stopped what was under way and is no schedule of the space any more; nobody would take it up."""
    for number, schedule in lost.items():
        if space.size is None and within(space, schedule) is None:
            ledger.add_trial(number, n.STOPPED, schedule.model_dump(mode="json", exclude_none=True), OUTSIDE)


def under_way(lost: Mapping[int, Schedule], space: Space) -> Iterator[FrozenTrial]:
    """Trials that are schedules of this space, as rows of Optuna's study that are still under way."""
    for number, schedule in lost.items():
        if (fixed := within(space, schedule)) is not None:
            yield create_trial(
                state=TrialState.RUNNING, params=fixed.params, distributions=fixed.distributions,
                user_attrs={n.TRIAL: number},
            )  # fmt: skip


def within(space: Space, schedule: Schedule, step: int | None = None) -> FixedTrial | None:
    """The parameters that stand for a schedule, or for its beginning up to a ``step``; None if the space has none such."""
    try:
        params: Params = space.params(schedule)
        fixed = FixedTrial(params if step is None else space.prefix(params, step))
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # all that Optuna says of a number that is out of range
            space.schedule(fixed)
    except (ValueError, InputError, ValidationError, UserWarning):
        return None
    return fixed
