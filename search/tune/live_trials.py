"""What keeps a long study as fast as a short one: Tune keeps every trial for ever, and goes through all of them."""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler


class LiveFifo(FIFOScheduler):
    """First in, first out, among the trials that haven't ended."""

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The pending trial that was asked for first; none is ever paused."""
        pending = [trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING]
        return min(pending, key=lambda trial: trial.trial_id, default=None)


def forget_metrics(trial: Trial) -> None:
    """Drop Tune's running averages of an ended trial's metrics, which nobody reads: they are 100 kB a trial."""
    trial.run_metadata.metric_analysis.clear()
    trial.run_metadata.metric_n_steps.clear()
