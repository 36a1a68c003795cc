"""What a crash kept out of the driver's files: it is made good from Optuna's rows and from the steps in the store."""

from __future__ import annotations

from collections.abc import Iterable

from optuna.trial import FixedTrial, FrozenTrial

from search.ledger import Ledger
from search.searcher import FAILED, GIVEN_UP, REASON
from search.session import Session
from trainables import names as n
from trainables.latency import LatencyTable
from trainables.schedule import Schedule
from trainables.walk import Point

STATES = {FAILED: n.FAILED, "stopped": n.STOPPED}


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


def with_latency(point: Point, session: Session) -> Point:
    """The point with the latency that its gains are counted with, if that is an objective."""
    if "latency" not in session.study.objectives:
        return point
    return point | LatencyTable(session.study.place, session.tree.problem.threads).of(point, session.tree)
