"""The last round of a sweep: the best of its recipes run again on fresh seeds."""

from __future__ import annotations

from dataclasses import replace

from rich.markup import escape

from search.sampling.space import Sweep
from search.session import Session
from search.stages.dense import dense_networks
from search.stages.finalists import Final
from search.stages.ready import Driver
from search.stages.trials import run_trials
from search.study import FinalistSettings


def run_finalists(driver: Driver, settings: FinalistSettings) -> str | None:
    """Choose them, train their dense networks, and run them; what ended it, or None if it was interrupted."""
    session = driver.session
    final = Final(settings, session.study.schedules(), session.tree, driver.ledger)
    for line in final.told():
        driver.console.print(f"[dim]{escape(line)}[/dim]")
    driver = replace(driver, session=_with_finalists(session, final))
    dense_networks(driver)
    return run_trials(driver)


def _with_finalists(session: Session, final: Final) -> Session:
    """The sweep with the finalists at its end."""
    seeds = tuple(sorted({*session.seeds, *final.settings.seeds}))
    return replace(session, space=Sweep([*final.schedules, *final.fresh]), seeds=seeds)
