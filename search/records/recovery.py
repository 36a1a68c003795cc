"""What a crash kept out of the driver's files, made good from Optuna's rows and from the steps in the store.

Each record tells the trial it was computed for. So where Optuna's study is lost, trials are taken up again, every one under
its number, and find all their steps. A trial for which nothing was computed, because others under way at the same time had
each of its steps, leaves no record: only ``trials.jsonl`` knows of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from optuna.trial import FixedTrial, FrozenTrial

from search.records.ledger import Ledger
from search.session import Session
from trainables.measuring import stored_forms
from trainables.measuring.latency import LatencyTable, tables
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.records.objectives import LATENCY
from trainables.records.points import point_id, stored_format
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
        if not ledger.has(trial, node.id, tree.forms) and tree.known(node.id) is not None:
            for point in tree.points(node, schedule, number, trial):
                ledger.add({**timed(point, session), n.TRIAL: trial})


def fill_latencies(session: Session, ledger: Ledger) -> None:
    """Write among the points the latencies that they have none of yet, where their shapes were timed as here.

    What was timed elsewhere stays as it is: its dense network was timed there too.
    """
    for table in tables_of(session):
        by, rows = table.by, [row for row in ledger.points if row[table.objective.column] is None]
        alike = {row[by]: row for row in (*rows, *(ledger.dense[row[n.SEED]] for row in rows))}
        found = {which: table.find(row) for which, row in alike.items()}
        both = ((row[n.STEP_ID], found[row[by]], found[ledger.dense[row[n.SEED]][by]]) for row in rows)
        ledger.rewrite({step_id: table.joined(point, dense) for step_id, point, dense in both if point and dense})


def tables_of(session: Session) -> list[LatencyTable]:
    """The latencies that a study tells of: by PyTorch in any case, and by what its objectives name."""
    return tables(session.study.place, session.tree.problem, dict.fromkeys([LATENCY, *session.study.goals]))


def fill_own(session: Session, ledger: Ledger) -> None:
    """Write among the points what the user's own objectives measure of stored networks: they may be new, or have changed.

    Where a network's weights are gone, and its value is of other code, it has none; but a dense network is made again.
    """
    tree, own = session.tree, [one for one in session.study.goals if one.source is not None]
    dense = {row[n.STEP_ID]: row[n.SEED] for row in ledger.dense.values()}
    found = dict[str, dict[str, Any]]()
    for step_id in {row[n.STEP_ID]: None for row in ledger.points} if own else {}:
        if step_id in dense:
            tree.dense_point(dense[step_id])
        elif tree.known(step_id) is None:
            continue
        record = tree.filled(tree.node(step_id), cheaply=True)
        for row in (row for row in ledger.points if row[n.STEP_ID] == step_id):
            columns = stored_forms.columns_of(record, row)
            found[_file_of(row)] = {one.column: columns.get(one.column) for one in own}
    if any(row[column] != value for row in ledger.points for column, value in found.get(_file_of(row), {}).items()):
        ledger.rewrite(found, _file_of)


def _file_of(row: Mapping[str, Any]) -> str:
    return f"{point_id(row)} {stored_format(row)}"


def timed(point: Point, session: Session) -> Point:
    """The point with what its gains are counted with and belongs to a host, if that is an objective."""
    found = tables(session.study.place, session.tree.problem, session.study.goals)
    if not found:
        return point
    dense = session.tree.dense_point(point[n.SEED])
    return point | {k: v for table in found for k, v in table.beside(point, dense, session.tree).items()}
