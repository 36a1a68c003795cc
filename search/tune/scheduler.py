"""Ends trials that can't be expected to reach the front any more, as a Ray Tune scheduler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import TrialScheduler

from search.records.ledger import Ledger
from search.sampling.outlook import Outlook
from search.tune.live_trials import LiveFifo
from trainables.pruning.levels import PARTS_PER_MILLION
from trainables.records import names as n
from trainables.records.objectives import Objective, objectives_of
from trainables.records.points import form_of
from trainables.schedule import FAMILIES, Schedule
from trainables.trainable import fields_of, gain_metric, points_of

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial


class FrontScheduler(LiveFifo):
    """Runs trials in their order, and stops one when no step that it has left can be expected to reach the front.

    It learns from the ledger's points alone, so a study that goes on after a restart judges as before.
    """

    def __init__(self, ledger: Ledger, objectives: Sequence[str | Objective], images: int) -> None:
        super().__init__()
        self._ledger, self._objectives = ledger, objectives_of(objectives)
        noise = None if ledger.measure.counted else ledger.measure.noise_beside(ledger.dense.values(), images)
        self._outlook, self._taken = Outlook(objectives, images, noise=noise), 0

    def on_trial_result(self, _controller: TuneController, trial: Trial, result: Mapping[str, Any]) -> str:
        """STOP or CONTINUE; Tune doesn't ask after a trial's last step."""
        self._catch_up()
        fields = fields_of(trial.config)
        schedule = FAMILIES[fields["family"]](**fields)
        reference = self._ledger.reference_of(schedule.seed)
        hopeless = []
        for point in points_of(result):  # all are taken in; it goes on if one of its stored forms may reach the front
            told = zip(self._objectives, reference, strict=True)
            gains = [float(point[gain_metric(one.name)]) - origin for one, origin in told]
            hopeless.append(is_hopeless(self._outlook, schedule, result[n.STEP], gains, reference, form_of(point)))
        return TrialScheduler.STOP if all(hopeless) else TrialScheduler.CONTINUE

    def _catch_up(self) -> None:
        points = self._ledger.points
        for row in points[self._taken :]:
            if row[n.STEP] and self._ledger.measured(row):
                gains = self._ledger.above_reference(row)
                kind = (row[n.FAMILY], row[n.SCOPE], form_of(row))
                self._outlook.add(kind, row[n.REQUESTED_SPARSITY], gains)
        self._taken = len(points)


def is_hopeless(
    outlook: Outlook,
    schedule: Schedule,
    step: int,
    gains: Sequence[float],
    reference: Sequence[float],
    form: str = n.FP32,
) -> bool:
    """Take in what a step of a schedule gained above the reference, and judge the steps that come after it."""
    part, number = schedule.part_of(step)
    columns, sparsities = schedule.columns_at(step), [target / PARTS_PER_MILLION for target in part.targets()]
    kind = (columns[n.FAMILY], columns[n.SCOPE], form)
    outlook.add(kind, sparsities[number - 1], gains)
    if part != schedule.parts[-1]:  # what comes after it is of another kind
        return False
    return outlook.hopeless(kind, gains, sparsities[number:], reference)
