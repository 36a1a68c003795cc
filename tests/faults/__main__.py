"""The long form: ``python -m tests.faults``. Many kills over one study, and what came of it."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.driver import Driver
from tests.faults.storm import PATIENCE, Storm, computations, outcome
from tests.faults.studies import sweep_study
from tests.search_helpers import write


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return storm(Path(folder), options.kills, options.seed)


def storm(folder: Path, kills: int, seed: int) -> int:
    study = write(folder, sweep_study(folder, seeds=max(1, kills // 4)))
    fury, began = Storm(study, folder, seed), time.monotonic()
    try:
        fury.rage(kills)
        minutes = (time.monotonic() - began) / 60
        disturbed = outcome(study)
        begun, again = computations(fury.log)
        peace = Driver(study, "--set", "name=peace", said=folder / "peace.err")
        fury.lives.append(peace)
        assert peace.wait(10 * PATIENCE) == 0, peace.said.read_text()
    finally:
        fury.end()
    assert disturbed == outcome(study, "name=peace")
    victims = ", ".join(f"{count} of a {kind}" for kind, count in sorted(fury.kills.items()))
    print(
        f"{fury.kills.total()} kills ({victims}) in "
        f"{minutes:.1f} minutes and {len(fury.lives) - 1} runs: {len(disturbed['steps'])} steps, "
        f"{begun} computations begun, {again} of them again; same steps, accuracies and front as left in peace"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
