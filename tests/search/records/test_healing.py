"""Lines of the driver's files that are missing are made good for every trial that has ended, however it ended."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.trial import FixedTrial, TrialState, create_trial

from search.records.ledger import Ledger
from search.records.recovery import FAILED, GIVEN_UP, REASON, heal
from search.session import prepare
from search.study import load_study
from tests.search_helpers import SWEEP, raw_study, rows, write
from trainables.records import names as n


@pytest.mark.parametrize(
    ("state", "reason", "ended"),
    [
        (TrialState.FAIL, f"{FAILED}it diverged", n.FAILED), (TrialState.PRUNED, "stopped after step 1 of 2", n.STOPPED),
    ],
)  # fmt: skip
def test_a_trial_that_ended_early_has_its_points_again_and_no_others(
    state: TrialState, reason: str, ended: str, tmp_path: Path
) -> None:
    study = load_study(write(tmp_path, raw_study(tmp_path, sweep=SWEEP)))
    session = prepare(study)
    study.folder.mkdir(parents=True)
    (schedule,) = study.schedules()
    tree, nodes = session.tree, session.tree.chain(schedule)
    points = [tree.point(node, schedule, step, trial=0) for step, node in enumerate(nodes, start=1)]
    fixed = FixedTrial(session.space.params(schedule))
    session.space.schedule(fixed)
    row = create_trial(
        state=state, params=fixed.params, distributions=fixed.distributions,
        user_attrs={n.TRIAL: 0, REASON: reason, GIVEN_UP: nodes[1].id},
    )  # fmt: skip
    for _ in range(2):
        ledger = Ledger(study.folder, study.objectives, study.reference.accuracy_drop)
        ledger.add_dense(tree.dense_point(0))
        heal([row], session, ledger)
    written = rows(study.folder / n.POINTS_FILE)
    assert [(line[n.TRIAL], line[n.STEP]) for line in written] == [(None, 0), (0, 1)]
    assert (written[1][n.STEP_ID], written[1][n.EPOCHS], written[1][n.REUSED]) == (nodes[0].id, points[0][n.EPOCHS], False)
    assert [line[n.STATE] for line in rows(study.folder / n.TRIALS_FILE)] == [ended]
