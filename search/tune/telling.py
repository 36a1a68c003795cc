"""What Optuna's study is told of trials under way: every step with its values, once, and how each trial ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState, create_trial

from search.records.recovery import ADDED, FAILED, GIVEN_UP, KNOWN, REASON
from search.sampling.constraints import CONSTRAINTS, Constraints, constrained, no_constraints
from search.sampling.space import Params, Space
from trainables.records import names as n
from trainables.trainable import points_of


@dataclass(frozen=True)
class Asked:
    """A row of Optuna's study that is under way as trial ``trial``."""

    number: int
    trial: int
    params: Params
    distributions: Mapping[str, BaseDistribution]
    ids: tuple[str, ...]
    """Addresses of its steps."""


class Telling:
    """Tells an Optuna study of the points of a space, from the trials' results: the values are those of ``metrics``.

    Of a step's stored forms they are those of the one that is worth most above the ``reference`` of the step's seed; beside
    them a row has the values of each, for a sampler that looks at all of them. How far each point is beyond the study's
    limits is told as Optuna's constraints.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        metrics: Sequence[str],
        reference: Callable[[int], Sequence[float]],
        constraints: Constraints = no_constraints,
    ) -> None:
        self._study, self._space, self._metrics, self._reference = study, space, metrics, reference
        self._constraints = constraints
        rows = study.get_trials(deepcopy=False)
        self._told = {row.user_attrs.get(n.STEP_ID) for row in rows if row.state == TrialState.COMPLETE}
        given_up = {row.user_attrs[GIVEN_UP] for row in rows if GIVEN_UP in row.user_attrs}
        self._given_up = given_up - self._told  # a trial that was under way beside it may have got there

    def has(self, step_id: str) -> bool:
        """Whether the study was told of this step."""
        return step_id in self._told

    def gives_up(self, ids: Sequence[str]) -> bool:
        """Whether trials go no further than one of these steps."""
        return not self._given_up.isdisjoint(ids)

    def step(self, asked: Asked, result: Mapping[str, Any]) -> None:
        """Tell of a step as the schedule that it is the end of, a row of its own."""
        if result[n.STEP_ID] in self._told:
            return
        self._tell(result[n.STEP_ID])
        params = self._space.prefix(asked.params, result[n.STEP])
        values, forms, constraints = self._values(result)
        attributes = {ADDED: asked.trial, n.STEP_ID: result[n.STEP_ID], **forms}
        self._study.add_trial(
            create_trial(
                params=params, distributions=dict(asked.distributions), values=values, user_attrs=attributes,
                constraints=constraints,
            )
        )  # fmt: skip

    def end(self, asked: Asked, result: Mapping[str, Any]) -> None:
        """Tell how a trial ended, from its last result: failed, stopped, or with its last step."""
        if result.get(n.REASON):
            self.failed(asked, result[n.REASON])
        elif result[n.STEP] < len(asked.ids):
            self.step(asked, result)
            self._stopped(asked, result[n.STEP])
        elif result[n.STEP_ID] in self._told:
            self.close(asked.number, f"{KNOWN}{result[n.STEP_ID]}")
        else:
            self._tell(result[n.STEP_ID])
            self._attribute(asked.number, n.STEP_ID, result[n.STEP_ID])
            values, forms, constraints = self._values(result)
            for key, each in forms.items():
                self._attribute(asked.number, key, each)
            for name, value in constraints.items():
                self._constrain(asked.number, name, value)
            self._study.tell(asked.number, values)

    def failed(self, asked: Asked, reason: str) -> None:
        """A step that failed would fail again: no schedule that goes through it is proposed any more."""
        step_id = next((step_id for step_id in asked.ids if step_id not in self._told), asked.ids[-1])
        self._given_up.add(step_id)
        self._attribute(asked.number, GIVEN_UP, step_id)
        self.close(asked.number, f"{FAILED}{reason}")

    def close(self, number: int, reason: str, state: TrialState = TrialState.FAIL) -> None:
        """End a row without values."""
        self._attribute(number, REASON, reason)
        self._study.tell(number, state=state)

    def _stopped(self, asked: Asked, step: int) -> None:
        """A trial that was stopped is pruned, in Optuna's words; what comes after its last step is not proposed again."""
        if asked.ids[step] not in self._told:
            self._given_up.add(asked.ids[step])
        self._attribute(asked.number, GIVEN_UP, asked.ids[step])
        self.close(asked.number, f"stopped after step {step} of {len(asked.ids)}", TrialState.PRUNED)

    def _tell(self, step_id: str) -> None:
        self._told.add(step_id)
        self._given_up.discard(step_id)

    def _values(self, result: Mapping[str, Any]) -> tuple[list[float], dict[str, Any], dict[str, float]]:
        """The values of the best of a step's forms, beside them what attributes tell of all, and its constraints."""
        points = points_of(result)
        each = [[float(point[metric]) for metric in self._metrics] for point in points]
        found = [self._constraints(point) for point in points]
        return constrained(each, found, self._reference(result[n.SEED]))

    def _attribute(self, number: int, key: str, value: Any) -> None:
        self._study._storage.set_trial_user_attr(self._id(number), key, value)

    def _constrain(self, number: int, name: str, value: float) -> None:
        """As ``Trial.set_constraint`` does, of which only its number is at hand."""
        self._study._storage.set_trial_system_attr(self._id(number), f"{CONSTRAINTS}:{name}", value)

    def _id(self, number: int) -> int:
        return self._study._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
