"""Lines of the driver's files that are missing are made good for every trial that has ended, however it ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.records.asked import Asks, line
from search.records.ledger import Ledger
from search.records.recovery import heal
from search.session import prepare
from search.study import load_study
from tests.search_helpers import SWEEP, raw_study, rows, write
from trainables.records import names as n


@pytest.mark.parametrize("ended", [n.FAILED, n.STOPPED, n.COMPLETE])
def test_a_trial_that_ended_early_has_its_points_again_and_no_others(ended: str, tmp_path: Path) -> None:
    study = load_study(write(tmp_path, raw_study(tmp_path, sweep=SWEEP)))
    session = prepare(study)
    study.folder.mkdir(parents=True)
    (schedule,) = study.schedules()
    tree, nodes = session.tree, session.tree.chain(schedule)
    points = [tree.point(node, schedule, step, trial=0) for step, node in enumerate(nodes, start=1)]
    own = points if ended == n.COMPLETE else points[:1]
    asks = Asks()
    asks.add(line(0, 0, schedule))

    def ledger() -> Ledger:
        made = Ledger(study.folder, study.objectives, study.reference.accuracy_drop)
        made.add_dense(tree.dense_point(0))
        return made

    before = ledger()
    for point in own:
        before.add({**point, n.TRIAL: 0})
    before.add_trial(0, ended, schedule.model_dump(mode="json", exclude_none=True), "it diverged")
    whole = rows(study.folder / n.POINTS_FILE), rows(study.folder / n.TRIALS_FILE)
    (study.folder / n.POINTS_FILE).unlink()
    for _ in range(2):
        heal(asks, session, ledger())
    assert len(whole[0]) == 1 + len(own)
    assert (rows(study.folder / n.POINTS_FILE), rows(study.folder / n.TRIALS_FILE)) == whole
    if ended == n.COMPLETE:
        (study.folder / n.TRIALS_FILE).unlink()
        heal(asks, session, ledger())
        assert [row[n.STATE] for row in rows(study.folder / n.TRIALS_FILE)] == [n.COMPLETE]
