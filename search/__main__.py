"""The command line: ``python -m search run``, ``confirm`` and ``export``."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from search.cluster.interrupts import GO_ON, INTERRUPTED, STOPPED, two_interrupts
from search.study import describe, load_study
from trainables.exporting.formats import FORMATS
from trainables.records import names as n
from trainables.records.jsonl import Row
from trainables.records.names import InputError, StoppedError
from trainables.records.objectives import Objective
from trainables.records.points import point_id
from trainables.records.words import recipe
from trainables.settings import one_line
from trainables.storage.base import STORAGE_ERRORS
from trainables.training.retraining import RETRAININGS


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 if it went well, 2 for input that can't be used, 3 if it had to stop, 130 if interrupted."""
    options = _parser().parse_args(arguments)
    try:
        with two_interrupts():
            options.command(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except StoppedError as error:
        print(f"error: {error}. {GO_ON}", file=sys.stderr)
        return STOPPED
    except OSError as error:  # a full disk, a folder of someone else's: nothing that this program did wrong
        print(f"error: {one_line(error)}", file=sys.stderr)
        return STOPPED if error.errno in STORAGE_ERRORS else 2
    except KeyboardInterrupt:
        print(f"Interrupted. {GO_ON}", file=sys.stderr)
        return INTERRUPTED
    return 0


def run_and_exit() -> None:
    """Run the command of this process, and end with its status."""
    status = main()
    if status == INTERRUPTED:
        sys.stdout.flush()
        os._exit(status)  # a Ray that was interrupted while it started may crash the interpreter on its way out
    sys.exit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m search", description="Find the Pareto front of accuracy against compression of a network."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run", help="run a study, or go on with it", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run a study file. The same command goes on with a study that was interrupted (exit status 130) or had "
        "to stop (3).",
        epilog=_fields(),
    )  # fmt: skip
    run.add_argument("study", help="a study file, for example search/studies/quickstart.yaml")
    run.add_argument(
        "--address",
        metavar="HOST:PORT|auto",
        help="run on the Ray cluster there, from one of its nodes; default: here alone",
    )
    _common(run)
    run.set_defaults(command=_run)
    confirm = commands.add_parser(
        "confirm", help="measure test accuracy, of the front or of a sweep's schedules",
        description="Open the test split, once, for the front of a search, or for the schedules that a sweep names in "
        "advance (of recipes that compete for its final, for the finalists alone). Writes confirmed.jsonl; what was "
        "confirmed before is not opened again.",
    )  # fmt: skip
    confirm.add_argument("folder", help="a study's folder, results/<study>, or its URL")
    confirm.add_argument("--stored-only", action="store_true", help="pass over networks whose weights aren't on disk")
    _common(confirm)
    confirm.set_defaults(command=_confirm)
    export = commands.add_parser("export", help="write one point's network to a file of its own")
    export.add_argument("folder", help="a study's folder, results/<study>, or its URL")
    export.add_argument(
        "--point",
        required=True,
        metavar="ID",
        help="the point's step_id, or the beginning of it, and after a colon a stored form; fp32 without one",
    )
    export.add_argument(
        "--format", metavar="NAME", help=f"{FORMATS.help()} [default: safetensors for fp32, compact for other forms]"
    )
    export.add_argument("--to", required=True, type=Path, metavar="FILE", help="the file to write")
    _common(export)
    export.set_defaults(command=_export)
    methods = commands.add_parser("methods", help="list every method that a study can name, as a Markdown table")
    methods.set_defaults(command=_methods)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, e.g. --set search.trials=20"
    )
    parser.add_argument(
        "--allow-code", action="store_true", help="import what is named as your own code (package.module:name)"
    )


def _fields() -> str:
    """Every key of a study file, explained."""
    lines = ["keys of a study file:"]
    for key, text in describe():
        lines.append(f"  {key}")
        lines += textwrap.wrap(text, 110, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _run(options: argparse.Namespace) -> None:
    study = load_study(options.study, options.set, trusted=options.allow_code)
    # Ray takes seconds to import; a mistake in the study file is told before that.
    from search.run import run  # noqa: PLC0415

    console = _console()
    ledger = run(study, console, trusted=options.allow_code, address=options.address)
    console.print(front_table(ledger.front_rows(), study.goals))
    console.print(
        f"{len(ledger.trials)} trials ({ledger.stopped} stopped, {ledger.failed} failed), {ledger.steps_computed} steps "
        f"computed and {ledger.steps_found} found, {ledger.epochs_computed} epochs computed and {ledger.epochs_saved} "
        f"saved by sharing, hypervolume {ledger.hypervolume:.4f}"
    )
    console.print(f"Points: {study.folder}/points.jsonl. Report: python -m analysis report {study.folder}", markup=False)


def front_table(rows: list[Row], objectives: Iterable[Objective] = ()) -> Table:
    """The front, one row a point, as it is shown at the end of a run; objectives of the user's own have a column each."""
    own = [one for one in objectives if one.column not in n.POINT_COLUMNS]
    labels = {name: RETRAININGS[name].described()["label"] for row in rows if (name := row[n.RETRAIN]) in RETRAININGS}
    table = Table(title="Pareto front (validation)", title_justify="left")
    for column in ("accuracy", "compression", "sparsity", *(escape(one.label) for one in own), "recipe", "point"):
        table.add_column(column, no_wrap=column == "point", justify="left" if column in ("recipe", "point") else "right")
    for row in rows:
        table.add_row(
            f"{row[n.ACCURACY]:.2%}",
            f"{row[n.COMPRESSION]:.2f}×",
            f"{row[n.SPARSITY]:.1%}",
            *(f"{row[one.column]:.4g}" for one in own),
            escape(f"{row[n.FAMILY]}: {recipe(row, labels)}"),
            point_id(row),
        )
    return table


def _confirm(options: argparse.Namespace) -> None:
    from search.confirm import confirm  # noqa: PLC0415

    console = _console()
    count = confirm(options.folder, console, options.set, stored_only=options.stored_only, trusted=options.allow_code)
    print(f"Confirmed {count} networks on the test split in {options.folder}/{n.CONFIRMED_FILE}")


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 140)


def _export(options: argparse.Namespace) -> None:
    from search.export import export_point  # noqa: PLC0415

    point, size = export_point(
        options.folder, options.point, options.to, _console(), options.set, options.format, trusted=options.allow_code
    )
    print(f"Wrote point {point} to {options.to} ({size:,} bytes)")


def _methods(_options: argparse.Namespace) -> None:
    from search.methods import table  # noqa: PLC0415

    print("\n".join(table()))


if __name__ == "__main__":
    run_and_exit()
