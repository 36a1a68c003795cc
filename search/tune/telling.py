"""What Optuna's study is told of trials: every step with its values, once, and how each trial ended.

The study has two kinds of rows. A trial that was asked for ends COMPLETE with the values of its last step. Every other
step, being a schedule of the space itself, is added as a row of its own, once. A trial whose last step was told already (it
was another's prefix, or asked for twice) ends FAIL with the reason, because a point told twice would count twice in the
sampler's densities. One that the scheduler stopped ends PRUNED; its points are rows of their own, and a schedule that would
go on from where it was stopped is not run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState, create_trial

from search.records.journal import ADDED, FAILED, GIVEN_UP, KNOWN, REASON
from search.records.ledger import Ledger
from search.sampling.constraints import Constraints, constrained, no_constraints
from search.sampling.space import Params, Space
from trainables.records import names as n
from trainables.schedule import Schedule
from trainables.trainable import points_of
from trainables.tree import Tree

UNMEASURED = "an objective was not measured"

Forms = Sequence[Mapping[str, Any]]
"""The points of a step in all stored forms."""


@dataclass
class Asked:
    """Trial ``trial``, under way as a row of Optuna's study; or without one, if only its steps are told."""

    trial: int
    schedule: Schedule
    ids: tuple[str, ...]
    """Addresses of its steps."""
    params: Params
    distributions: Mapping[str, BaseDistribution]
    row: optuna.Trial | None = None
    done: int = 0
    """The last step that was done."""


def ids_of(tree: Tree, schedule: Schedule) -> tuple[str, ...]:
    """The addresses of a schedule's steps."""
    return tuple(node.id for node in tree.chain(schedule))


class Telling:
    """Tells an Optuna study of the points of a space; values are the gains that the ledger counts.

    Of a step's stored forms they are those of the one that is worth most above the reference of the step's seed; beside
    them a row has the values of each, for a sampler that looks at all of them. How far each point is beyond the study's
    limits is told as Optuna's constraints.
    """

    def __init__(
        self, study: optuna.Study, space: Space, ledger: Ledger, constraints: Constraints = no_constraints
    ) -> None:
        self._study, self._space, self._ledger, self._constraints = study, space, ledger, constraints
        self._told, self._given_up = set[str](), set[str]()

    def has(self, step_id: str) -> bool:
        """Whether the study was told of this step."""
        return step_id in self._told

    def gives_up(self, ids: Sequence[str]) -> bool:
        """Whether trials go no further than one of these steps, which no other trial got to."""
        return not (self._given_up - self._told).isdisjoint(ids)

    def step(self, asked: Asked, forms: Forms) -> None:
        """Tell of a step as the schedule that it is the end of, a row of its own."""
        step, step_id = forms[0][n.STEP], forms[0][n.STEP_ID]
        asked.done = max(asked.done, step)
        if step_id in self._told or not all(map(self._ledger.measured, forms)):
            return
        self._told.add(step_id)
        values, each, constraints = self._values(forms)
        self._study.add_trial(
            create_trial(
                params=self._space.prefix(asked.params, step), distributions=dict(asked.distributions), values=values,
                user_attrs={ADDED: asked.trial, n.STEP_ID: step_id, **each}, constraints=constraints,
            )
        )  # fmt: skip

    def end(self, asked: Asked, result: Mapping[str, Any]) -> None:
        """Tell how a trial ended, from its last result: failed, stopped, or with its last step."""
        if result.get(n.REASON):
            self.failed(asked, result[n.REASON])
        elif result[n.STEP] < len(asked.ids):
            self.step(asked, points_of(result))
            self.stopped(asked)
        else:
            self.last(asked, points_of(result))

    def last(self, asked: Asked, forms: Forms) -> None:
        """Tell of a trial's last step as its own row, or why that has no values."""
        assert asked.row is not None
        step_id, asked.done = forms[0][n.STEP_ID], len(asked.ids)
        if step_id in self._told:
            self.close(asked.row, f"{KNOWN}{step_id}")
        elif not all(map(self._ledger.measured, forms)):
            self.close(asked.row, UNMEASURED)
        else:
            self._told.add(step_id)
            values, each, constraints = self._values(forms)
            for key, value in {n.STEP_ID: step_id, **each}.items():
                asked.row.set_user_attr(key, value)
            for name, excess in constraints.items():
                asked.row.set_constraint(name, excess)
            self._study.tell(asked.row, values)

    def failed(self, asked: Asked, reason: str) -> None:
        """A step that failed would fail again: no schedule that goes through it is proposed any more."""
        self._give_up(asked, f"{FAILED}{reason}", TrialState.FAIL)

    def stopped(self, asked: Asked) -> None:
        """A trial that was stopped is pruned, in Optuna's words; what comes after its last step is not proposed again."""
        self._give_up(asked, f"stopped after step {asked.done} of {len(asked.ids)}", TrialState.PRUNED)

    def _give_up(self, asked: Asked, reason: str, state: TrialState) -> None:
        assert asked.row is not None
        step_id = asked.ids[min(asked.done, len(asked.ids) - 1)]
        self._given_up.add(step_id)
        asked.row.set_user_attr(GIVEN_UP, step_id)
        self.close(asked.row, reason, state)

    def close(self, row: optuna.Trial, reason: str, state: TrialState = TrialState.FAIL) -> None:
        """End a row without values."""
        row.set_user_attr(REASON, reason)
        self._study.tell(row, state=state)

    def _values(self, forms: Forms) -> tuple[list[float], dict[str, Any], dict[str, float]]:
        """The values of the best of a step's forms, beside them what attributes tell of all, and its constraints."""
        found = [self._constraints(point) for point in forms]
        each = [self._ledger.gains(point) for point in forms]
        return constrained(each, found, self._ledger.reference_of(forms[0][n.SEED]))
