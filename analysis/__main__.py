"""Command line: ``python -m analysis report results/<study>``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.load import load_study
from analysis.pareto import front
from analysis.report import write_report
from analysis.tables import front_table
from trainables.names import InputError

# What fits a terminal of 80 columns; the page has the rest.
NUMBERS = ("compression", "accuracy")
STEP_ID, FAMILY, RECIPE = "step id", "family", "recipe"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 2 says that what it was given cannot be used."""
    options = _parser().parse_args(arguments)
    try:
        report(options.folder)
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def report(folder: Path) -> None:
    """Write the report of the study in this folder and show its front."""
    study = load_study(folder)
    path = write_report(study)
    best = front(study.pruned, study.objectives, study.dense)
    console = Console()
    console.print(_shown(front_table(best), f"Front of {study.name}"))
    print(f"report: {path}")


def _shown(rows: pd.DataFrame, title: str) -> Table:
    # Text objects, because rich would take brackets in a string for markup.
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE, pad_edge=False)
    for heading in NUMBERS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(STEP_ID, no_wrap=True)
    table.add_column(RECIPE)
    for row in rows.to_dict("records"):
        cells = (*(row[heading] for heading in NUMBERS), row[STEP_ID], f"{row[FAMILY]}: {row[RECIPE]}")
        table.add_row(*(Text(str(cell)) for cell in cells))
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis", description="Look at what a study found.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "report",
        help="write a study's report and show its front",
        description="Write index.html, figures and tables to <folder>/report and show the front. Nothing is computed "
        "again: only what lies in the folder is read, so a study may still be running.",
    )
    command.add_argument("folder", type=Path, help="the study's folder, for example results/quickstart")
    return parser


if __name__ == "__main__":
    sys.exit(main())
