"""Epochs that a search spends until its front is worth 95, 97 and 99 % of the best, replayed on tables of real steps.

    python -m benchmarks.search_efficiency --replay [--json FILE]
    python -m benchmarks.search_efficiency --size benchmarks/tables/realistic.yaml
    python -m benchmarks.search_efficiency --compute benchmarks/tables/digits.yaml --work FOLDER [--processes 2]

``--replay`` needs no data and no training: each table of ``benchmarks/tables`` holds what every step of a space measured,
for two seeds or three. A search sees one, and its front is scored by the mean of the others, so that luck earns nothing;
100 % is what the front of a search that saw the whole table scores. An epoch count is the first after which the score
stays at its mark. All contestants begin with the same starting points. ``benchmarks.growth`` times it at many points.
``--size`` tells what computing a table would take, and computes nothing.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # as a script, only its own folder would be there

import numpy as np
import numpy.typing as npt
import optuna

from benchmarks import step_table
from benchmarks.contestants import AT_FOUR, CONTESTANTS, KNOWING, LIMITS, LOOKING, PLAIN_TPE, TREE_SEARCH
from benchmarks.replay import MARKS, ReplayTree, replay
from benchmarks.step_table import SEEDS, StepTable
from benchmarks.stopping import left_by
from search.study import load_study

TABLES = ("digits", "cifar10")
REPLAYS = 21
MOST_EPOCHS = 8000
GOAL = 12
AFTER = (500, 1000, 2000)
GRID = np.unique(np.geomspace(5, MOST_EPOCHS, 120).round())
"""Epochs at which the curves are kept."""
FIGURE = Path(__file__).parent / "figures" / "search_efficiency.png"

Result = dict[str, Any]
Job = tuple[str, str, int, int]
"""(table, contestant, trials in flight, number of the replay)"""


def one(most_epochs: float, job: Job) -> Result:
    """Replay one search; its number is the sampler's seed and says which of the table's seeds it sees."""
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    name, contestant, at_once, number = job
    table = step_table.read(name)
    make = CONTESTANTS[contestant](table.space, number)
    found = replay(table, number % len(table.dense), make, at_once, most_epochs, LIMITS.get(contestant))
    return {
        "job": list(job),
        "most_epochs": most_epochs,
        "reached": {str(mark): found.reached(mark) if np.isfinite(found.reached(mark)) else None for mark in MARKS},
        "end": found.epochs[-1],
        "curve": [round(value, 4) for value in found.at(GRID)],
        "choosing": round(float(np.mean(found.seconds)), 4),
    }


def jobs(tables: Sequence[str], contestants: Sequence[str], replays: int) -> Iterator[Job]:
    """Everything to be replayed; some contestants take part with one trial in flight only."""
    for number in range(replays):
        for table in tables:
            for at_once in (1, 4):
                for contestant in contestants:
                    if (at_once == 1 or contestant in AT_FOUR) and (contestant not in LOOKING or _has_looks(table, number)):
                        yield table, contestant, at_once, number


@cache
def _has_looks(table: str, number: int) -> bool:
    """Whether the seed that a replay sees was computed with looks."""
    recalibrated = step_table.read(table).recalibrated
    return bool(np.isfinite(recalibrated[number % len(recalibrated)]).any())


def run(wanted: Sequence[Job], processes: int, kept: Path | None, most_epochs: int = MOST_EPOCHS) -> list[Result]:
    """Results of all jobs; those of as many epochs in the file ``kept`` are not replayed again, and new ones are added."""
    lines = kept.read_text().splitlines() if kept is not None and kept.exists() else []
    done = {tuple(result["job"]): result for result in map(json.loads, lines) if result.get("most_epochs") == most_epochs}
    left = [job for job in wanted if job not in done]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for result in pool.imap_unordered(partial(one, most_epochs), left):
            done[tuple(result["job"])] = result
            if kept is not None:
                with kept.open("a") as file:
                    file.write(json.dumps(result) + "\n")
    return [done[job] for job in wanted]


def summary(results: Sequence[Result], most_epochs: int = MOST_EPOCHS) -> dict[str, Any]:
    """Median and quartiles of the epochs to each mark, and plain TPE's median over ours, by table and trials in flight.

    Beside them is the median score after so many epochs (``AFTER``), which also tells of those that reach no mark.

    None stands for more epochs than a replay goes on for (or more trials, see ``LIMITS``); ``not_reached`` says of which
    medians. A ratio to a median that is None
    counts those epochs instead of it, so it is a lower bound, and is listed as one.
    """
    tables: dict[str, Any] = {}
    for name, at_once in dict.fromkeys((result["job"][0], result["job"][2]) for result in results):
        mine = [result for result in results if (result["job"][0], result["job"][2]) == (name, at_once)]
        contestants = list(dict.fromkeys(result["job"][1] for result in mine))
        runs = {contestant: [r for r in mine if r["job"][1] == contestant] for contestant in contestants}
        epochs = {c: {str(mark): _quartiles(some, mark) for mark in MARKS} for c, some in runs.items()}
        choosing = {c: float(np.median([r["choosing"] for r in some])) for c, some in runs.items()}
        key = name if at_once == 1 else f"{name}, {at_once} in flight"
        tables[key] = {
            "epochs": epochs, "not_reached": not_reached(epochs, most_epochs), "seconds_per_trial_choosing": choosing,
            "scores": {c: {str(after): _score(some, after) for after in AFTER} for c, some in runs.items()},
            **_ratios(epochs, most_epochs),
        }  # fmt: skip
    return {"replays": len({r["job"][3] for r in results}), "most_epochs": most_epochs, "goal": GOAL, "tables": tables}


def _score(results: Sequence[Result], after: int) -> float:
    """The median of the scores at the last point of the curves until then."""
    return float(np.median([result["curve"][int(np.searchsorted(GRID, after, side="right")) - 1] for result in results]))


def not_reached(epochs: Mapping[str, Mapping[str, Sequence[float | None]]], most_epochs: int) -> dict[str, str]:
    """Of each contestant whose median is None at a mark: the lowest such mark, and when its replays were broken off."""
    missed = {}
    for contestant, marks in epochs.items():
        lowest = next((mark for mark, values in marks.items() if values[0] is None), None)
        if lowest is not None:
            end = f"{LIMITS[contestant]} trials" if contestant in LIMITS else f"{most_epochs:,} epochs"
            missed[contestant] = f"{float(lowest):.0%} not reached in {end}"
    return missed


def _quartiles(results: Sequence[Result], mark: float) -> list[float | None]:
    reached = [np.inf if (value := result["reached"][str(mark)]) is None else value for result in results]
    found = np.quantile(reached, [0.5, 0.25, 0.75], method="nearest")
    return [float(value) if np.isfinite(value) else None for value in found]


def _ratios(epochs: Mapping[str, Mapping[str, Sequence[float | None]]], most_epochs: int) -> dict[str, Any]:
    if PLAIN_TPE not in epochs or TREE_SEARCH not in epochs:
        return {}
    ratios, bounds = {}, []
    for mark in map(str, MARKS):
        plain, ours = epochs[PLAIN_TPE][mark][0], epochs[TREE_SEARCH][mark][0]
        ratios[mark] = None if ours is None else round((plain or most_epochs) / ours, 1)
        bounds += [mark] if plain is None else []
    return {"ratio_to_plain_tpe": ratios, "ratio_is_lower_bound_at": bounds}


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The summary as text: median (quartiles) of the epochs to each mark."""
    for name, table in found["tables"].items():
        head = f"{name} ({found['replays']} replays)"
        after = "".join(f"{f'at {epochs:,}':>10}" for epochs in AFTER)
        yield f"{head:32}" + "".join(f"{f'{mark:.0%}':>24}" for mark in MARKS) + "    s/trial" + after
        for contestant, marks in table["epochs"].items():
            cells = "".join(f"{_cell(marks[str(mark)], contestant, found['most_epochs']):>24}" for mark in MARKS)
            scores = "".join(f"{score:>10.1%}" for score in table["scores"][contestant].values())
            yield f"  {contestant:30}{cells}{table['seconds_per_trial_choosing'][contestant]:>11.3f}{scores}"
        if "ratio_to_plain_tpe" in table:
            at_least = table["ratio_is_lower_bound_at"]
            ratios = [
                "" if r is None else (">= " if m in at_least else "") + f"{r} times"
                for m, r in table["ratio_to_plain_tpe"].items()
            ]
            yield f"  {f'{TREE_SEARCH} against plain TPE':30}" + "".join(f"{ratio:>24}" for ratio in ratios)


def stopping_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What each rule that stops trials leaves of a table: the range over its seeds."""
    for name, rules in found.items():
        for rule, seeds in rules.items():
            shares = {key: [seed[key] for seed in seeds] for key in seeds[0]}
            cells = [f"{min(some):.1%} to {max(some):.1%} of the {key}" for key, some in shares.items()]
            yield f"{name}, every trial stopped {rule}: leaves {', '.join(cells)}"


def readme_rows(found: Mapping[str, Any]) -> Iterator[str]:
    """The rows of the README's table: medians of the epochs to 97 and 99 %, and the ratios."""
    shown = (PLAIN_TPE, TREE_SEARCH, KNOWING)
    for name, table in found["tables"].items():
        if not table["epochs"].keys() >= set(shown):
            continue
        medians = [
            " / ".join(_median(table["epochs"][contestant][mark][0], found["most_epochs"]) for mark in ("0.97", "0.99"))
            for contestant in shown
        ]
        ratios = " / ".join(str(table["ratio_to_plain_tpe"][mark] or "–") for mark in ("0.97", "0.99"))
        yield f"| {name} | {medians[0]} | {medians[1]} | {ratios} | {medians[2]} |"


def _median(value: float | None, most_epochs: int) -> str:
    return f"> {most_epochs:,}" if value is None else f"{value:,.0f}"


def _cell(values: Sequence[float | None], contestant: str, most_epochs: int) -> str:
    never = f"> {LIMITS[contestant]} trials" if contestant in LIMITS else f"> {most_epochs:,}"
    median, low, high = (None if value is None else f"{value:,.0f}" for value in values)
    return never if low is None else f"{median or never} ({low} - {high or '…'})"


def figure(results: Sequence[Result], file: Path, most_epochs: int = MOST_EPOCHS) -> None:
    """The median score against the epochs spent, one trial in flight: ours against others, and against itself changed."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    tables = list(dict.fromkeys(result["job"][0] for result in results))
    taking_part = list(dict.fromkeys(result["job"][1] for result in results))
    changed = [contestant for contestant in taking_part if contestant.startswith(TREE_SEARCH) or "stopped" in contestant]
    others = [contestant for contestant in taking_part if contestant not in changed or contestant in (TREE_SEARCH, KNOWING)]
    rows = [others, changed] if set(changed) > {TREE_SEARCH, KNOWING} else [others]
    size = (6 * len(tables), 4 * len(rows))
    canvas, axes = plt.subplots(len(rows), len(tables), figsize=size, sharex=True, sharey=True, squeeze=False)
    for row, contestants in zip(axes, rows, strict=True):
        for axis, name in zip(row, tables, strict=True):
            for number, contestant in enumerate(contestants):
                mine = [r for r in results if r["job"][:3] == [name, contestant, 1]]
                colour, style = f"C{number % 10}", "-" if number < 10 else "--"
                if contestant == TREE_SEARCH:
                    axis.plot(GRID, _median_curve(mine), label=contestant, lw=2.5, color="black", zorder=3)
                elif mine:
                    axis.plot(GRID, _median_curve(mine), label=contestant, lw=1.3, color=colour, ls=style)
            axis.set(xscale="log", xlim=(10, most_epochs), ylim=(0.5, 1.02), title=name)
            axis.grid(alpha=0.3)
        row[0].set_ylabel("hypervolume, share of the whole table's")
        row[-1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    for axis in axes[-1]:
        axis.set_xlabel("epochs spent")
    file.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(file, dpi=120, bbox_inches="tight")
    plt.close(canvas)


def _median_curve(results: Sequence[Result]) -> npt.NDArray[np.float64]:
    return np.asarray(np.median([_seen(result) for result in results], axis=0))


def _seen(result: Result) -> npt.NDArray[np.float64]:
    """The curve of a replay, without what comes after its end if it was cut off."""
    return np.where((result["job"][1] in LIMITS) & (result["end"] < GRID), np.nan, result["curve"])


def size(table: StepTable) -> tuple[int, int, int]:
    """Steps and points (a step in a stored form) of a table for each seed, and the epochs of all seeds, dense ones too."""
    tree = ReplayTree(table)
    lasts = (table.chain(schedule)[-1] for schedule in table.steps.values())
    epochs = {node.id: tree.epochs_of(node) for last in lasts for node in last.own_nodes}
    whole = len(SEEDS) * (table.study.dense.epochs + sum(epochs.values()))
    return len(table.steps), len(table.steps) * len(table.study.storage_forms), whole


def main() -> None:
    """Compute a table, or replay those that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--replay", action="store_true", help="replay the stored tables")
    what.add_argument("--compute", type=Path, metavar="STUDY.yaml", help="compute the table of a study's space")
    what.add_argument("--size", type=Path, metavar="STUDY.yaml", help="count the steps, points and epochs of its table")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the study")
    parser.add_argument("--work", type=Path, default=Path("results/scratch-tables"), help="folder of steps on the way")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="those to compute (default 0 1 2); others stay")
    parser.add_argument("--processes", type=int, default=2, help="processes of one thread each (default 2)")
    parser.add_argument("--tables", nargs="+", default=TABLES, help=f"tables to replay (default {' '.join(TABLES)})")
    parser.add_argument("--contestants", nargs="+", default=list(CONTESTANTS), metavar="NAME", help="default: all")
    parser.add_argument("--replays", type=int, default=REPLAYS, help=f"replays of each (default {REPLAYS})")
    parser.add_argument("--epochs", type=int, default=MOST_EPOCHS, help=f"most epochs of a replay (default {MOST_EPOCHS})")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="file of finished replays, to go on from")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--figure", type=Path, default=FIGURE, help="file for the figure")
    arguments = parser.parse_args()
    if arguments.compute:
        given = (arguments.compute, arguments.set, arguments.work, arguments.processes)
        print(step_table.compute(*given, seeds=arguments.seeds))
        return
    if arguments.size:
        steps, points, epochs = size(step_table.planned(load_study(arguments.size, arguments.set)))
        print(f"{steps:,} steps and {points:,} points a seed; {epochs:,} epochs for {len(SEEDS)} seeds")
        return
    wanted = list(jobs(arguments.tables, arguments.contestants, arguments.replays))
    results = run(wanted, arguments.processes, arguments.keep, arguments.epochs)
    found = summary(results, arguments.epochs) | {
        "left_by_stopping": {name: left_by(step_table.read(name)) for name in arguments.tables}
    }
    print("\n".join([*lines(found), *stopping_lines(found["left_by_stopping"]), *readme_rows(found)]))
    figure(results, arguments.figure, arguments.epochs)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
