"""What a crash kept out of the driver's files, made good from the steps in the store.

Each record tells the trial it was computed for. So where the driver's files are lost, trials are taken up again, every one
under its number, and find all their steps. A trial for which nothing was computed, because others under way at the same
time had each of its steps, leaves no record: only the driver's files know of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from search.records.asked import MADE_FOR, Asks, header, line, wanted
from search.records.journal import lines_of
from search.records.ledger import Ledger
from search.session import Session
from trainables.measuring import stored_forms
from trainables.measuring.latency import LatencyTable, tables
from trainables.records import names as n
from trainables.records.jsonl import Row
from trainables.records.names import InputError
from trainables.records.objectives import LATENCY
from trainables.records.points import point_id, stored_format
from trainables.schedule import FAMILIES, Schedule
from trainables.settings import parse
from trainables.storage.store import ASKED
from trainables.tree import Point, Tree

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
    schedule = read_schedule(told) if isinstance(told, dict) and type(told.get(n.TRIAL)) is int else None
    return (told[n.TRIAL], schedule) if schedule else None


def read_schedule(told: Row) -> Schedule | None:
    """The schedule that was put on record; None if there can be none such."""
    fields = told.get(n.SCHEDULE)
    if not isinstance(fields, dict) or (family := FAMILIES.get(str(fields.get("family")))) is None:
        return None
    try:
        return parse(family, fields, "a step's record")
    except InputError:
        return None


def open_asks(session: Session, ledger: Ledger, *, fetched: bool) -> tuple[Asks, bool]:
    """What was asked for, with the trials added that only their steps, or other files, tell of; and whether it begins anew.

    There may be such trials where the file was lost, or was ``fetched``: it is older than the last steps, if the driver
    that stored it was killed.
    """
    study, asks, made_for = session.study, Asks(session.study.folder), wanted(session.study)
    found = fetched or asks.anew or not ledger.trial_numbers <= asks.trials
    lost = lost_trials(session.tree, ledger) if found else {}
    rows = [*lines_of(study.folder, ledger, lost, session.space)] if asks.anew else []
    before = next((row[MADE_FOR] for row in rows), asks.made_for)
    if before != made_for:
        rows.append(header(made_for, (row[n.TRIAL] for row in ledger.trials if row[n.STATE] == n.STOPPED)))
    told = asks.trials | {row.get(n.TRIAL) for row in rows}
    firsts = {row[n.TRIAL]: index for index, row in reversed([*enumerate(ledger.points)])}
    last = len(ledger.points)
    asks.add(*rows, *(line(firsts.get(one, last), one, schedule) for one, schedule in lost.items() if one not in told))
    return asks, before != made_for


def heal(asks: Asks, session: Session, ledger: Ledger) -> None:
    """Write the lines that are missing of trials that have ended: points whose steps are in the store, and ends."""
    tree, ends = session.tree, {row[n.TRIAL]: row for row in ledger.trials}
    for trial, schedule in filter(None, map(schedule_of, asks.lines)):
        nodes, end = tree.chain(schedule), ends.get(trial)
        if end is None and not ledger.has(trial, nodes[-1].id, tree.forms):
            continue
        done = len(nodes) if end is None or end[n.STATE] == n.COMPLETE else end.get(n.STEP) or 0
        for step, node in enumerate(nodes[:done], start=1):
            if not ledger.has(trial, node.id, tree.forms) and tree.known(node.id) is not None:
                points = tree.points(node, schedule, step, trial)
                ledger.add(*({**timed(point, session), n.TRIAL: trial} for point in points))
        if end is None and all(ledger.has(trial, node.id, tree.forms) for node in nodes):
            ledger.add_trial(trial, n.COMPLETE, schedule.model_dump(mode="json", exclude_none=True))


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
