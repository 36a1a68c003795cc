"""A front's members broken off from their trials' schedules, and the controls beside them: by their addresses alone."""

from __future__ import annotations

import pytest

from search.stages.again import control_of, until
from tests.trainables.test_schedule import ids
from trainables.schedule import MixedSchedule, Schedule, StructuredSchedule, UnstructuredSchedule

SCHEDULES: dict[str, Schedule] = {
    "geometric": UnstructuredSchedule(step_ratio=0.5, steps=3),
    "linear": UnstructuredSchedule(schedule="linear", sparsity=0.9, steps=3),
    "explicit": StructuredSchedule(levels=(0.2, 0.4, 0.5)),
    "mixed": MixedSchedule(channel_steps=2, channel_ratio=0.2, step_ratio=0.5, steps=4),
    "mixed, explicit": MixedSchedule(channel_steps=2, channel_ratio=0.2, levels=(0.3, 0.5)),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_schedule_broken_off_has_the_addresses_of_its_beginning(schedule: Schedule) -> None:
    for step in range(1, schedule.steps + 1):
        assert ids(until(schedule, step)) == ids(schedule)[:step]


class AnyFamily:
    """A problem in which all can be pruned."""

    def refuse(self, _family: str) -> None:
        return None


CONTROLS = {
    "as many trainings, each as long": (
        UnstructuredSchedule(step_ratio=0.5, steps=2, fine_tune_epochs=3, fine_tune_lr=0.02),
        UnstructuredSchedule(levels=(0, 0), fine_tune_epochs=3, fine_tune_lr=0.02),
    ),
    "regularised epochs are epochs": (
        StructuredSchedule(step_ratio=0.3, pruner="group_norm", sparse_epochs=2),
        UnstructuredSchedule(levels=(0,), fine_tune_epochs=3),
    ),
    "not where they can't be": (
        StructuredSchedule(step_ratio=0.3, pruner="group_norm", sparse_epochs=2, retrain="lr_rewind"),
        UnstructuredSchedule(levels=(0,), retrain="lr_rewind"),
    ),
    "no training, no control": (UnstructuredSchedule(step_ratio=0.5, fine_tune_epochs=0), None),
}


@pytest.mark.parametrize("schedule, control", CONTROLS.values(), ids=CONTROLS)
def test_the_control_is_dense_and_retrained_alike(schedule: Schedule, control: Schedule | None) -> None:
    assert control_of(schedule, AnyFamily()) == control  # type: ignore[arg-type]


def test_controls_of_equal_trainings_share_their_beginning() -> None:
    two, three = (ids(UnstructuredSchedule(levels=(0,) * steps)) for steps in (2, 3))
    assert three[:2] == two and len(set(three)) == 3
