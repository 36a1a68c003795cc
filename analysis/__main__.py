"""Command line: ``python -m analysis report results/<study>``, and ``compare`` for a sweep."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.best import answer, limits_of
from analysis.load import load_study
from analysis.pareto import front
from analysis.tables import front_table, own_of
from trainables.records.limits import OF_TIME, Limits
from trainables.records.names import InputError, printable

STEP_ID, FAMILY, RECIPE = "step id", "family", "recipe"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 2 says that what it was given cannot be used."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # something lies where the report belongs, or the disk is full
        print(f"error: {printable(str(error))}; the report can't be written", file=sys.stderr)
        return 2
    return 0


def report(options: argparse.Namespace) -> None:
    """Write the report of the study in a folder and show its front."""
    from analysis.report import write_report  # noqa: PLC0415 - what draws figures takes seconds to import

    study = load_study(options.folder)
    path = write_report(study)
    members = front(study.pruned, study.objectives, study.dense, study.dense_forms, study.accuracy_drop)
    console = Console()
    shown = front_table(members, study.objectives, study.retrainings, study.measure)
    own = [one.label for one in own_of(study.objectives)]
    # What fits a terminal of 80 columns; the page has the rest.
    console.print(_shown(shown, f"Front of {study.name}", ["compression", study.measure.name, *own]))
    print(f"report: {path}")


def compare(options: argparse.Namespace) -> None:
    """Write the comparison of the sweep in a folder and show its summary."""
    from analysis.comparison.report import write_comparison  # noqa: PLC0415 - the same

    path, summary = write_comparison(load_study(options.folder))
    print("\n".join(summary))
    print(f"comparison: {path}")


def best(options: argparse.Namespace) -> None:
    """Show the best network within limits, or what comes nearest."""
    study = load_study(options.folder)
    limits = limits_of(study, {name: getattr(options, name) for name in Limits.model_fields})
    for text in answer(study, limits):
        print(text)


def sensitivity(options: argparse.Namespace) -> None:
    """Write the table and the figures of what each layer can lose."""
    from analysis.sensitivity import read_sensitivity, write_sensitivity  # noqa: PLC0415 - the same

    print("\n".join(read_sensitivity(Path(options.folder)).sentences))
    for path in write_sensitivity(Path(options.folder)):
        print(f"sensitivity: {path}")


def _shown(rows: pd.DataFrame, title: str, numbers: Sequence[str]) -> Table:
    # Text objects, because rich would take brackets in a string for markup.
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE, pad_edge=False)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(STEP_ID, no_wrap=True)
    table.add_column(RECIPE)
    for row in rows.to_dict("records"):
        cells = (*(row[heading] for heading in numbers), row[STEP_ID], f"{row[FAMILY]}: {row[RECIPE]}")
        table.add_row(*(Text(str(cell)) for cell in cells))
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis", description="Look at what a study found.")
    add_commands(parser.add_subparsers(required=True, metavar="COMMAND"))
    return parser


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add what there is to look at to a command line's commands; each is called with what was parsed."""
    command = commands.add_parser(
        "report",
        help="write a study's report and show its front",
        description="Write index.html, figures and tables to <folder>/report and show the front. Nothing is computed "
        "again: only what lies in the folder is read, so a study may still be running.",
    )
    command.add_argument("folder", type=Path, help="the study's folder, for example results/quickstart")
    command.set_defaults(command=report)
    command = commands.add_parser(
        "compare",
        help="answer a sweep's questions: its own contrasts, or one-shot, iterative and structured pruning",
        description="Write index.html, comparison.md, figures and the table of contrasts to <folder>/report. What is "
        "compared stands in the folder's study.yaml (arms, contrasts, seeds), and must have run; without contrasts the "
        "exercise's questions are asked, as far as there are networks. Nothing is computed again.",
    )
    command.add_argument("folder", type=Path, help="the sweep's folder, for example results/comparison")
    command.set_defaults(command=compare)
    command = commands.add_parser(
        "best",
        help="the best network within limits, or what comes nearest",
        description="Show the best network of a study within all limits: the best on the measure within limits of size, "
        "and with a limit of the measure alone the smallest. Limits that aren't given are those of the study "
        "file. Only what lies in the folder is read.",
    )
    command.add_argument("folder", type=Path, help="the study's folder, for example results/quickstart")
    for name, field in Limits.model_fields.items():
        told = (field.description or "").replace("%", "%%")
        several: Any = {"action": "append"} if name == OF_TIME else {}
        command.add_argument(f"--{name.replace('_', '-')}", metavar="AMOUNT", help=told, **several)
    command.set_defaults(command=best)
    _add_sensitivity(commands)


def _add_sensitivity(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The figures of what each layer can lose: a command here, and beside search's the end of the one that measures it."""
    if (measuring := commands.choices.get("sensitivity")) is not None:
        measure = measuring.get_default("command")

        def both(options: argparse.Namespace) -> None:
            measure(options)
            sensitivity(options)

        measuring.set_defaults(command=both)
        return
    command = commands.add_parser(
        "sensitivity",
        help="a table and figures of how much each layer can lose",
        description="Write what python -m search sensitivity has measured as a table and a figure for each family to "
        "<folder>/report.",
    )
    command.add_argument("folder", type=Path, help="the study's folder, for example results/quickstart")
    command.set_defaults(command=sensitivity)


if __name__ == "__main__":
    sys.exit(main())
