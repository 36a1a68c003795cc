"""The long form: ``python -m tests.faults``. Many kills over one study, and what came of it."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.storm import under_kills
from tests.faults.studies import search_study, sweep_study


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="of a sweep, several trials in flight")
    parser.add_argument("--search-kills", type=int, default=10, help="of a search with one trial in flight")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    options = parser.parse_args()
    # A kill gets a sweep about one point further: with three times as many its end isn't reached before the last.
    for make, kills, share in ((sweep_study, options.kills, 5), (search_study, options.search_kills, 2)):
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            fury = under_kills(make(Path(folder), max(1, kills // share)), Path(folder), kills, options.seed)
            begun, again = fury.computations()
            victims = ", ".join(f"{count} of a {kind}" for kind, count in sorted(fury.kills.items()))
            print(
                f"{make.__name__}: {fury.kills.total()} of {kills} kills ({victims}) over {len(fury.lives)} runs, "
                f"{(time.monotonic() - began) / 60:.0f} minutes: {begun} computations begun, {again} of them again because "
                "something died under them; steps, accuracies, trials and front as if left in peace"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
