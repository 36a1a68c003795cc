"""What a crash, a disk or a person may do to the files of a study; the same command makes it good, or says how."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from search.__main__ import main
from search.cluster.interrupts import GO_ON, STOPPED
from search.study import load_study
from tests.faults.driver import ONE_CORE, Driver
from tests.faults.storm import outcome, steps_of
from tests.faults.test_interrupts import has_points, wait_until
from tests.search_helpers import one_line, raw_study, refusal, write
from trainables.records import names as n
from trainables.records.files import TEMPORARY

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("one_ray")]

STEPS = 8
SWEEP = [{"importance": name, "schedule": "linear", "sparsity": 0.9, "steps": STEPS} for name in ("magnitude", "random")]


@pytest.fixture(scope="module")
def finished(one_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a sweep that has been run."""
    tmp = tmp_path_factory.mktemp("finished")
    study = write(tmp, raw_study(tmp, sweep=SWEEP))
    assert main(["run", str(study)]) == 0
    return study


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """The same in a folder of its own."""
    shutil.copytree(load_study(finished).folder, tmp_path / "results" / "tiny")
    return write(tmp_path, raw_study(tmp_path, sweep=SWEEP))


def test_what_processes_left_that_were_killed_is_cleared_away(copy: Path, no_ray: None) -> None:
    folder = load_study(copy).folder
    step = next(iter(steps_of(folder)))
    for name in (f".{n.POINTS_FILE}.abc{TEMPORARY}", f"{n.STEPS_FOLDER}/{step}/.{n.WEIGHTS_FILE}.abc{TEMPORARY}"):
        (folder / name).write_bytes(b"half of it")
    assert main(["run", str(copy)]) == 0
    assert outcome(copy)


def drop_lines(file: Path, which: Callable[[int], bool]) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(line for i, line in enumerate(lines) if not which(i)))


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        (n.TRIALS_FILE, lambda i: i == 1), (n.TRIALS_FILE, lambda _: True), (n.POINTS_FILE, lambda i: i in (2, 5)),
        (n.POINTS_FILE, lambda _: True), (n.ASKED_FILE, lambda i: i == 1), (n.ASKED_FILE, lambda _: True),
    ],
)  # fmt: skip
def test_lines_that_are_missing_are_written_again(
    name: str, lost: Callable[[int], bool], copy: Path, finished: Path, no_ray: None
) -> None:
    folder = load_study(copy).folder
    drop_lines(folder / name, lost)
    assert main(["run", str(copy)]) == 0
    assert outcome(copy) == outcome(finished)
    whole = {name: (folder / name).read_bytes() for name in (n.POINTS_FILE, n.TRIALS_FILE)}
    assert main(["run", str(copy)]) == 0
    assert {name: (folder / name).read_bytes() for name in whole} == whole


@pytest.mark.parametrize("name", [n.ASKED_FILE, n.TRIALS_FILE, n.POINTS_FILE])
def test_a_line_cut_in_the_middle_is_named_and_its_loss_made_good(
    name: str, copy: Path, finished: Path, capsys: pytest.CaptureFixture[str], no_ray: None
) -> None:
    file = load_study(copy).folder / name
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], lines[1][:40] + b"\n", *lines[2:]]))
    assert f"{name}, line 2: is no valid JSON" in refusal(["run", str(copy)], capsys)
    drop_lines(file, lambda i: i == 1)
    assert main(["run", str(copy)]) == 0
    assert outcome(copy) == outcome(finished)


def test_damaged_steps_are_computed_again_as_they_were(finished: Path, tmp_path: Path) -> None:
    study, folder = write(tmp_path, raw_study(tmp_path, sweep=SWEEP)), tmp_path / "results" / "tiny"
    driver = Driver(study, said=tmp_path / "said", environment=ONE_CORE)
    try:
        wait_until(lambda: has_points(folder, 4), driver)
        driver.process.kill()
        driver.wait()
        driver.nobody_is_left()
    finally:
        driver.end()
    chains = outcome(finished)["points"]
    there = steps_of(folder)
    trial, done = next(
        (t, k) for t, k in chains if 1 < k < STEPS and chains[t, k] in there and chains[t, k + 1] not in there
    )
    earlier, last = (folder / n.STEPS_FOLDER / chains[trial, step] for step in (done - 1, done))
    whole = (last / n.WEIGHTS_FILE).read_bytes()
    (last / n.WEIGHTS_FILE).write_bytes(whole[:-10] + bytes(10))
    (earlier / n.STEP_FILE).write_bytes((earlier / n.STEP_FILE).read_bytes()[:100])
    assert main(["run", str(study)]) == 0
    assert (last / n.WEIGHTS_FILE).read_bytes() == whole
    again = {step for step, identity in steps_of(folder).items() if there.get(step, identity) != identity}
    assert again == {earlier.name}  # the record of the other was whole
    assert outcome(study)["steps"] == outcome(finished)["steps"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if not mount or os.getuid() != 0:
        pytest.skip("only root may mount a small disk")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], check=False).returncode:  # noqa: S603
        pytest.skip("mounting isn't allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S603, S607


def fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return ballast


def test_a_full_disk_stops_the_study_and_with_room_it_goes_on(small_disk: Path, tmp_path: Path) -> None:
    study = write(tmp_path, raw_study(tmp_path, sweep=SWEEP, storage=str(small_disk)))
    driver = Driver(study, said=tmp_path / "said", environment=ONE_CORE)
    try:
        wait_until(lambda: has_points(small_disk / "tiny"), driver)
        ballast = fill(small_disk)
        assert driver.wait() == STOPPED
        said = one_line(driver.said.read_text())
        assert said.startswith("error: storage: ")
        assert "No space left on device" in said
        assert said.endswith(GO_ON)
        before = steps_of(small_disk / "tiny")
        ballast.unlink()
        assert main(["run", str(study)]) == 0
        assert before.items() <= steps_of(small_disk / "tiny").items()
        assert len(outcome(study)["steps"]) == 2 * STEPS
    finally:
        driver.end()
