"""Tasks whose outputs are classes, labels or numbers of a whole image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from trainables.records.names import InputError
from trainables.records.objectives import Quality
from trainables.settings import nearest
from trainables.tasks.base import Chosen, Named, Targets, numbered
from trainables.tasks.measures import CLASSIFICATION, MULTILABEL, REGRESSION, Kind, error_of_mean

OTHERS = "or set task.name to what it is"
BINS = 10
"""Of a number, for a split in which all its sizes are in the same proportion."""


class Measured(Chosen):
    """A task with one of a table of measures, the first unless a study names another."""

    kinds: ClassVar[Mapping[str, Kind]]

    @field_validator("measured_by")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in cls.kinds:
            raise ValueError(f"{cls.name} isn't measured by it; {nearest(value, cls.kinds)}")
        return None if value == next(iter(cls.kinds)) else value

    @property
    def _measured(self) -> str:
        return self.measured_by or next(iter(self.kinds))

    @property
    def quality(self) -> Quality:
        """The measure that was chosen."""
        return self.kinds[self._measured].quality(self._measured)

    def kept(self, outputs: Tensor) -> Tensor:
        """What the measure needs."""
        return self.kinds[self._measured].kept(outputs)

    def measure(self, outputs: Tensor, targets: Tensor) -> float:
        """The measure that was chosen."""
        return self.kinds[self._measured].value(outputs, targets)

    def error(self, outputs: Tensor, targets: Tensor) -> float:
        """In closed form of a mean over images."""
        each = self.kinds[self._measured].each
        return super().error(outputs, targets) if each is None else error_of_mean(each(outputs, targets))

    def difference_error(self, outputs: Tensor, others: Tensor, targets: Tensor) -> float:
        """The same of the differences, image by image."""
        each = self.kinds[self._measured].each
        if each is None:
            return super().difference_error(outputs, others, targets)
        return error_of_mean(each(outputs, targets) - each(others, targets))

    def shape(self, names: int, image: tuple[int, int, int]) -> tuple[int, ...] | None:  # noqa: ARG002
        """A number for each name."""
        return (names,)


class Classification(Measured):
    """Each image is of one class: cross-entropy."""

    name, label, kinds = "classification", "classification", CLASSIFICATION
    of_classes, distils = True, True
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of a target that goes to all classes alike")
    class_weights: Literal["balanced"] | tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        None, description="weight of each class in the loss; balanced: the rarer, the more; null: all alike"
    )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits [B, classes]."""
        return self._cross_entropy(outputs, targets, "mean")

    def summed(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy, not divided by the sum of weights."""
        return self._cross_entropy(outputs, targets, "sum")

    def _cross_entropy(self, outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
        weights = self.class_weights
        assert weights != "balanced", "a task is fitted to its training targets"
        weight = None if weights is None else torch.tensor(weights, device=outputs.device, dtype=outputs.dtype)
        return F.cross_entropy(outputs, targets, weight=weight, reduction=reduction, label_smoothing=self.label_smoothing)

    def answer(self, outputs: str, names: str | None = None) -> str:
        """The class of each image."""
        return f"[{names}[i] for i in {outputs}.argmax(1)]" if names else f"{outputs}.argmax(1)"

    def names(self, targets: Targets, given: Sequence[str]) -> tuple[str, ...]:
        """Of classes."""
        if given or targets.ndim != 1 or targets.dtype.kind not in "biu" or not len(targets):
            return tuple(given)
        return numbered(int(targets.max()) + 1)

    def check(self, targets: Targets, names: Sequence[str], named: Named) -> None:
        """A number of a class."""
        if targets.ndim != 1 or targets.dtype.kind not in "biu":
            told = f"{targets.dtype} {list(targets.shape[1:])}"
            raise InputError(f"{named(0)} has a target that is {told}; give the number of a class, from 0, {OTHERS}")
        if (outside := (targets < 0) | (targets >= len(names))).any():
            first = int(outside.argmax())
            raise InputError(
                f"{named(first)} is of class {int(targets[first])}, and there are {len(names)} classes, numbered from 0; "
                "correct it"
            )

    def stored(self, targets: Targets) -> Targets:
        """int64, as cross-entropy takes them."""
        return targets.astype(np.int64)

    def strata(self, targets: Targets) -> npt.NDArray[np.int64]:
        """The classes."""
        return targets.astype(np.int64)

    def fitted(self, targets: Targets, names: Sequence[str]) -> Self:
        """With the weights of classes in numbers: N / (classes · images of the class), if they are balanced."""
        weights = self.class_weights
        if weights == "balanced":
            counts = np.bincount(targets.astype(np.int64), minlength=len(names))
            weights = tuple((len(targets) / (len(names) * counts.clip(1))).tolist())
        elif weights is not None and len(weights) != len(names):
            raise InputError(f"task.class_weights: {len(weights)} values for {len(names)} classes; give one for each")
        return self.model_copy(update={"class_weights": weights})


class _Numbers(Measured):
    """A task whose targets are numbers [N, K]."""

    what: ClassVar[str]

    def names(self, targets: Targets, given: Sequence[str]) -> tuple[str, ...]:
        """Of the columns."""
        columns = targets.shape[1] if targets.ndim == 2 else 1
        if given and len(given) != columns:
            raise InputError(
                f"task.name: targets are of {len(given)} classes ({', '.join(given[:3])}, ...), and {self.name} has "
                f"{self.what}; name data.label_columns of a csv, or give a Dataset of your own"
            )
        return tuple(given) or numbered(columns)

    def check(self, targets: Targets, names: Sequence[str], named: Named) -> None:
        """Finite, and as many for each image."""
        rows = targets.reshape(len(targets), -1) if targets.ndim in (1, 2) else targets
        if rows.ndim != 2 or rows.shape[1] != len(names):
            raise InputError(f"{named(0)} has a target of shape {list(targets.shape[1:])}; give {self.what}, {OTHERS}")
        if (wrong := ~self._right(rows)).any():
            place, column = map(int, np.argwhere(wrong)[0])
            raise InputError(f"{named(place)} has the target {rows[place, column]} for {names[column]!r}; give {self.what}")

    @abstractmethod
    def _right(self, rows: Targets) -> npt.NDArray[np.bool_]:
        """Which targets [N, K] can be some."""

    def stored(self, targets: Targets) -> Targets:
        """float32 [N, K]."""
        return np.ascontiguousarray(targets.reshape(len(targets), -1), np.float32)


class Multilabel(_Numbers):
    """Each image has some of the labels: binary cross-entropy."""

    name, label, kinds, what = "multilabel", "many labels", MULTILABEL, "0 or 1 for each label"

    def answer(self, outputs: str, names: str | None = None) -> str:
        """The labels of each image."""
        return f"[[{names}[i] for i in row.nonzero()[0]] for row in {outputs} > 0]" if names else f"{outputs} > 0"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy of logits [B, labels], mean over both."""
        return F.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype))

    def _right(self, rows: Targets) -> npt.NDArray[np.bool_]:
        right: npt.NDArray[np.bool_] = (rows == 0) | (rows == 1)
        return right

    def strata(self, targets: Targets) -> npt.NDArray[np.int64]:
        """The rarest label that an image has, and one number more for images with none."""
        rows = targets.reshape(len(targets), -1) > 0
        rarest_first = np.argsort(rows.sum(0), kind="stable")
        found = np.where(rows.any(1), rows[:, rarest_first].argmax(1), rows.shape[1])
        codes: npt.NDArray[np.int64] = found.astype(np.int64)
        return codes


class Regression(_Numbers):
    """Each image has numbers: squared or absolute error."""

    name, label, kinds, what = "regression", "regression", REGRESSION, "a finite number for each column"
    penalty: Literal["mse", "l1"] = Field(
        "mse", description="what regression minimises: squared (mse) or absolute (l1) errors"
    )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over images and columns, of outputs [B, columns]."""
        of = F.mse_loss if self.penalty == "mse" else F.l1_loss
        return of(outputs.float(), targets.float())

    def _right(self, rows: Targets) -> npt.NDArray[np.bool_]:
        return np.isfinite(rows.astype(np.float64))

    def strata(self, targets: Targets) -> npt.NDArray[np.int64]:
        """Tenths of the images, by the mean of their numbers in standard deviations."""
        rows = targets.reshape(len(targets), -1).astype(np.float64)
        means = (rows / rows.std(0).clip(1e-12)).mean(1)
        ranks = np.empty(len(means), np.int64)
        ranks[np.argsort(means, kind="stable")] = np.arange(len(means))
        bins: npt.NDArray[np.int64] = ranks * min(BINS, max(1, len(means) // BINS)) // max(1, len(means))
        return bins
