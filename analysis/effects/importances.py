"""How much each setting mattered, by Optuna's PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023).

PED-ANOVA compares how the values of a setting are spread among the best networks with how they are spread among all, so it
needs only ranks, takes any mix of kinds of settings, and is fast. fANOVA (Hutter et al., ICML 2014) fits a forest to the
values instead; Optuna's leaves out settings that only some networks have, such as sparse epochs.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

import trainables.records.names as n
from analysis.effects.family import SETTINGS, Family, contribution, shortfall
from trainables.records.fronts import Floats

if TYPE_CHECKING:
    import optuna

Labels = npt.NDArray[np.intp]

BEST_SHARE = 0.25
# A setting counts if at most one of these shuffles reaches as much, which by chance happens once in 25 times. Not none of
# them: what PED-ANOVA says of values that few networks have can be far off, and one such shuffle would hide everything.
SHUFFLES = 49
# What is decided here is decided by 500 networks; the rest would cost time and change nothing.
LARGEST_SAMPLE = 500
# Networks are held against those of similar compression: groups of at least this size.
PEERS, MOST_GROUPS = 8, 10

FRONT = "hypervolume"
# Columns of the table of importances.
SETTING, TARGET, SHARE, CHANCE = "setting", "target", "share", "chance"
COLUMNS = (n.FAMILY, TARGET, SETTING, SHARE, CHANCE)


def importances(family: Family) -> pd.DataFrame:
    """For each target and varied setting its share of all importance, and the share that one shuffle in 25 reaches."""
    family = _sample(family)
    settings = family.varied
    if not settings:
        return pd.DataFrame(columns=list(COLUMNS))
    with _quiet():
        study = _study(family, settings)
        tables = [_table(study, settings, name, ranks, chains_of(family)) for name, ranks in targets(family).items()]
    return pd.concat(tables, ignore_index=True).assign(**{n.FAMILY: family.name})[list(COLUMNS)]


def targets(family: Family) -> dict[str, Floats]:
    """What each network is ranked by, from 0 (worst) to 1 (best): each objective's gain, and its worth to the front.

    Worth to the front is the rank among networks of similar compression by hypervolume contribution and, as most
    contribute nothing, by shortfall. Without the groups those that were hardly compressed would be best: all are close to
    the front there, whatever their settings.
    """
    columns = {one.name: family.gains[:, family.axes.index(one)] for one in family.objectives}
    ranks = {name: _ranks(column) for name, column in columns.items()}
    added = contribution(family.gains[:, [family.axes.index(one) for one in family.objectives]])
    # Lexicographic: whatever adds to the hypervolume is above whatever does not.
    worth = np.where(added > 0, 1.0 + added, -shortfall(family.plane))
    return ranks | {FRONT: _ranks_among_peers(worth, family.gains[:, 1])}


def _ranks(values: Floats) -> Floats:
    # The last digits of floats must not decide.
    ranks: Floats = (rankdata(np.round(values, 12)) - 0.5) / max(len(values), 1)
    return ranks


def _ranks_among_peers(values: Floats, gains: Floats) -> Floats:
    groups = min(MOST_GROUPS, max(1, len(values) // PEERS))
    ranks = np.empty(len(values))
    for members in np.array_split(np.argsort(gains, kind="stable"), groups):
        ranks[members] = _ranks(values[members])
    return ranks


def _sample(family: Family) -> Family:
    if len(family.points) <= LARGEST_SAMPLE:
        return family
    # The front is the whole family's; only what is compared is a sample, so the targets would differ: keep the front.
    added = contribution(family.plane) > 0
    others = np.flatnonzero(~added)
    front = np.flatnonzero(added)[:LARGEST_SAMPLE]
    drawn = np.random.default_rng(0).choice(others, LARGEST_SAMPLE - len(front), replace=False)
    kept = np.sort(np.concatenate([front, drawn]))
    points = family.points.iloc[kept].reset_index(drop=True)
    return Family(family.name, points, family.gains[kept], family.axes, family.objectives)


def chains_of(family: Family) -> Labels:
    """The number of each network's chain: those that differ in nothing but their steps."""
    columns = [column for column in SETTINGS.values() if column != n.STEP]
    chains: Labels = family.points.groupby([*columns, n.SEED], dropna=False, sort=False).ngroup().to_numpy().astype(np.intp)
    return chains


def _table(study: optuna.Study, settings: list[str], target: str, ranks: Floats, chains: Labels) -> pd.DataFrame:
    found = _evaluate(study, settings, ranks)
    shuffled = np.array([_evaluate(study, settings, mixed) for mixed in _shuffles(ranks, chains)])
    by_chance = np.sort(shuffled, axis=0)[-2]
    total = found.sum() or 1.0
    return pd.DataFrame({TARGET: target, SETTING: settings, SHARE: found / total, CHANCE: by_chance / total})


def _shuffles(ranks: Floats, chains: Labels) -> Iterator[Floats]:
    """Ranks as they would be if no setting mattered: chains, whose steps are much alike, swap their levels as a whole."""
    draw = np.random.default_rng(0)
    levels = np.bincount(chains, weights=ranks) / np.bincount(chains)
    remainders = ranks - levels[chains]
    for _ in range(SHUFFLES):
        yield draw.permutation(levels)[chains] + draw.permutation(remainders)


def _study(family: Family, settings: list[str]) -> optuna.Study:
    """The networks as trials of a study in memory; a setting that a network does not have is no parameter of its."""
    import optuna  # noqa: PLC0415 - loading it takes a second that only a report of enough networks needs

    columns = {setting: family.values(setting) for setting in settings}
    domains = {setting: optuna.distributions.CategoricalDistribution(_choices(c)) for setting, c in columns.items()}
    records = pd.DataFrame(columns).astype(object).to_dict("records")
    study = optuna.create_study()
    study.add_trials([_trial({str(k): v for k, v in record.items() if pd.notna(v)}, domains) for record in records])
    return study


def _choices(column: pd.Series) -> list[Any]:
    return sorted(column.dropna().astype(object).unique())


def _trial(params: dict[str, Any], domains: dict[str, Any]) -> optuna.trial.FrozenTrial:
    import optuna  # noqa: PLC0415 - as above

    return optuna.create_trial(params=params, distributions={name: domains[name] for name in params}, value=0.0)


def _evaluate(study: optuna.Study, settings: list[str], ranks: Floats) -> Floats:
    import optuna  # noqa: PLC0415 - as above

    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
    found = optuna.importance.get_param_importances(
        study, evaluator=evaluator, params=settings, normalize=False,
        # PED-ANOVA takes low values for good ones.
        target=lambda trial: -float(ranks[trial.number]),
    )  # fmt: skip
    return np.array([found[setting] for setting in settings])


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna announces each study and reminds, at each evaluation, that low targets are good."""
    import optuna  # noqa: PLC0415 - as above

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
