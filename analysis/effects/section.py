"""The section "What mattered" of the report: its figures, tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure

import trainables.records.names as n
from analysis import words
from analysis.effects import permutation
from analysis.effects.family import FEWEST, Family, families
from analysis.effects.figures import importance_figure, marginal_figure
from analysis.effects.importances import CHANCE, FRONT, LARGEST_SAMPLE, SETTING, SHARE, SHUFFLES, TARGET, importances
from analysis.effects.marginals import LUCK, NETWORKS, SHORTFALL, VALUE, marginals, span
from analysis.effects.sentences import deciding, over, points, validation_images, value_text, verdict
from analysis.figures import Look
from analysis.load import Study
from analysis.pareto import HYPERVOLUME
from trainables.records.objectives import Objective, Quality

IMPORTANCES, MARGINALS = "importances", "marginals"


@dataclass(frozen=True)
class FamilyPart:
    """What is said about one family; without ``figure`` there were too few networks, or nothing varied."""

    name: str
    note: str
    """what decided, or why nothing can be said"""
    figure: str = ""
    verdicts: Mapping[str, str] = field(default_factory=dict)
    """setting -> sentence"""
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class Mattered:
    """The section, ready for the page, with the figures and tables that go beside it."""

    parts: Sequence[FamilyPart]
    importances: pd.DataFrame
    """for readers; empty where there is nothing to say"""
    figures: Mapping[str, Figure]
    tables: Mapping[str, pd.DataFrame]
    """for machines, by the name of the file"""
    shuffles: int = SHUFFLES
    swaps: int = permutation.SHUFFLES
    sample: int = LARGEST_SAMPLE


def what_mattered(study: Study, main: Objective) -> Mattered:
    """Answer which settings mattered and which of their values leads, family by family."""
    found = list(families(study, main))
    told = [family for family in found if family.enough and family.varied]
    mattered = _joined([importances(family) for family in told])
    reached = {family.name: marginals(family) for family in told}
    look = Look(study.measure, study.accuracy_drop)
    figures = {_figure(family): marginal_figure(family, reached[family.name], study.dense, look)
               for family in told if _drawn(family, reached[family.name])}  # fmt: skip
    if told:
        figures[IMPORTANCES] = importance_figure(mattered)
    parts = [_part(study, family, mattered, reached.get(family.name)) for family in found]
    tables = {f"{IMPORTANCES}.csv": mattered, f"{MARGINALS}.csv": _joined(list(reached.values()))} if told else {}
    return Mattered(parts, _importance_rows(mattered), figures, tables)


def _part(study: Study, family: Family, mattered: pd.DataFrame, reached: pd.DataFrame | None) -> FamilyPart:
    if not family.enough:
        note = f"Too few networks to say what mattered: {len(family.points)} measured, {FEWEST} are needed."
        return FamilyPart(family.name, note)
    if reached is None:
        return FamilyPart(family.name, "All networks have the same settings, so there is nothing to compare.")
    figure = _figure(family) if _drawn(family, reached) else ""
    note = deciding(mattered[mattered[n.FAMILY] == family.name])
    rows = _marginal_rows(reached, study.measure)
    return FamilyPart(family.name, note, figure, verdicts(study, family, reached), rows)


def verdicts(study: Study, family: Family, reached: pd.DataFrame) -> dict[str, str]:
    """A sentence for each setting of a family's marginals; the more settings are compared, the more each must show."""
    images = validation_images(study.provenance)
    error = _error(study, images) if images else None
    where = over(family.axes[1], span(family))
    level = permutation.LEVEL / max(1, reached[reached[LUCK].notna()][SETTING].nunique())
    return {
        str(name): verdict(rows, error, images, where, level, study.measure)
        for name, rows in reached.groupby(SETTING, sort=False)
    }


def _error(study: Study, images: int) -> float | None:
    """The standard error of the measure of a network as good as the dense ones; None where it isn't known."""
    measure, dense = study.measure, study.dense
    if measure.counted:
        return measure.noise(float(dense[measure.column].mean()), images)
    known = dense[measure.error].dropna() if measure.error in dense else ()
    return float(max(known)) if len(known) else None


def _drawn(family: Family, reached: pd.DataFrame) -> bool:
    return len(reached) > 0 and span(family) > 0


def _figure(family: Family) -> str:
    return f"{MARGINALS}_{family.name}"


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _importance_rows(table: pd.DataFrame) -> pd.DataFrame:
    """A row a family and setting, a column a target: the share, with what chance reaches."""
    if table.empty:
        return table
    shown = [
        f"{words.percent(share, 0)} ({'above' if share > chance else 'within'} {words.percent(chance, 0)})"
        for share, chance in zip(table[SHARE], table[CHANCE], strict=True)
    ]
    wide = table.assign(**{SHARE: shown}).set_index([n.FAMILY, SETTING, TARGET])[SHARE].unstack(TARGET)
    order = table[[n.FAMILY, SETTING]].drop_duplicates()
    columns = list(table[TARGET].unique())
    rows = wide.loc[pd.MultiIndex.from_frame(order), columns].reset_index()
    rows.columns.name = None
    return rows.rename(columns={FRONT: "hypervolume of the front"})


def _marginal_rows(table: pd.DataFrame, measure: Quality) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "setting": table[SETTING],
            "value": [value_text(row[SETTING], row[VALUE]) for row in table.to_dict("records")],
            "networks": table[NETWORKS].map(str),
            "hypervolume alone": table[HYPERVOLUME].map(words.number),
            "median shortfall": [points(value, measure) for value in table[SHORTFALL]],
        }
    )
