"""What Tune keeps of trials that have ended costs nothing as a study grows long."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial

from search.tune.live_trials import LiveFifo, forget_metrics


class Controller:
    """A Tune controller that has forgotten nothing and shows only what is alive."""

    def __init__(self, *live: Any) -> None:
        self.live = set(live)

    def get_live_trials(self) -> set[Any]:
        return self.live

    def get_trials(self) -> list[Any]:
        raise AssertionError("this goes through every trial there ever was")


class Some(SimpleNamespace):
    __hash__ = object.__hash__  # type: ignore[assignment]


def test_the_first_that_was_asked_for_runs_first() -> None:
    running = Some(trial_id="x_00001", status=Trial.RUNNING)
    waiting = [Some(trial_id=f"x_{number:05d}", status=Trial.PENDING) for number in (11, 3, 7)]
    assert LiveFifo().choose_trial_to_run(Controller(running, *waiting)) is waiting[1]
    assert LiveFifo().choose_trial_to_run(Controller(running)) is None
    assert LiveFifo().choose_trial_to_run(Controller()) is None


def test_metrics_are_forgotten_and_the_last_result_is_not() -> None:
    trial = Trial("trainable", stub=True)
    trial.update_last_result({"accuracy": 0.9, "training_iteration": 1})
    assert trial.metric_analysis and trial.metric_n_steps
    forget_metrics(trial)
    assert not trial.metric_analysis and not trial.metric_n_steps and trial.last_result["accuracy"] == 0.9
