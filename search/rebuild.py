"""What a study's own files said, made again from its steps.

Each record tells the trial it was computed for. So where Optuna's study is lost, trials are taken up again, every one under
its number, and find all their steps. A trial for which nothing was computed, because others under way at the same time had
each of its steps, leaves no record: only ``trials.jsonl`` knows of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial
from pydantic import ValidationError

from search.ledger import Ledger
from search.space import Space
from trainables import names as n
from trainables.names import InputError
from trainables.schedule import FAMILIES, Schedule
from trainables.settings import parse
from trainables.walk import ASKED, Tree

AT_ONCE = 16


def forget_untold(folder: Path) -> bool:
    """Whether Optuna's study is lost. Where the points are, it goes too: it would never ask again for what it was told."""
    if not (folder / n.POINTS_FILE).exists():
        (folder / n.OPTUNA_FILE).unlink(missing_ok=True)
    return not (folder / n.OPTUNA_FILE).exists()


def lost_trials(tree: Tree, ledger: Ledger) -> dict[int, Schedule]:
    """The trials on record, and those that steps were computed for, by number."""
    # A store far away answers in tens of milliseconds, and a study may have ten thousand steps.
    with ThreadPoolExecutor(AT_ONCE) as pool:
        records = list(pool.map(tree.known, tree.store.ids()))
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


def lost_rows(lost: Mapping[int, Schedule], space: Space) -> Iterator[FrozenTrial]:
    """The trials that are schedules of this space, as rows of Optuna's study that are still under way."""
    for number, schedule in lost.items():
        try:
            fixed = FixedTrial(space.params(schedule))
            space.schedule(fixed)
        except (ValueError, InputError, ValidationError):
            continue
        yield create_trial(
            state=TrialState.RUNNING, params=fixed.params, distributions=fixed.distributions, user_attrs={n.TRIAL: number}
        )
