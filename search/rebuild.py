"""What a study's own files said, made again from its steps.

Each record tells the trial it was computed for. So a search whose files are lost takes its trials up again, every one under
its number, and finds all their steps; a sweep just runs its list again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial
from pydantic import ValidationError

from search.space import Space
from trainables import names as n
from trainables.names import InputError
from trainables.schedule import FAMILIES, Schedule
from trainables.settings import parse
from trainables.store import Record
from trainables.walk import ASKED, Tree


def forget_untold(folder: Path) -> None:
    """Where the points are lost, Optuna's study goes too: it would never ask again for what it was told."""
    if not (folder / n.POINTS_FILE).exists():
        (folder / n.OPTUNA_FILE).unlink(missing_ok=True)


def lost_trials(space: Space, tree: Tree) -> Iterator[FrozenTrial]:
    """The trials that steps were computed for, as rows of Optuna's study that are still under way, by number."""
    for number, schedule in sorted(_asked(tree).items()):
        try:
            fixed = FixedTrial(space.params(schedule))
            space.schedule(fixed)
        except (ValueError, InputError, ValidationError):
            continue  # no schedule of this space any more
        yield create_trial(
            state=TrialState.RUNNING, params=fixed.params, distributions=fixed.distributions, user_attrs={n.TRIAL: number}
        )


def _asked(tree: Tree) -> dict[int, Schedule]:
    records = (tree.known(step_id) for step_id in tree.store.ids())
    return dict(filter(None, (_asked_by(record) for record in records if record)))


def _asked_by(record: Record) -> tuple[int, Schedule] | None:
    """The trial that a step was computed for, and its schedule; None if the record tells of none that there can be."""
    asked = record.get(ASKED)
    if not isinstance(asked, dict) or type(asked.get(n.TRIAL)) is not int or not isinstance(asked.get(n.SCHEDULE), dict):
        return None
    family = FAMILIES.get(str(asked[n.SCHEDULE].get("family")))
    try:
        return (asked[n.TRIAL], parse(family, asked[n.SCHEDULE], "a step's record")) if family else None
    except InputError:
        return None
