"""How much higher the front of the present space lies than that of an older one, at equal epochs.

    python -m benchmarks.front digits --work FOLDER [--seeds 0 1 2] [--set data.root=data]

Each space of ``benchmarks/front.yaml`` is searched by the same sampler for the same epochs, once a seed: of the
sampler, and of the split of training and validation images, so that each has a dense network of its own. A search
that was begun goes on, and one that has ended is read. The fronts are kept in ``benchmarks/tables``, so that seeds may
be searched apart. Told are validation accuracies at equal bytes, the smallest file within a point of the dense network,
and the hypervolume; differences with a 95 % interval over seeds (Student's t, paired).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import moocore
import numpy as np
import pandas as pd
import seaborn as sns
import yaml
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

import search
from analysis.comparison.statistics import estimate, step_of
from trainables.records import names as n
from trainables.records.words import counted

HOME = Path(__file__).parent
DECLARED = HOME / "front.yaml"
FACTORS, DROP, ROUNDING = (8, 16, 24), 0.01, 1e-9
"""At how many times fewer bytes accuracies are compared, and what a file may cost whose bytes are."""
ACCURACIES = tuple(f"{factor}x" for factor in FACTORS)
SMALLEST, HYPERVOLUME = "smallest", "hypervolume"
SHOWN = np.geomspace(2, 64, 121)
"""How many times fewer bytes the figure goes from and to."""
OF_SEARCH = ["space", "seed", "epochs", "dense", HYPERVOLUME]
"""The columns that all points of a search have in common."""


def main() -> None:
    """Search, write down and draw."""
    declared = yaml.safe_load(DECLARED.read_text())
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("budget", choices=declared["budgets"])
    parser.add_argument("--work", type=Path, required=True, help="folder of the searches")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2), help="default 0 1 2; others stay as they are")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as data.root=data")
    given = parser.parse_args()
    budget, file = declared["budgets"][given.budget], HOME / "tables" / f"front_{given.budget}.csv"
    elsewhere = {"storage": str(given.work.absolute()), **dict(one.split("=", 1) for one in given.set)}
    for seed in given.seeds:
        for space, settings in declared["spaces"].items():
            front = search.run(
                study_of(budget, f"{given.budget}_{space.replace(' ', '_')}_{seed}", settings, seed, elsewhere)
            )
            print(f"{space}, seed {seed}: {front.summary()}", flush=True)
            of = {"space": space, "seed": seed, "epochs": budget["epochs"], HYPERVOLUME: front.hypervolume}
            keep(file, undominated(front.points).assign(**of))
    fronts = pd.read_csv(file)
    file.with_suffix(".md").write_text(told(judged(fronts)))
    drawn(fronts).savefig(HOME / "figures" / f"{file.stem}.png", dpi=150)


def study_of(
    budget: dict[str, Any], name: str, settings: dict[str, Any], seed: int, elsewhere: dict[str, Any]
) -> search.Study:
    """The search of one space with one seed."""
    wanted = {
        **settings, "name": name, "data.split_seed": seed, "keep": "none",
        "search": {"sampler": "tree", "trials": None, "epochs": budget["epochs"], "seed": seed},
    }  # fmt: skip
    return search.Study.load(budget["study"], {**wanted, **elsewhere})


def undominated(points: pd.DataFrame) -> pd.DataFrame:
    """Accuracy and compression of the points that no other beats in both, beside the accuracy of the dense network."""
    dense = points.loc[points[n.FAMILY] == n.DENSE, n.ACCURACY].iloc[0]
    both = points[[n.COMPRESSION, n.ACCURACY]].drop_duplicates()
    kept = both[moocore.is_nondominated(both.to_numpy(), maximise=True)]
    return kept.sort_values(n.COMPRESSION, ignore_index=True).assign(dense=dense)


def keep(file: Path, front: pd.DataFrame) -> None:
    """Write the front of one search, beside those of other spaces and seeds that had as many epochs."""
    before = pd.read_csv(file) if file.exists() else front.iloc[:0]
    of = front.iloc[0]
    other = (before["space"] != of["space"]) | (before["seed"] != of["seed"])
    others = before[other & (before["epochs"] == of["epochs"])]
    whole = pd.concat([one for one in (others, front) if len(one)])[[*OF_SEARCH, n.COMPRESSION, n.ACCURACY]]
    whole.to_csv(file, index=False, float_format="%.5g")


def best(points: pd.DataFrame, factor: float) -> float:
    """The highest accuracy of what has so many times fewer bytes than the dense network, or NaN."""
    return float(points.loc[points[n.COMPRESSION] >= factor, n.ACCURACY].max())


def judged(fronts: pd.DataFrame) -> pd.DataFrame:
    """What each search is judged by, of the seeds with which all spaces were searched."""
    rows = []
    for of, points in fronts.groupby(OF_SEARCH, sort=False):
        common = dict(zip(OF_SEARCH, of, strict=True))
        near = points[points[n.ACCURACY] >= common["dense"] - DROP - ROUNDING]
        accuracies = {f"{factor}x": best(points, factor) for factor in FACTORS}
        rows.append({**common, **accuracies, SMALLEST: near[n.COMPRESSION].max()})
    found = pd.DataFrame(rows)
    return found[found.groupby("seed")["space"].transform("nunique") == found["space"].nunique()]


def told(frame: pd.DataFrame) -> str:
    """The table as Markdown: the means of each space, and how much more the last one has than each other."""
    by = {str(space): rows.set_index("seed") for space, rows in frame.groupby("space", sort=False)}
    columns = {f"{factor}x": (f"% at {factor}× fewer bytes", 100.0) for factor in FACTORS} | {
        SMALLEST: (f"times fewer bytes at dense − {100 * DROP:g} point", 1.0), HYPERVOLUME: ("hypervolume", 1.0),
    }  # fmt: skip
    *others, last = by
    image = step_of(frame["dense"], *(frame[column] for column in ACCURACIES))
    rows = {
        space: [_known(f"{scale * of[column].mean(skipna=False):.2f}") for column, (_, scale) in columns.items()]
        for space, of in by.items()
    }
    for other in others:
        rows[f"{last} less {other}"] = [
            _difference(scale * (by[last][column] - by[other][column]), scale * image if column in ACCURACIES else 0.0)
            for column, (_, scale) in columns.items()
        ]
    lines = [["", *(heading for heading, _ in columns.values())], ["---"] * (1 + len(columns))]
    lines += [[name, *cells] for name, cells in rows.items()]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    seeds, dense = counted(len(by[last]), "seed"), 100 * frame["dense"].mean()
    setting = f"{frame['epochs'].iloc[0]} epochs, means over {seeds}; dense {dense:.2f} %"
    return (
        f"Validation accuracy after {setting}. Differences with 95 % intervals, paired by seed "
        f"(`python -m benchmarks.front`).\n\n{table}\n"
    )


def _difference(pairs: pd.Series, step: float) -> str:
    found = estimate(pairs, step)
    return _known(f"{found.mean:+.2f} ± {found.high - found.mean:.2f}")


def _known(cell: str) -> str:
    """A dash where some seed has nothing so small, or an interval is unknown."""
    return "–" if "nan" in cell else cell


def drawn(fronts: pd.DataFrame) -> Figure:
    """The highest accuracy at so many times fewer bytes: means over seeds, and from the lowest to the highest."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes, searches = figure.subplots(), judged(fronts)
    dense, whole = searches["dense"].mean(), fronts[fronts["seed"].isin(searches["seed"])]
    rows = pd.DataFrame(
        {"space": space, n.COMPRESSION: factor, n.ACCURACY: 100 * best(points, factor)}
        for (space, _), points in whole.groupby(["space", "seed"], sort=False)
        for factor in SHOWN
    )
    reached = rows.groupby(["space", n.COMPRESSION])[n.ACCURACY].transform(lambda some: some.notna().all())
    rows = rows[reached]  # a mean of fewer seeds would be of others than the point before it
    sns.lineplot(rows, x=n.COMPRESSION, y=n.ACCURACY, hue="space", errorbar=("pi", 100), palette="colorblind", ax=axes)
    axes.axhline(100 * dense, color="#888888", linestyle=":", label="dense, fp32")
    axes.set(xscale="log", xlabel="times fewer bytes", ylabel="validation accuracy (%)", ylim=(100 * dense - 15, None))
    axes.set_ylim(top=min(100, axes.get_ylim()[1]))
    axes.set_xticks((2, 4, 8, 16, 32, 64))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(title=None, frameon=False)
    sns.despine(figure)
    return figure


if __name__ == "__main__":
    main()
