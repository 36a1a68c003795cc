"""Building a study, running it, and going on with it: the same command does all three."""

from __future__ import annotations

from collections.abc import Sequence

from ray.tune import Callback
from rich.console import Console

from search.records.ledger import Ledger
from search.stages.dense import dense_networks
from search.stages.final_round import run_finalists
from search.stages.ready import ready
from search.stages.trials import run_trials
from search.stages.wrap_up import wrap_up
from search.study import Study


def run(study: Study, console: Console, *, address: str | None = None, callbacks: Sequence[Callback] = ()) -> Ledger:
    """Run the study to its end, from wherever it stands; returns its points.

    StoppedError if it can't go on here. ``address`` is a Ray cluster's, HOST:PORT or auto; without it, Ray runs on this
    machine alone. ``callbacks`` are Tune's, and hear of each step.
    """
    with ready(study, console, address=address, callbacks=callbacks) as driver:
        with driver.ray:
            dense_networks(driver)
            ended = run_trials(driver)
            if ended and study.finalists is not None:  # an interrupted sweep has no finalists yet
                ended = run_finalists(driver, study.finalists)
        wrap_up(driver, ended=ended is not None)
    if ended is None:
        raise KeyboardInterrupt  # Tune has kept it to itself
    console.print(f"[dim]Ended after {ended}.[/dim]")
    return driver.ledger
