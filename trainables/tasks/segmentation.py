"""A class for each pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from trainables.records.names import InputError
from trainables.tasks.base import Named, Targets, Values, numbered
from trainables.tasks.labels import OTHERS, Measured
from trainables.tasks.measures import Kind


def _predicted(outputs: Tensor) -> Tensor:
    return outputs.argmax(1).to(torch.int16)


def _never(_outputs: Tensor, _targets: Tensor) -> float:
    raise AssertionError("a segmentation is measured with the pixels that it ignores")


class Segmentation(Measured):
    """Each pixel is of one class: cross-entropy, without the pixels that are ignored."""

    name, label, masks, distils = "segmentation", "segmentation", True, True
    kinds: ClassVar[Mapping[str, Kind]] = {"mean_iou": Kind("mean IoU", _never, _predicted)}
    ignore_index: int = Field(255, ge=0, le=255, description="value of the pixels of a mask that don't count")

    def answer(self, outputs: str, names: str | None = None) -> str:  # noqa: ARG002 - a map of them would be long
        """The class of each pixel."""
        return f"{outputs}.argmax(1)"

    @property
    def outside(self) -> int:  # type: ignore[override]
        """Nothing that counts."""
        return self.ignore_index

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over the pixels of logits [B, classes, H, W]; 0 of masks in which none counts."""
        counted = targets.long()
        summed = F.cross_entropy(outputs, counted, ignore_index=self.ignore_index, reduction="sum")
        return summed / (counted != self.ignore_index).sum().clamp_min(1)

    def measure(self, outputs: Tensor, targets: Tensor) -> float:
        """Mean, over the classes that are there or are predicted, of intersection / union, all pixels counted together."""
        return _mean_iou(self._counts(outputs, targets).sum(0))

    def resampled(self, outputs: Tensor, targets: Tensor) -> Values:
        """From counts of each image, which are the same whenever it is drawn."""
        counts = self._counts(outputs, targets)
        return np.array([_mean_iou(counts[which].sum(0)) for which in self.draws(len(counts))], np.float64)

    def _counts(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Pixels of each image and class, [N, 3, classes]: of both mask and answer, of the mask, of the answer."""
        found, classes = [], self._classes(answers, targets)
        for answer, target in zip(answers, targets, strict=True):
            counted = target != self.ignore_index
            said, truth = answer[counted].long(), target[counted].long()
            each = (truth[said == truth], truth, said)
            found.append(torch.stack([torch.bincount(some, minlength=classes) for some in each]))
        return torch.stack(found).double()

    def _classes(self, answers: Tensor, targets: Tensor) -> int:
        known = targets[targets != self.ignore_index]
        return 1 + max(int(answers.max()), int(known.max()) if len(known) else 0)

    def names(self, targets: Targets, given: Sequence[str]) -> tuple[str, ...]:
        """Of classes."""
        if given or targets.dtype.kind not in "biu":
            return tuple(given)
        known = (mask[mask != self.ignore_index] for mask in targets)  # one by one: they may be more than memory holds
        return numbered(1 + max((int(some.max()) for some in known if some.size), default=-1))

    def check(self, targets: Targets, names: Sequence[str], named: Named) -> None:
        """Maps of the numbers of classes."""
        if targets.ndim != 3 or targets.dtype.kind not in "biu":
            told = f"{targets.dtype} {list(targets.shape[1:])}"
            raise InputError(f"{named(0)} has a target that is {told}; give a mask [H, W] of classes, {OTHERS}")
        if len(names) < 2:
            raise InputError(f"{named(0)}: masks have {len(names)} classes beside what is ignored; give at least 2")
        for i, mask in enumerate(targets):
            outside = mask[(mask != self.ignore_index) & ((mask < 0) | (mask >= len(names)))]
            if outside.size:
                raise InputError(
                    f"{named(i)} has class {int(outside[0])} in its mask, and there are {len(names)} classes, numbered "
                    f"from 0, and {self.ignore_index} for what is ignored; correct it"
                )

    def stored(self, targets: Targets) -> Targets:
        """uint8: a mask takes a third of its image."""
        return targets.astype(np.uint8)

    def shape(self, names: int, image: tuple[int, int, int]) -> tuple[int, ...] | None:
        """A map of logits of the image's size."""
        return (names, *image[1:])


def _mean_iou(counts: Tensor) -> float:
    both, truth, said = counts
    union = truth + said - both
    return float((both[union > 0] / union[union > 0]).mean())
