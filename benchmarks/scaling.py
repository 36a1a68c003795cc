"""How a study scales: with workers, with nodes, and with the number of its trials.

    python -m benchmarks.scaling [--rounds 2] [--trials 8] [--many 10000] [--json FILE] [--figure FILE]

*Throughput*: the same sweep of real steps through the real runner at 1, 2 and 4 workers (as many as there are cores), and
the most workers again as two nodes of half the cores; the settings take turns, so that a busy machine slows all of them.
Every run is a process of its own, and core time is read from outside: of the driver, of Ray's processes and of the workers,
less what the workers noted while they pruned, trained and measured (``benchmarks.scaling_run``).

*Length*: a study whose trials sleep a few milliseconds: core time and memory of the driver as it grows. On a busy machine
steps an hour say little, and core time is what to trust: how much of it a step takes beside others, and what share of it is
spent outside the steps. (It rises with load, too, where two threads share a core.)
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.scaling_run import CPU_FOLDER
from trainables.records import names as n

GOAL = 0.05
NUMBERS = Path(__file__).parent / "figures" / "scaling.json"
FIGURE = Path(__file__).parent / "figures" / "scaling.png"
SAMPLERS = ("random", "tree")
POLL = 0.25
SHOWN = ("steps_per_hour", "core_seconds_a_step", "outside_share", "outside_share_after_start", "seconds_a_trial")
MARKS = 20
"""So many times the driver is looked at while a study grows."""

Raw = dict[str, Any]


def sweep(trials: int, epochs: int) -> Raw:
    """A sweep of so many schedules of three steps that share nothing; with 64 epochs a step takes about ten seconds."""
    ratios = [round(0.1 + 0.6 * number / trials, 4) for number in range(trials)]
    return _study(128, {"sweep": [{"step_ratio": ratios, "steps": 3, "fine_tune_epochs": epochs}]}, 32)


def many(trials: int, sampler: str) -> Raw:
    """A search of so many trials in a space of which they are a fraction."""
    space = {"step_ratio": [round(0.02 * i, 2) for i in range(2, 48)], "max_steps": 2, "retrain": ["fine_tune"]}
    family = {"unstructured": {**space, "fine_tune_epochs": list(range(1, 65))}}
    return _study(128, {"space": family, "search": {"trials": trials, "sampler": sampler}}, 4)


def _study(batch: int, what: Raw, width: int) -> Raw:
    model = {"name": "cnn", "arguments": {"width": width}}
    return {"name": "scaling", "model": model, "dense": {"epochs": 2, "batch_size": batch, "threads": 1}, **what}


class Run:
    """One study in a process of its own, and what its processes have cost so far."""

    def __init__(self, raw: Raw, trainable: str, workers: int, nodes: int, folder: Path) -> None:
        self.folder = folder / "results"
        file = folder / "study.yaml"
        file.write_text(yaml.safe_dump({**raw, "storage": str(self.folder)}))
        command = [sys.executable, "-m", "benchmarks.scaling_run", str(file), trainable, str(workers), str(nodes)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603
        self.driver = psutil.Process(self._process.pid)
        self._spent: dict[tuple[int, float], tuple[str, float]] = {}

    def going_on(self) -> bool:
        """Wait a moment and look at every process of the run; False once it has ended, which must be well."""
        time.sleep(POLL)
        if self._process.poll() is None:
            self._look()
            return True
        if self._process.returncode:
            raise SystemExit(f"the run in {self.folder} failed")
        return False

    def _look(self) -> None:
        for process in (self.driver, *self.driver.children(recursive=True)):
            try:
                times = process.cpu_times()
                kind = "driver" if process == self.driver else _kind(process)
                self._spent[process.pid, process.create_time()] = (kind, times.user + times.system)
            except psutil.Error:  # it ended while we looked
                continue

    def core_seconds(self) -> dict[str, float]:
        """Core time by kind of process, dead ones included."""
        found = dict.fromkeys(("driver", "workers", "ray"), 0.0)
        for kind, seconds in self._spent.values():
            found[kind] += seconds
        return found

    def driver_now(self) -> tuple[float, float]:
        """Core seconds and megabytes of the driver."""
        times = self.driver.cpu_times()
        return times.user + times.system, self.driver.memory_info().rss / 1e6

    def notes(self) -> list[list[list[float]]]:
        """Of each worker that has begun a step: seconds and core seconds at the begin and at the end of each step."""
        files = (self.folder / CPU_FOLDER).glob("*")
        return [[[float(word) for word in line.split()] for line in file.read_text().splitlines()] for file in files]

    def trials(self) -> int:
        """Trials that have ended."""
        file = self.folder / "scaling" / n.TRIALS_FILE
        return file.read_bytes().count(b"\n") if file.exists() else 0


def _kind(process: psutil.Process) -> str:
    return "workers" if process.name().startswith("ray::") and "Agent" not in process.name() else "ray"


def throughput(raw: Raw, workers: int, nodes: int) -> Raw:
    """One run of the sweep: steps an hour while there was work for all workers, and where core time went."""
    with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
        run = Run(raw, "measured", workers, nodes, Path(folder))
        start: dict[str, float] = {}
        while run.going_on():
            if not start and run.notes():
                start = run.core_seconds()
        notes, spent = run.notes(), run.core_seconds()
    steps = [step for worker in notes for step in worker]
    start["workers"] = sum(worker[0][2] for worker in notes)
    inside = sum(after - before for _, _, before, after in steps)
    wall = max(end for _, end, _, _ in steps) - min(begin for begin, _, _, _ in steps)
    outside = {**spent, "workers": max(0.0, spent["workers"] - inside)}
    return {
        "steps_per_hour": len(steps) / wall * 3600, "core_seconds_a_step": inside / len(steps), "inside": inside,
        "start": start, "outside": outside, "outside_share": _share(sum(outside.values()), inside),
        "outside_share_after_start": _share(sum(outside.values()) - sum(start.values()), inside),
        "seconds_a_trial": 3 * statistics.mean(end - begin for begin, end, _, _ in steps),
    }  # fmt: skip


def _share(outside: float, inside: float) -> float:
    return max(0.0, outside) / (inside + max(0.0, outside))


def growth(trials: int, sampler: str, workers: int) -> list[Raw]:
    """The driver's core seconds and megabytes at so many trials, as a study of sleeping trials grows."""
    found: list[Raw] = []
    with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
        run = Run(many(trials, sampler), "sleeping", workers, 1, Path(folder))
        while run.going_on():
            count = run.trials()
            if count >= max(1, len(found) * trials // MARKS):
                seconds, megabytes = run.driver_now()
                found.append({"trials": count, "core_seconds": seconds, "megabytes": megabytes})
    return found


def measure(arguments: argparse.Namespace, found: Raw) -> Iterator[Raw]:
    """Everything that ``found`` lacks, run by run, the settings of the sweep in turns."""
    cores = os.cpu_count() or 1
    conditions = {"cores": cores, "processor": platform.machine(), "trials": arguments.trials, "goal_outside": GOAL}
    found = {"conditions": conditions, "throughput": {}, "growth": {}} | found
    settings = [(workers, 1) for workers in (1, 2, 4) if workers <= cores]
    settings += [(settings[-1][0], 2)] if settings[-1][0] > 1 else []
    for number in range(arguments.rounds):
        for workers, nodes in settings:
            runs = found["throughput"].setdefault(f"{workers} workers, {nodes} nodes", [])
            if len(runs) <= number:
                raw = sweep(arguments.trials * workers, arguments.epochs)  # so that all runs take as long
                runs.append(throughput(raw, workers, nodes))
                yield found
    for sampler, length in zip(SAMPLERS, (arguments.many, arguments.many // 10), strict=True):
        if length and sampler not in found["growth"]:
            found["growth"][sampler] = growth(length, sampler, min(4, cores))
            yield found


def lines(found: Raw) -> Iterator[str]:
    """The result as text: medians over the rounds."""
    base = None
    for name, runs in found["throughput"].items():
        speed, step, share, after, trial = (statistics.median(run[key] for run in runs) for key in SHOWN)
        base = base or (speed, step)
        yield (
            f"{name:20} {speed:6.0f} steps/h ({speed / base[0]:.2f} times), {step:5.2f} core s a step "
            f"({base[1] / step:.2f} times as fast a core), {trial:.0f} s a trial, "
            f"outside {share:.1%} ({'reached' if share <= GOAL else 'missed'}), {after:.1%} after the start"
        )
    for sampler, marks in found["growth"].items():
        for name, (milliseconds, kilobytes) in parts(marks).items():
            yield f"{sampler} trials {name:>12}: {milliseconds:6.1f} ms of the driver and {kilobytes:6.0f} kB a trial"


def parts(marks: list[Raw]) -> Mapping[str, tuple[float, float]]:
    """Milliseconds and kilobytes a trial in each fifth of a study; its first trials, in which it starts, are left out."""
    chosen = [marks[1 + (len(marks) - 2) * part // 5] for part in range(6)]
    found = {}
    for before, after in itertools.pairwise(chosen):
        count = after["trials"] - before["trials"]
        spent, grown = (after[key] - before[key] for key in ("core_seconds", "megabytes"))
        found[f"{before['trials']}-{after['trials']}"] = (1e3 * spent / count, 1e3 * grown / count)
    return found


def figure(found: Raw, file: Path) -> None:
    """Throughput by setting, and the driver's core time and memory as a study grows."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    panels = 3 if found["throughput"] else 2
    canvas, axes = plt.subplots(1, panels, figsize=(4.7 * panels, 3.8), layout="constrained")
    *before, middle, right = axes
    medians = {name: statistics.median(r["steps_per_hour"] for r in runs) for name, runs in found["throughput"].items()}
    for left in before:
        left.bar(list(medians), [value / next(iter(medians.values())) for value in medians.values()], color="#0072B2")
        left.set(title="steps an hour, times one worker's")
        left.tick_params(axis="x", labelrotation=20, labelsize="small")
    for (sampler, marks), colour in zip(found["growth"].items(), ("#0072B2", "#D55E00", "#009E73"), strict=False):
        trials = [mark["trials"] for mark in marks]
        middle.plot(trials, [mark["core_seconds"] for mark in marks], label=sampler, color=colour)
        right.plot(trials, [mark["megabytes"] for mark in marks], label=sampler, color=colour)
    middle.set(title="core seconds of the driver", xlabel="trials", ylim=(0, None))
    right.set(title="megabytes of the driver", xlabel="trials", ylim=(0, None))
    if found["growth"]:
        middle.legend(title="sampler")
    file.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(file, dpi=120)


def main() -> None:
    """Measure what is missing, print all of it, and write the numbers and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="times that each setting runs (default 2)")
    parser.add_argument("--trials", type=int, default=8, help="trials for each worker, of three steps (default 8)")
    parser.add_argument("--epochs", type=int, default=64, help="epochs of a step (default 64, about ten seconds)")
    parser.add_argument("--many", type=int, default=10_000, help="trials that sleep; a tenth for `tree` (default 10,000)")
    parser.add_argument("--json", type=Path, default=NUMBERS, help="file for all numbers; what it has isn't run again")
    parser.add_argument("--figure", type=Path, default=FIGURE, help="file for the figure")
    arguments = parser.parse_args()
    found: Raw = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    for found in measure(arguments, found):  # noqa: B020 - what is there already, and then each run more
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(lines(found)))
    figure(found, arguments.figure)


if __name__ == "__main__":
    main()
