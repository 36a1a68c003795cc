"""What a person sees while a study runs; and the driver's files, written as results come in."""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from ray import tune
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from search.records.ledger import Ledger
from search.records.provenance import Run
from search.study import SearchSettings
from search.tune.live_trials import forget_metrics
from search.tune.searcher import FrontSearch
from search.tune.trial import NODE, PEAK, STOPS, UNFIT
from search.tune.trial_ends import not_swallowed
from trainables.records import names as n
from trainables.records.names import InputError, StoppedError
from trainables.trainable import fields_of, points_of

PLAIN_INTERVAL = 10.0
"""Seconds between two lines where there is no terminal to draw on."""
UNKNOWN = "time left unknown yet"


class Progress(tune.Callback):
    """Writes each result to the ledger and draws the state of the study."""

    def __init__(
        self,
        ledger: Ledger,
        searcher: FrontSearch,
        settings: SearchSettings,
        trials: int | None,
        console: Console,
        nodes: dict[str, Any],
        epochs_ahead: Mapping[str, int] | None = None,
        run: Run | None = None,
        copy: Callable[[], None] = lambda: None,
    ) -> None:
        """``epochs_ahead`` has the steps that a sweep still has to compute, and what each costs.

        ``copy`` is called after each trial, and writes what is told of the driver's files elsewhere.
        """
        self._ledger, self._settings, self._trials, self._console = ledger, settings, trials, console
        self._searcher, self._nodes, self._run, self._copy = searcher, nodes, run, copy
        self._ahead = dict(epochs_ahead or {})
        self._all_ahead = sum(self._ahead.values())
        self._live: Live | None = None
        self._began = self._printed = time.monotonic()
        self._before = (len(ledger.trials), ledger.epochs_computed)
        self._running: dict[str, str] = {}
        self._dying: set[int] = set()
        self._seen: dict[str, str] = {}

    def __deepcopy__(self, _memo: dict[int, Any]) -> Progress:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_live": None, "_console": None, "_run": None, "_copy": None}  # Tune pickles callbacks

    def setup(self, *_args: Any, **_info: Any) -> None:
        """Begin to draw; not before, because Tune pickles its callbacks first."""
        self._began = self._printed = time.monotonic()
        if self._console.is_terminal:
            self._seen = self._facts()
            # Drawn again every second, so that the clock goes on between two results; they may be many minutes apart.
            self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=1)
            self._live.start()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """A trial begins."""
        self._running[trial.trial_id] = f"{trial.config.get(n.TRIAL)}"
        self._draw()

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Mapping[str, Any], **_i: Any) -> None:
        """A step is done, or none can be done any more."""
        if STOPS in result:
            raise StoppedError(result[STOPS])
        if UNFIT in result:  # what it computed could not stand beside the others' points, so the study stops
            raise InputError(f"--address: {result[UNFIT]}")
        if n.STEP in result:
            self._ledger.add(*points_of(result))
            self._ahead.pop(result[n.STEP_ID], None)
            if not result[n.REUSED]:
                trial.run_metadata.num_failures = 0  # only workers lost in a row count
                self._dying.clear()
        if self._run is not None and PEAK in result:
            self._run.note_worker(result[PEAK])
        if NODE in result:
            node = dict(result[NODE])
            self._nodes[node.pop("host")] = node
        self._draw()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """A trial lost its worker, or the node under it, and will run again."""
        self._running.pop(trial.trial_id, None)
        self._dying.add(trial.config[n.TRIAL])
        which = f"Trial {trial.config[n.TRIAL]} lost its worker and runs again"
        self._console.print(f"[yellow]{which}:[/yellow] {escape(reason_of(trial))}")
        self._draw()

    @not_swallowed
    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """A trial has ended: with its last step, stopped before it, or with a step that failed; the study goes on."""
        done, steps = trial.last_result.get(n.STEP), trial.config[n.STEPS]
        if reason := trial.last_result.get(n.REASON):
            self._end(trial, n.FAILED, reason)
        elif done is not None and done < steps:
            self._end(trial, n.STOPPED, f"after step {done} of {steps}: the others can't be expected to reach the front")
        else:
            self._end(trial, n.COMPLETE)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """A trial's worker died: again and again, or between two trials, when Tune itself doesn't run a trial again."""
        self._dying.add(trial.config[n.TRIAL])
        reason = reason_of(trial)
        if trial.should_recover():
            self._running.pop(trial.trial_id, None)
            self._searcher.run_again(trial.trial_id)
            return
        if len(self._dying) > 1:  # and nobody has finished a step since: it isn't this trial's own fault
            raise StoppedError(f"ray: workers die one after another, the last with: {reason}")
        self._searcher.fail(trial.trial_id, reason)
        self._end(trial, n.FAILED, reason)

    def _end(self, trial: Any, state: str, reason: str | None = None) -> None:
        self._running.pop(trial.trial_id, None)
        schedule = fields_of(trial.config)
        self._ledger.add_trial(trial.config[n.TRIAL], state, schedule, reason)
        self._copy()
        forget_metrics(trial)
        self._draw()

    def stop(self) -> None:
        """Draw the last state and leave it on the screen."""
        if self._live is not None:
            self._seen = self._facts()
            self._live.stop()  # draws once more
            self._live = None

    def _draw(self) -> None:
        if self._live is not None:
            self._seen = self._facts()
        elif time.monotonic() - self._printed > PLAIN_INTERVAL and self._console is not None:
            self._printed = time.monotonic()
            shown = self._at_this_time(self._facts())
            self._console.print(" · ".join(f"{name} {value}" for name, value in shown.items()), style="dim")

    def _table(self) -> Table:
        """What was last seen, and what time it is now; another thread draws it, so the ledger isn't read here."""
        table = Table.grid(padding=(0, 2))
        for name, value in self._at_this_time(self._seen).items():
            table.add_row(f"[dim]{name}[/dim]", value)
        return table

    def _at_this_time(self, facts: Mapping[str, str]) -> dict[str, str]:
        return {**facts, "time": f"{clock(self._searcher.spent)}, {facts['time']}"}

    def _facts(self) -> dict[str, str]:
        ledger = self._ledger
        counts = ((ledger.stopped, "stopped"), (ledger.failed, "failed"))
        ended = "".join(f", {count} {state}" for count, state in counts if count)
        return {
            "trials": f"{len(ledger.trials)} of {self._trials or '∞'}{ended}, {len(self._running)} running",
            "points": f"{ledger.steps_computed} computed, {ledger.steps_found} found",
            "front": f"{len(ledger.members())} points, hypervolume {ledger.hypervolume:.4f}",
            "epochs": f"{ledger.epochs_computed} computed, {ledger.epochs_saved} saved by sharing",
            "time": self._left(),
        }

    def _left(self) -> str:
        """Which of the budgets will be spent first at the pace so far, and when."""
        if self._all_ahead:
            return self._left_of_sweep()
        ledger, settings = self._ledger, self._settings
        trial, epoch = self._pace(len(ledger.trials), self._before[0]), self._pace(ledger.epochs_computed, self._before[1])
        left = [(settings.minutes * 60 - self._searcher.spent, f"{settings.minutes:g} minutes")] if settings.minutes else []
        for budget, now, pace, unit in (
            (self._trials, len(ledger.trials), trial, "trials"),
            (settings.epochs, ledger.epochs_computed, epoch, "epochs"),
        ):
            if budget and pace is not None:
                left.append((pace * max(0, budget - now), f"{budget} {unit}"))
        first = [f"about {clock(min(left)[0])} left until {min(left)[1]}"] if left else []
        return "; ".join([*first, *self._until_stalled(epoch, min(left)[0] if left else None)]) or UNKNOWN

    def _left_of_sweep(self) -> str:
        """When its steps are done; its trials, of one epoch or a hundred, have no pace of their own."""
        ahead = sum(self._ahead.values())
        pace = self._pace(self._all_ahead, ahead)
        return UNKNOWN if pace is None else f"about {clock(pace * ahead)} left until {self._trials} trials"

    def _pace(self, now: int, before: int) -> float | None:
        """Seconds for each trial or epoch of this run; None before the first."""
        return (time.monotonic() - self._began) / (now - before) if now > before else None

    def _until_stalled(self, pace: float | None, other: float | None) -> list[str]:
        """When the window of ``stall_epochs`` ends if the front grows no more, unless another budget is spent before."""
        if self._settings.stall_epochs is None:
            return []
        epochs = epochs_until_stalled(self._ledger, self._settings.stall_epochs, self._settings.stall_share)
        if pace is None:
            return [f"{epochs} epochs left if the front grows no more"]
        if other is not None and other <= pace * epochs:
            return []
        return [f"{epochs} epochs (about {clock(pace * epochs)}) left if the front grows no more"]


def epochs_until_stalled(ledger: Ledger, window: int, share: float) -> int:
    """Epochs to be computed until the hypervolume has grown by less than ``share`` over a window of so many, if it stays.

    The window begins where the hypervolume was last too small: the growth since then only falls the nearer one looks.
    """
    return window - bisect.bisect_left(range(window), True, key=lambda epochs: ledger.growth(epochs + 1) >= share)


def reason_of(trial: Any) -> str:
    """Why a trial's worker died, in one line of what Ray says: the one about memory, or the last."""
    file = trial.error_file  # Tune's own accessor reads from storage, where the file isn't yet
    text = Path(file).read_text(errors="replace") if file and Path(file).exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    memory = [line for line in lines if "low on memory" in line]
    return (memory or lines or ["the worker gave no reason"])[-1][:300]


def clock(seconds: float) -> str:
    """A duration as hours, minutes and seconds."""
    return str(timedelta(seconds=round(max(0.0, seconds))))
