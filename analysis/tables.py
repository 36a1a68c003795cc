"""Tables for readers: frames of text whose columns are their headings."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

import trainables.records.names as n
from analysis import words
from analysis.columns import point_ids
from analysis.confirmed import Confirmed
from analysis.load import Study
from analysis.pareto import ACCURACY_DROP, HYPERVOLUME, best_at_drops
from analysis.summary import POINTS, Summary, by_importance, failures
from trainables.records.confirmation import Member
from trainables.records.objectives import ACCURACY, Objective, Quality
from trainables.records.points import point_id
from trainables.records.words import recipe

# Drops of accuracy, as shares, that a reader may be ready to pay.
DROPS = (0.0, 0.005, 0.01, 0.02)
OF_REFERENCE = (0.0, 0.05, 0.1, 0.2)
"""The same of a measure that is no share, as shares of how far the hypervolume's reference is away."""
STORED = "stored as"
AGAIN = {"value": "on fresh seeds", "lost": "lost to dense", "to_control": "lost to dense, trained as long"}
"""What is told of a member over fresh seeds (``Seen``), and its heading."""


def front_table(
    best: pd.DataFrame,
    objectives: Sequence[Objective] = (),
    retrainings: Mapping[str, str] | None = None,
    measure: Quality = ACCURACY,
) -> pd.DataFrame:
    """The front in words and rounded numbers, a row a network; ``objectives`` of others have a column of their own."""
    table = pd.DataFrame(
        {
            "compression": best[n.COMPRESSION].map(words.times),
            measure.name: best[measure.column].map(partial(words.quality, measure)),
            "before retraining": best[measure.before].map(partial(words.quality, measure)),
            "family": best[n.FAMILY],
            "recipe": [recipe(row, retrainings) for row in best.to_dict("records")],
            STORED: best[n.FORM],
            "sparsity": best[n.SPARSITY].map(words.percent),
            "requested": best[n.REQUESTED_SPARSITY].map(words.percent),
            "MACs": best[n.MACS].map(words.amount),
            "latency (ms)": best[n.LATENCY].map(words.number),
            **{one.label: best[one.column].map(words.number) for one in own_of(objectives)},
            "epochs": best[n.TOTAL_EPOCHS].map(words.number),
            "seed": best[n.SEED],
            "step id": point_ids(best),
        }
    )
    # A column that says the same in every row only takes room.
    idle = {
        "seed": best[n.SEED].nunique() < 2,
        "latency (ms)": best[n.LATENCY].isna().all(),
        STORED: best[n.FORM].eq(n.FP32).all(),
    }
    return table.drop(columns=[heading for heading, says_nothing in idle.items() if says_nothing])


def again_table(members: Sequence[Member], confirmed: Mapping[str, Confirmed], study: Study) -> pd.DataFrame:
    """The front's members again on fresh seeds, all on the test data: means ± standard deviations over the seeds."""
    measure, rows = study.measure, []
    for one in members:
        told = {name: measure.told_spread(*one.over_seeds(name), change=name != "value") for name in AGAIN}
        tested = confirmed.get(one.point)
        rows.append(
            {
                "compression": words.times(one.row[n.COMPRESSION]),
                "validation": measure.told(one.row[measure.column]),
                "test": words.MISSING if tested is None else measure.told(tested.value),
                **{heading: told[name] for name, heading in AGAIN.items()},
                "on the front": one.chance,
                "seeds": len(one.seen),
                "recipe": f"{one.row[n.FAMILY]}: {recipe(one.row, study.retrainings)}",
                "step id": one.point,
            }
        )
    return pd.DataFrame(rows)


def best_table(study: Study) -> pd.DataFrame:
    """For each drop of accuracy and family, the largest compression and what reached it, or that nothing did."""
    drops, measure = drops_of(study), study.measure
    best = best_at_drops(study.pruned, study.dense, drops, measure=measure).to_dict("records")
    found = {(row[ACCURACY_DROP], row[n.FAMILY]): row for row in best}
    families = [family for family in n.FAMILIES if study.pruned[n.FAMILY].eq(family).any()]
    rows = [
        _best_row(drop, family, found.get((drop, family)), study.retrainings, measure)
        for drop in drops
        for family in families
    ]
    return pd.DataFrame(rows)


def forms_table(study: Study) -> pd.DataFrame:
    """For each drop of accuracy and stored form the largest compression, parted into what the form and what pruning gave.

    The form gave what it does for the dense network of that seed, and pruning the rest.
    """
    roots = {(row[n.SEED], row[n.FORM]): row for row in study.dense_forms.to_dict("records")}
    drops, measure = drops_of(study), study.measure
    best = best_at_drops(study.pruned, study.dense, drops, n.FORM, measure).to_dict("records")
    found = {(row[ACCURACY_DROP], row[n.FORM]): row for row in best}
    rows = []
    for drop, form in itertools.product(drops, study.forms):
        row = {**_given_up(measure, drop), STORED: form}
        point = found.get((drop, form))
        root = roots.get((point[n.SEED], form)) if point else None
        if point is None or root is None:
            rows.append(row | dict.fromkeys(("compression", "by the form", "by pruning", measure.name), words.MISSING))
            continue
        by_form = float(root[n.COMPRESSION])
        parts = {"by the form": words.times(by_form), "by pruning": words.times(point[n.COMPRESSION] / by_form)}
        value = words.quality(measure, point[measure.column])
        rows.append(row | {"compression": words.times(point[n.COMPRESSION]), **parts, measure.name: value})
    return pd.DataFrame(rows)


def dense_forms_table(study: Study) -> pd.DataFrame:
    """The dense networks in each stored form, means over seeds: what no pruning is needed for."""
    measure = study.measure
    means = study.dense_forms.groupby(n.FORM)[[n.COMPRESSION, measure.column]].mean().reindex(list(study.forms))
    return pd.DataFrame(
        {
            STORED: means.index,
            "compression": means[n.COMPRESSION].map(words.times).to_list(),
            measure.name: means[measure.column].map(partial(words.quality, measure, digits=2)).to_list(),
        }
    )


def headline(summary: Summary) -> dict[str, str]:
    """What the study did, as label -> number."""
    return {
        "trials": f"{summary.trials:,}",
        "networks computed": f"{summary.computed:,}",
        "found, not computed again": f"{summary.found:,}",
        "hypervolume": words.number(summary.hypervolume, 4),
        "epochs computed": words.number(summary.epochs, 4),
        "epochs saved by reuse": words.number(summary.saved, 4),
        "hours of computing": words.number(summary.hours),
    }


def importance_table(study: Study) -> pd.DataFrame:
    """What each importance reaches alone."""
    table = by_importance(study)
    table[POINTS] = table[POINTS].map(str)
    return table.assign(**{HYPERVOLUME: table[HYPERVOLUME].map(words.number)})


def failure_table(study: Study) -> pd.DataFrame:
    """The trials that failed and why."""
    failed = failures(study)
    schedules = failed[n.SCHEDULE].map(lambda schedule: json.dumps(schedule, ensure_ascii=False))
    return failed.assign(**{n.REASON: failed[n.REASON].fillna("not recorded"), n.SCHEDULE: schedules}).astype(str)


def provenance_table(provenance: Mapping[str, Any]) -> pd.DataFrame:
    """Nested settings as one row a value, keys joined with dots; then what was otherwise in earlier runs."""
    now = dict(_flat({name: value for name, value in provenance.items() if name not in (n.HISTORY, n.PROTECTED)}))
    return pd.DataFrame([*now.items(), *_otherwise(provenance.get(n.HISTORY), now)], columns=["what", "value"])


def protected_table(provenance: Mapping[str, Any]) -> pd.DataFrame:
    """What each family leaves whole, and why, a row a line of the run's; no rows where all of the network may go."""
    families = provenance.get(n.PROTECTED)
    found = families.items() if isinstance(families, dict) else ()
    told = ((family, entry.get("told")) for family, entry in found if isinstance(entry, dict))
    rows = [(family, str(line)) for family, lines in told if isinstance(lines, list) for line in lines]
    return pd.DataFrame(rows, columns=["family", "what"])


def _otherwise(history: Any, now: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for entry in history if isinstance(history, list) else ():
        if isinstance(entry, dict):
            sections = {name: value for name, value in entry.items() if isinstance(value, dict)}
            runs = f"from run {entry.get('first')}: "
            yield from ((f"{runs}{name}", value) for name, value in _flat(sections) if now.get(name, value) != value)


def drops_of(study: Study) -> tuple[float, ...]:
    """How much worse than the dense network's the measure may be, for a reader to choose from."""
    return DROPS if study.measure.is_share else tuple(share * study.accuracy_drop for share in OF_REFERENCE)


def own_of(objectives: Sequence[Objective]) -> list[Objective]:
    """Those of the user's own."""
    return [one for one in objectives if one.column not in n.POINT_COLUMNS and not one.quality]


def _given_up(measure: Quality, drop: float) -> dict[str, str]:
    return {f"{measure.name} given up": measure.told_drop(drop) if drop else "none"}


def _best_row(
    drop: float, family: str, point: Mapping[Any, Any] | None, retrainings: Mapping[str, str], measure: Quality
) -> dict[str, str]:
    row = {**_given_up(measure, drop), "family": family}
    if point is None:
        return row | {"compression": words.MISSING, measure.name: words.MISSING, "recipe": "none keeps it", "step id": ""}
    return row | {
        "compression": words.times(point[n.COMPRESSION]),
        measure.name: words.quality(measure, point[measure.column]),
        "recipe": recipe(point, retrainings),
        "step id": point_id(point),
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
