"""What a crash kept out of the driver's files, made good from Optuna's rows and from the steps in the store.

Each record tells the trial it was computed for. So where Optuna's study is lost, trials are taken up again, every one under
its number, and find all their steps. A trial for which nothing was computed, because others under way at the same time had
each of its steps, leaves no record: only ``trials.jsonl`` knows of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from optuna.trial import FixedTrial, FrozenTrial

from search.records.ledger import Ledger
from search.session import Session
from trainables.measuring.latency import LatencyTable
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.schedule import FAMILIES, Schedule
from trainables.settings import parse
from trainables.storage.store import ASKED
from trainables.tree import Point, Tree

# User attributes of Optuna's rows.
REASON = "reason"
EXHAUSTED = "exhausted"
ADDED = "added"
GIVEN_UP = "given_up"

FAILED = "failed: "
"""What the reason of a trial that failed begins with."""
KNOWN = "known: "
"""And that of one whose last step was told before."""

STATES = {FAILED: n.FAILED, "stopped": n.STOPPED}
AT_ONCE = 16


def lost_trials(tree: Tree, ledger: Ledger) -> dict[int, Schedule]:
    """The trials on record, and those that steps were computed for, by number."""
    # A store far away answers in tens of milliseconds, and a study may have ten thousand steps.
    with ThreadPoolExecutor(AT_ONCE) as pool:
        records = list(pool.map(tree.known, tree.store.own_ids()))
    found = [schedule_of(record.get(ASKED)) for record in records if record]
    told = filter(None, [*found, *map(schedule_of, ledger.trials)])
    # A number that was lost and given again stands for two schedules: trials.jsonl decides, or the last address.
    return dict(sorted(told, key=lambda trial: trial[0]))


def schedule_of(told: Any) -> tuple[int, Schedule] | None:
    """A trial and its schedule, as they were put on record; None if there can be none such."""
    if not isinstance(told, dict) or type(told.get(n.TRIAL)) is not int or not isinstance(told.get(n.SCHEDULE), dict):
        return None
    family = FAMILIES.get(str(told[n.SCHEDULE].get("family")))
    try:
        return (told[n.TRIAL], parse(family, told[n.SCHEDULE], "a step's record")) if family else None
    except InputError:
        return None


def heal(rows: Iterable[FrozenTrial], session: Session, ledger: Ledger) -> None:
    """Write the lines that are missing of trials that have ended; Optuna hears of an end before ``trials.jsonl`` does."""
    written = {row[n.TRIAL] for row in ledger.trials}
    for row in rows:
        if n.TRIAL not in row.user_attrs or not row.state.is_finished():
            continue
        trial, reason = row.user_attrs[n.TRIAL], row.user_attrs.get(REASON, "")
        state = next((state for start, state in STATES.items() if reason.startswith(start)), n.COMPLETE)
        try:
            schedule = session.space.schedule(FixedTrial(row.params))
        except (KeyError, ValueError):  # the study file has lost this choice since
            continue
        _heal_points(trial, schedule, row.user_attrs.get(GIVEN_UP), session, ledger)
        if trial not in written:
            fields = schedule.model_dump(mode="json", exclude_none=True)
            ledger.add_trial(trial, state, fields, reason.removeprefix(FAILED) if state != n.COMPLETE else None)


def _heal_points(trial: int, schedule: Schedule, given_up: str | None, session: Session, ledger: Ledger) -> None:
    """Write the points that are missing of a trial, up to the step at which it was ``given_up``."""
    tree = session.tree
    for number, node in enumerate(tree.chain(schedule), start=1):
        if node.id == given_up:
            return
        if not ledger.has(trial, node.id) and tree.known(node.id) is not None:
            ledger.add({**with_latency(tree.point(node, schedule, number, trial), session), n.TRIAL: trial})


def fill_latencies(session: Session, ledger: Ledger) -> None:
    """Write among the points the latencies that this host has measured of their shapes."""
    table = LatencyTable(session.study.place, session.tree.problem.threads)
    found = {shape: table.find(row) or {} for shape, row in {row[n.SHAPE_ID]: row for row in ledger.points}.items()}
    ledger.rewrite({row[n.STEP_ID]: found[row[n.SHAPE_ID]] for row in ledger.points})


def with_latency(point: Point, session: Session) -> Point:
    """The point with the latency that its gains are counted with, if that is an objective."""
    if "latency" not in session.study.objectives:
        return point
    return point | LatencyTable(session.study.place, session.tree.problem.threads).of(point, session.tree)
