"""What is on record, told to an Optuna study in memory as it was told when it happened: at the start of each run.

Values are the gains on the study's present objectives. What is not of the space any more stays on record, and on the front;
the sampler, which couldn't ask for it, doesn't hear of it. What an objective hasn't been measured of is not told either.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from operator import itemgetter

import optuna
from optuna.trial import FixedTrial, TrialState, create_trial

from search.records.asked import ATTRIBUTES, NUMBER, PARAMS, POINTS, Asks
from search.records.ledger import Ledger
from search.records.recovery import read_schedule
from search.sampling.space import Params, Space, read
from search.tune.telling import Asked, Telling, ids_of
from trainables.records import names as n
from trainables.records.jsonl import Row
from trainables.schedule import Schedule
from trainables.tree import Tree

OUTSIDE = "the space has changed"
FIXED = "fixed_params"
"""Optuna's own attribute of a row whose parameters are given."""


class Retelling:
    """Takes a study through all asks, points and ends on record, in their order."""

    def __init__(self, study: optuna.Study, space: Space, tree: Tree, ledger: Ledger, asks: Asks, telling: Telling) -> None:
        self._study, self._space, self._tree, self._ledger, self._telling = study, space, tree, ledger, telling
        self._ends = {row[n.TRIAL]: row for row in ledger.trials}
        self._reopened, self._asked = asks.reopened, dict[int, Asked]()
        self._steps: dict[int, dict[int, list[Row]]] = defaultdict(dict)
        """Trial -> step -> its points. A step whose forms are not all there is told when its trial comes to it again."""
        self.params: list[Params] = []
        """Of what was asked for, and is of the space."""
        self.as_it_was = True
        """Whether each row got the number that it had."""
        for event in self._events(asks):
            event()
        self.under_way = [asked for asked in self._asked.values() if asked.row and not self._end(asked)]
        """Trials that have not ended, in the order in which they were asked for."""

    def _events(self, asks: Asks) -> list[Callable[[], None]]:
        events, firsts = list[tuple[int, int, Callable[[], None]]](), dict[int | None, int]()
        for index, row in enumerate(self._ledger.points):
            trial, step = row[n.TRIAL], row[n.STEP]
            if trial is not None and (trial in self._ends or self._ledger.has(trial, row[n.STEP_ID], self._tree.forms)):
                firsts.setdefault(trial, index)
                events += [] if step in self._steps[trial] else [(index, 1, partial(self._step, trial, step))]
                self._steps[trial].setdefault(step, []).append(row)
        for line in asks.lines:  # of points that were lost and written again, the first may stand before its ask
            before = min(line[POINTS], firsts.get(line[n.TRIAL], line[POINTS]))
            events.append((before, 0, partial(self._ask, line)))
        return [event for *_, event in sorted(events, key=itemgetter(0, 1))]

    def _ask(self, line: Row) -> None:
        trial, schedule = line[n.TRIAL], read_schedule(line)
        fixed = standing_for(self._space, schedule, asked_by=line[PARAMS]) if schedule else None
        if trial is None:
            if fixed or not schedule:
                self._telling.close(self._row(line, fixed.params if fixed else line[PARAMS] or {}), line[n.REASON] or "")
        elif schedule and fixed:
            asked = Asked(trial, schedule, ids_of(self._tree, schedule), fixed.params, fixed.distributions)
            self._asked[trial] = asked
            asked.row = None if self._is_open(asked) else self._row(line, fixed.params)
        elif schedule:
            self._asked[trial] = Asked(trial, schedule, (), {}, {})
            if self._space.size is None:  # or its turn comes later
                self._ledger.add_trial(trial, n.STOPPED, schedule.model_dump(mode="json", exclude_none=True), OUTSIDE)

    def _is_open(self, asked: Asked) -> bool:
        """Whether it may be asked for again, to see what comes of it now; its points are told all the same."""
        last = self._steps[asked.trial].get(len(asked.ids), ())
        unmeasured = self._is_whole(asked) and not all(map(self._ledger.measured, last)) and self._space.size is None
        return asked.trial in self._reopened or unmeasured

    def _is_whole(self, asked: Asked) -> bool:
        return len(self._steps[asked.trial]) == len(asked.ids)

    def _row(self, line: Row, params: Params) -> optuna.Trial:
        number = {} if line[n.TRIAL] is None else {n.TRIAL: line[n.TRIAL]}
        attributes = {**line.get(ATTRIBUTES, {}), FIXED: params}
        self._study.add_trial(create_trial(state=TrialState.WAITING, user_attrs=number, system_attrs=attributes))
        row = self._study.ask()
        with suppress(ValueError):  # it was refused
            self._space.schedule(row)
        self.params.append(params)
        self.as_it_was &= row.number == line.get(NUMBER)
        return row

    def _step(self, trial: int, step: int) -> None:
        asked, forms = self._asked.get(trial), self._steps[trial][step]
        if asked and not asked.ids:  # of what is outside of the space, the beginning may be within
            fixed = standing_for(self._space, asked.schedule, step)
            asked = Asked(trial, asked.schedule, (), fixed.params, fixed.distributions) if fixed else None
        if asked and asked.row and step == len(asked.ids) and self._is_whole(asked):
            self._telling.last(asked, forms)
        elif asked:
            self._telling.step(asked, forms)

    def _end(self, asked: Asked) -> bool:
        """Whether the trial has ended, which is told; one that lacks points is taken up again, and finds its steps."""
        end = self._ends.get(asked.trial, {n.STATE: n.COMPLETE})
        if self._is_whole(asked) or end[n.STATE] == n.COMPLETE:
            return self._is_whole(asked)
        asked.done = max(asked.done, end.get(n.STEP) or 0)
        if end[n.STATE] == n.FAILED:
            self._telling.failed(asked, end[n.REASON])
        else:
            self._telling.stopped(asked)
        return True


def standing_for(
    space: Space, schedule: Schedule, step: int | None = None, asked_by: Params | None = None
) -> FixedTrial | None:
    """The parameters that stand for a schedule, or for its beginning up to a ``step``; None if the space has none such.

    They are those that it was ``asked_by``, if these still stand for it.
    """
    if asked_by and read(space, fixed := FixedTrial(asked_by)) == schedule:
        return fixed
    try:
        params = space.params(schedule)
    except ValueError:
        return None
    fixed = FixedTrial(params if step is None else space.prefix(params, step))
    return fixed if read(space, fixed) else None
