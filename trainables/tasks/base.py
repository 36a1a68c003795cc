"""What a task is: a loss, a measure, and what targets and outputs must look like."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, ValidationError
from torch import Tensor

from trainables.methods import Method
from trainables.records.methods import Measure, QualityDescription
from trainables.records.names import InputError
from trainables.records.objectives import ACCURACY, LINEAR, MAXIMISE, Quality
from trainables.settings import one_line

Targets = npt.NDArray[Any]
Values = npt.NDArray[np.float64]
Named = Callable[[int], str]
"""From a target's place to what a message calls it, with its setting and a colon."""


class Task(Method):
    """What a network is trained for.

    A task of your own subclasses this, and gives ``loss``, ``measure`` and ``name``, which the measure is called by.
    """

    unit: ClassVar[str] = ""
    """Of the measure."""
    direction: ClassVar[Literal["maximise", "minimise"]] = MAXIMISE
    """Whether more of the measure is better, or less."""
    low: ClassVar[float] = -math.inf
    high: ClassVar[float] = math.inf
    """The range of the measure."""
    of_classes: ClassVar[bool] = False
    """Whether a target is the number of a class, each of which has images in training and in validation."""
    resamples: ClassVar[int] = 50
    """How often the validation images are drawn anew for the measure's standard error; 0: it isn't known."""
    masks: ClassVar[bool] = False
    """Whether a target is a map of its image, which is resized, cropped and mirrored with it."""
    outside: ClassVar[int] = 0
    """What such a map has beyond its border."""
    distils: ClassVar[bool] = False
    """Whether outputs are logits of classes, in their second dimension."""
    measured: ClassVar[str] = ""
    """The name of the measure of a user's own task."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of a batch: a scalar that can be differentiated."""

    @abstractmethod
    def measure(self, outputs: Tensor, targets: Tensor) -> float:
        """How good the outputs (what ``kept`` left of them) of all validation images are, on the CPU."""

    def kept(self, outputs: Tensor) -> Tensor:
        """What of a batch's outputs the measure needs."""
        return outputs

    def answer(self, outputs: str, names: str | None = None) -> str:  # noqa: ARG002 - for those that name something
        """Python that makes of outputs what a reader wants to know, for examples of use; ``names`` are the outputs'."""
        return outputs

    def summed(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The losses of a batch, summed over its images."""
        return self.loss(outputs, targets) * len(targets)

    def error(self, outputs: Tensor, targets: Tensor) -> float:
        """The standard error of the measure, by drawing the images anew (the bootstrap); 0 where it isn't known."""
        return _spread(self.resampled(outputs, targets))

    def difference_error(self, outputs: Tensor, others: Tensor, targets: Tensor) -> float:
        """That of the difference of two networks' measures on the same images: what is hard for both doesn't count."""
        return _spread(self.resampled(outputs, targets) - self.resampled(others, targets))

    def resampled(self, outputs: Tensor, targets: Tensor) -> Values:
        """The measure of images drawn anew, ``resamples`` times: the same ones for every network."""
        drawn = self.draws(len(targets))
        return np.array([self.measure(outputs[which], targets[which]) for which in drawn], np.float64)

    def draws(self, count: int) -> Iterator[Tensor]:
        """Which of so many images each draw takes, with replacement."""
        draw = np.random.default_rng(0)
        return (torch.from_numpy(draw.integers(count, size=count)) for _ in range(self.resamples))

    def names(self, targets: Targets, given: Sequence[str]) -> tuple[str, ...]:
        """What the outputs of a network are called: as the data set has ``given`` them, or else numbers.

        A network has an output for each, or a map of outputs.
        """
        if given:
            return tuple(given)
        if targets.ndim == 1 and targets.dtype.kind in "biu":
            return numbered(int(targets.max()) + 1)
        return numbered(targets.shape[1] if targets.ndim == 2 else 1)

    def check(self, targets: Targets, names: Sequence[str], named: Named) -> None:
        """InputError if a target is none of this task; ``named`` is what a message calls it."""

    def stored(self, targets: Targets) -> Targets:
        """The targets as they are kept in memory."""
        return targets

    def strata(self, targets: Targets) -> npt.NDArray[np.int64] | None:  # noqa: ARG002 - for those that have some
        """A number for each target, all of which are drawn in the same proportion; None where none are."""
        return None

    def fitted(self, targets: Targets, names: Sequence[str]) -> Self:  # noqa: ARG002 - for those that look at them
        """The task for these training targets."""
        return self

    def shape(self, names: int, image: tuple[int, int, int]) -> tuple[int, ...] | None:  # noqa: ARG002
        """The shape of a network's output for one image [C, H, W]; None if any will do."""
        return None

    def decoded(self, targets: Tensor) -> Tensor:
        """A batch of targets as the loss takes them."""
        return targets

    @property
    def quality(self) -> Quality:
        """The measure, as an objective."""
        told = {"unit": self.unit, "direction": self.direction, "low": self.low, "high": self.high}
        return quality(self.measured, f"validation {self.measured}", counted=False, **told)


def _spread(values: Values) -> float:
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1)) if len(known) > 1 else 0.0


@lru_cache
def quality(
    name: str, label: str, *, unit: str = "", direction: str = MAXIMISE, low: float, high: float, counted: bool
) -> Quality:
    """A measure of this name and range; InputError if it can't be one."""
    ends = {key: value if math.isfinite(value) else None for key, value in (("low", low), ("high", high))}
    fields = {"column": name, "label": label, "unit": unit, "direction": direction, "scale": LINEAR, "counted": counted}
    if (name, label) == (ACCURACY.name, ACCURACY.label) and counted:
        return ACCURACY
    try:
        return Measure(name, QualityDescription.model_validate({**fields, **ends}))
    except ValidationError as error:
        wrong = error.errors()[0]
        field = ".".join(map(str, wrong["loc"])).replace("column", "name")
        raise InputError(f"task: {name!r}: {field}: {wrong['msg']}; correct it") from None


def numbered(count: int) -> tuple[str, ...]:
    """Names of so many classes."""
    return tuple(map(str, range(count)))


def guarded(task: Task, what: str, compute: Callable[[], Any]) -> Any:
    """The result; InputError, with the error of the user's code, if that fails."""
    try:
        return compute()
    except InputError:
        raise
    except Exception as error:  # what code of the user's own raises can be anything
        raise InputError(
            f"task: {task.name!r}: {what} fails ({type(error).__name__}: {one_line(error)}); correct it"
        ) from error


class Chosen(Task):
    """A task of this program, whose measure is one of several."""

    measured_by: str | None = Field(
        None,
        validate_default=True,
        description="accuracy (top5, balanced_accuracy, macro_f1, auc) | mean_average_precision | r2 (mae) | mean_iou",
    )
