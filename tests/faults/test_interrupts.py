"""Ctrl-C, as a terminal sends it: once to end cleanly, twice to end at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from search.__main__ import main
from search.cluster.interrupts import GO_ON, INTERRUPTED
from tests.faults.driver import ONE_CORE, Driver
from tests.faults.storm import steps_of
from tests.search_helpers import raw_study, rows, write
from trainables.records import names as n

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("one_ray")]

SWEEP = [{"importance": name, "schedule": "linear", "sparsity": 0.9, "steps": 6, "fine_tune_epochs": 4}
         for name in ("magnitude", "random")]  # fmt: skip


def wait_until(true: Callable[[], bool], driver: Driver) -> None:
    deadline = time.monotonic() + 240
    while not true():
        assert driver.running, driver.said.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has_points(folder: Path, count: int = 2) -> bool:
    """Whether so many steps were written, besides the dense network."""
    file = folder / n.POINTS_FILE
    return file.exists() and file.read_bytes().count(b"\n") > count


def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    study, folder = write(tmp_path, raw_study(tmp_path, sweep=SWEEP)), tmp_path / "results" / "tiny"
    driver = Driver(study, said=tmp_path / "said", environment=ONE_CORE)
    try:
        wait_until(lambda: has_points(folder), driver)
        for _ in range(2):  # to the whole process group, Ray's daemons included
            os.killpg(driver.process.pid, signal.SIGINT)
            time.sleep(0.3)
        assert driver.wait() == INTERRUPTED
        assert driver.said.read_text().splitlines() == [f"Interrupted twice: stopped at once. {GO_ON}"]
        driver.nobody_is_left()
    finally:
        driver.end()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_cleanly_with_weights_that_need_not_stay_it_goes_on_at_no_extra_cost(
    number: signal.Signals, tmp_path: Path
) -> None:
    study, folder = write(tmp_path, raw_study(tmp_path, sweep=SWEEP, keep="none")), tmp_path / "results" / "tiny"
    driver = Driver(study, said=tmp_path / "said")
    try:
        wait_until(lambda: has_points(folder), driver)
        driver.process.send_signal(number)
        assert driver.wait() == INTERRUPTED
        assert driver.said.read_text().splitlines() == [f"Interrupted. {GO_ON}"]
        driver.nobody_is_left()
    finally:
        driver.end()
    before = steps_of(folder)
    assert len(list(folder.glob(f"{n.STEPS_FOLDER}/*/{n.WEIGHTS_FILE}"))) == len(before) < 1 + 2 * 6
    assert main(["run", str(study)]) == 0
    assert before.items() <= steps_of(folder).items()
    assert {row[n.EPOCHS] for row in rows(folder / n.POINTS_FILE) if row[n.STEP]} == {4}
    assert len(list(folder.glob(f"{n.STEPS_FOLDER}/*/{n.WEIGHTS_FILE}"))) == 1


def test_an_interrupt_before_the_first_trial(tmp_path: Path) -> None:
    study, folder = write(tmp_path, raw_study(tmp_path, sweep=SWEEP)), tmp_path / "results" / "tiny"
    driver = Driver(study, said=tmp_path / "said", environment=ONE_CORE)
    try:
        wait_until((folder / n.ASKED_FILE).exists, driver)
        os.killpg(driver.process.pid, signal.SIGINT)
        assert driver.wait() == INTERRUPTED
        assert driver.said.read_text().splitlines()[-1] == f"Interrupted. {GO_ON}"
        driver.nobody_is_left()
    finally:
        driver.end()
