"""The command line: ``python -m search``, and ``pruning-front``, which has what other packages add to it as well."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeAlias

import search
from search import layers
from search.cluster.interrupts import GO_ON, INTERRUPTED, STOPPED, two_interrupts
from search.front import Front, console_here, open_dense
from search.study import Study, describe, key_and_value
from trainables.exporting.formats import FORMATS
from trainables.records import names as n
from trainables.records.names import InputError, StoppedError
from trainables.settings import one_line
from trainables.storage.base import STORAGE_ERRORS

COMMANDS = "pruning_front.commands"
"""The group of entry points (pyproject.toml) that add commands to ``pruning-front``: functions of argparse's subparsers."""


def main(arguments: list[str] | None = None, parser: argparse.ArgumentParser | None = None) -> int:
    """Run one command; 0 if it went well, 2 for input that can't be used, 3 if it had to stop, 130 if interrupted."""
    options = (parser or _parser("python -m search")[0]).parse_args(arguments)
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


def pruning_front() -> None:
    """The console script: these commands, and those that entry points add."""
    parser, commands = _parser("pruning-front")
    for point in entry_points(group=COMMANDS):
        point.load()(commands)
    run_and_exit(parser)


def run_and_exit(parser: argparse.ArgumentParser | None = None) -> None:
    """Run the command of this process, and end with its status."""
    status = main(parser=parser)
    if status == INTERRUPTED:
        sys.stdout.flush()
        os._exit(status)  # a Ray that was interrupted while it started may crash the interpreter on its way out
    sys.exit(status)


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _parser(program: str) -> tuple[argparse.ArgumentParser, Commands]:
    parser = argparse.ArgumentParser(
        prog=program, description="Find the Pareto front of accuracy against compression of a network."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands)
    confirm = _of_study(
        commands, "confirm", _confirm, "measure test accuracy, of the front or of a sweep's schedules",
        "Open the test split, once, for the front of a search, or for the schedules that a sweep names in advance (of "
        "recipes that compete for its final, for the finalists alone). Writes confirmed.jsonl; what was confirmed before "
        "is not opened again.",
    )  # fmt: skip
    confirm.add_argument(
        "--seeds", metavar="K",
        help="first prune and retrain the front's members again on K fresh seeds (2 or more), with controls; resumable",
    )  # fmt: skip
    confirm.add_argument("--address", metavar="HOST:PORT|auto", help="run what --seeds asks for on the Ray cluster there")
    confirm.add_argument("--stored-only", action="store_true", help="pass over networks whose weights aren't on disk")
    _common(confirm)
    _add_export(commands)
    pack = _of_study(
        commands, "pack", _pack, "put the records of a finished study's steps into one file",
        "Put each step.json into steps/records.jsonl.gz, from which all is read as before; the study can be resumed.",
    )  # fmt: skip
    _common(pack)
    _add_sensitivity(commands)
    status = _of_study(
        commands, "status", _status, "report where a study stands, while it runs or afterwards",
        "Trials, points, front, epochs, the time left and the nodes of a study, on any machine that can read it. Nothing "
        "is written.",
    )  # fmt: skip
    _allow_code(status)
    methods = commands.add_parser("methods", help="list every method that a study can name, as a Markdown table")
    methods.add_argument("--keys", action="store_true", help="list every key of a study file instead")
    methods.set_defaults(command=_methods)
    return parser, commands


def _of_study(
    commands: Commands, name: str, command: Callable[[argparse.Namespace], None], told: str, description: str | None = None
) -> argparse.ArgumentParser:
    """A command that takes the folder, or the URL, of a study."""
    parser = commands.add_parser(name, help=told, description=description)
    parser.add_argument("folder", help="a study's folder, results/<study>, or its URL")
    parser.set_defaults(command=command)
    return parser


def _add_run(commands: Commands) -> None:
    run = commands.add_parser(
        "run", help="run a study, or resume it", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run a study file. The same command resumes a study that was interrupted (exit status 130) or had to "
        "stop (3).",
        epilog=_fields(),
    )  # fmt: skip
    run.add_argument("study", help="a study file, for example search/studies/quickstart.yaml")
    run.add_argument(
        "--address",
        metavar="HOST:PORT|auto",
        help="run on the Ray cluster there, from one of its nodes; default: here alone",
    )
    run.add_argument(
        "--target", action="append", default=[], metavar="KEY=SHARE",
        help="begin with schedules that end at a share of the dense network's bytes, params or macs, e.g. macs=0.5",
    )  # fmt: skip
    _common(run)
    run.set_defaults(command=_run)


def _add_export(commands: Commands) -> None:
    export = _of_study(commands, "export", _export, "write one point's network to a file of its own, with a model card")
    export.add_argument(
        "--point",
        required=True,
        metavar="ID",
        help="the point's step_id, or the beginning of it, and after a colon a stored form; fp32 without one",
    )
    export.add_argument(
        "--format", metavar="NAME", help=f"{FORMATS.help()} [default: safetensors for fp32, compact for other forms]"
    )
    export.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE",
        help="a setting of the format, e.g. --option preprocessing=true (`methods` lists them)",
    )  # fmt: skip
    export.add_argument("--force", action="store_true", help="replace the file, and its model card, if they are there")
    export.add_argument("--to", required=True, type=Path, metavar="FILE", help="the file to write")
    _common(export)


def _add_sensitivity(commands: Commands) -> None:
    sensitivity = commands.add_parser(
        "sensitivity", help="report how much each layer can lose, without retraining",
        description="Cut a share of the weights of each layer, and of the channels of each group of layers, alone, and "
        "measure on validation data; nothing is retrained. Writes sensitivity.jsonl; what was measured before is cached.",
    )  # fmt: skip
    sensitivity.add_argument("folder", metavar="STUDY", help="results/<study>, its URL, or a study file")
    sensitivity.add_argument(
        "--shares", metavar="SHARE,...", help="what of a layer is cut, e.g. 0.5,0.9 [default: five each]"
    )
    sensitivity.add_argument(
        "--max-drop", metavar="AMOUNT", help="print model.max_sparsity, by which each layer alone loses no more, e.g. 1"
    )
    _common(sensitivity)
    sensitivity.set_defaults(command=_sensitivity)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, e.g. --set search.trials=20"
    )
    _allow_code(parser)


def _allow_code(parser: argparse.ArgumentParser) -> None:
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
    overrides = [*options.set, *(f"search.targets.{target}" for target in options.target)]
    front = search.run(Study.load(options.study, overrides, allow_code=options.allow_code), address=options.address)
    console = console_here()
    console.print(front.table())
    console.print(front.summary())
    console.print(f"Points: {front.folder}/points.jsonl. Report: python -m analysis report {front.folder}", markup=False)


def _confirm(options: argparse.Namespace) -> None:
    seeds = None if options.seeds is None else _whole("--seeds", options.seeds)
    if options.address and seeds is None:
        raise InputError("--address: nothing runs on a cluster without --seeds; leave it out")
    front = _front(options)
    before = len(front.confirmed)
    count = len(front.confirm(stored_only=options.stored_only, seeds=seeds, address=options.address)) - before
    print(f"Confirmed {count} networks on the test split in {options.folder}/{n.CONFIRMED_FILE}")
    if seeds is not None:
        print(f"Those on fresh seeds are a study of their own: {front.folder / n.CONFIRMATION_FOLDER}")
    told = front.told_confirmed()
    if told:
        console_here().print(*told, sep="\n", markup=False)


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{name}: {text!r} is no whole number; give one such as 5") from None


def _export(options: argparse.Namespace) -> None:
    settings = dict(key_and_value(given, "--option", "preprocessing=true") for given in options.option)
    step_id = _front(options).export(options.point, options.to, form=options.format, options=settings, force=options.force)
    print(f"Wrote point {step_id} to {options.to} ({options.to.stat().st_size:,} bytes), and its model card beside it")


def _pack(options: argparse.Namespace) -> None:
    print(f"Packed the records of all steps in {_front(options).pack()}")


def _sensitivity(options: argparse.Namespace) -> None:
    shares, console, of_file = _shares(options.shares), console_here(), options.folder.endswith((".yaml", ".yml"))
    found = Study.load(options.folder, options.set, allow_code=options.allow_code) if of_file else _front(options)
    study = found if isinstance(found, Study) else found.study
    drop = layers.allowed_drop(options.max_drop, study.measure) if options.max_drop else None
    front, measure = open_dense(found) if isinstance(found, Study) else found, study.measure
    options.folder = str(front.folder)  # what is drawn afterwards
    rows = [{str(key): value for key, value in row.items()} for row in front.sensitivity(shares).to_dict("records")]
    for table in layers.tables(rows, measure):
        console.print(table)
    for line in layers.snippet(rows, measure, drop) if drop else ():
        print(line)
    print(f"Cuts: {front.folder}/{n.SENSITIVITY_FILE}")
    print(f"Which layers carry the loss, with figures: python -m analysis sensitivity {front.folder}")


def _shares(given: str | None) -> list[float]:
    try:
        shares = sorted({float(one) for one in given.split(",")}) if given else []
    except ValueError:
        shares = [0.0]
    if not all(0 < share < 1 for share in shares):
        raise InputError(f"--shares: {given!r} cannot be used; give shares between 0 and 1, such as 0.5,0.9")
    return shares


def _status(options: argparse.Namespace) -> None:
    from search.status import status  # noqa: PLC0415

    for subject, words in status(options.folder, trusted=options.allow_code).items():
        print(f"{subject:<11} {words}")


def _front(options: argparse.Namespace) -> Front:
    return search.load(options.folder, overrides=options.set, allow_code=options.allow_code)


def _methods(options: argparse.Namespace) -> None:
    from search.methods import keys, table  # noqa: PLC0415

    print("\n".join(keys() if options.keys else table()))


if __name__ == "__main__":
    run_and_exit()
