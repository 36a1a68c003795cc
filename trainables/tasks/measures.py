"""Measures: pure functions of what a task kept of the outputs, and of the targets, of all validation images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trainables.records.objectives import MAXIMISE, MINIMISE, Quality
from trainables.tasks.base import quality

Value = Callable[[Tensor, Tensor], float]


def whole(outputs: Tensor) -> Tensor:
    """All of it."""
    return outputs.float()


def answers(outputs: Tensor) -> Tensor:
    """The classes of the largest logits."""
    return outputs.argmax(1)


def best_five(outputs: Tensor) -> Tensor:
    """The classes of the five largest logits, [N, 5], or of all where there are fewer."""
    return outputs.topk(min(5, outputs.shape[1]), 1).indices


@dataclass(frozen=True)
class Kind:
    """One measure: its ``value``, what it needs of outputs, and, if it is a mean over images, what ``each`` contributes.

    ``counted`` ones are shares of the images, and their error follows from the value.
    """

    words: str
    value: Value
    kept: Callable[[Tensor], Tensor] = whole
    each: Callable[[Tensor, Tensor], Tensor] | None = None
    low: float = 0.0
    high: float = 1.0
    direction: Literal["maximise", "minimise"] = MAXIMISE
    counted: bool = False

    def quality(self, name: str) -> Quality:
        """The measure as an objective."""
        return quality(
            name, f"validation {self.words}", direction=self.direction, low=self.low, high=self.high, counted=self.counted
        )


def share_right(answers: Tensor, labels: Tensor) -> float:
    """Share of the images that are classified rightly."""
    return int((answers == labels).sum()) / len(labels)


def right(answers: Tensor, labels: Tensor) -> Tensor:
    """1 for each image that is classified rightly, and 0 for each other."""
    return (answers == labels).double()


def among(answers: Tensor, labels: Tensor) -> Tensor:
    """The same for images whose class is among the answers [N, K]."""
    return (answers == labels[:, None]).any(1).double()


def share_among(answers: Tensor, labels: Tensor) -> float:
    """Share of the images whose class is among the answers [N, K]."""
    return int((answers == labels[:, None]).any(1).sum()) / len(labels)


def balanced_accuracy(answers: Tensor, labels: Tensor) -> float:
    """Mean over the classes of the share of their images that are classified rightly."""
    right, present = (answers == labels).double(), torch.bincount(labels).double()
    hits = torch.bincount(labels, right, len(present))
    return float((hits[present > 0] / present[present > 0]).mean())


def macro_f1(answers: Tensor, labels: Tensor) -> float:
    """Mean over the classes, of images or of answers, of 2 hits / (images + answers)."""
    count = int(max(answers.max(), labels.max())) + 1
    hits = torch.bincount(labels[answers == labels], minlength=count).double()
    both = torch.bincount(labels, minlength=count) + torch.bincount(answers, minlength=count)
    return float((2 * hits[both > 0] / both[both > 0]).mean())


def auc(logits: Tensor, labels: Tensor) -> float:
    """Area under the ROC curve, one class against the rest, mean over the classes that some but not all images have."""
    scores = logits.double().softmax(1)
    truth = torch.nn.functional.one_hot(labels, scores.shape[1]).bool()
    return _mean_over(truth, [_area(scores[:, k], truth[:, k]) for k in range(truth.shape[1])])


def _area(scores: Tensor, truth: Tensor) -> float:
    """By the ranks of the true ones (Mann and Whitney 1947); of equal scores each has their mean rank."""
    positive = int(truth.sum())
    if positive in (0, len(truth)):
        return math.nan
    _, place, counts = torch.unique(scores, return_inverse=True, return_counts=True)
    ranks = counts.cumsum(0).double() - (counts.double() - 1) / 2
    summed = float(ranks[place][truth].sum())
    return (summed - positive * (positive + 1) / 2) / (positive * (len(truth) - positive))


def mean_average_precision(scores: Tensor, truth: Tensor) -> float:
    """Mean over labels [N, K] that some image has of the precision at each such image, by falling score."""
    said = truth.bool()
    return _mean_over(said, [_precision(scores[:, k], said[:, k]) for k in range(said.shape[1])])


def _precision(scores: Tensor, truth: Tensor) -> float:
    if not bool(truth.any()):
        return math.nan
    ranked = truth[scores.argsort(descending=True, stable=True)].double()
    precision = ranked.cumsum(0) / torch.arange(1, len(ranked) + 1)
    return float(precision[ranked > 0].mean())


def _mean_over(_truth: Tensor, values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def r2(outputs: Tensor, targets: Tensor) -> float:
    """1 - squared error / variance of the targets [N, K], mean over the columns."""
    found, wanted = outputs.double(), targets.double()
    missed = (found - wanted).square().sum(0)
    spread = (wanted - wanted.mean(0)).square().sum(0)
    return float((1 - missed / spread.clamp_min(1e-12)).mean())


def mae(outputs: Tensor, targets: Tensor) -> float:
    """Mean absolute error."""
    return float((outputs.double() - targets.double()).abs().mean())


def missed(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean absolute error of each image."""
    return (outputs.double() - targets.double()).abs().flatten(1).mean(1)


def error_of_mean(each: Tensor) -> float:
    """The standard deviation over images / sqrt(images); 0 of a single one."""
    return float(each.std()) / math.sqrt(len(each)) if len(each) > 1 else 0.0


CLASSIFICATION = {
    "accuracy": Kind("accuracy", share_right, answers, right, counted=True),
    "top5": Kind("top-5 accuracy", share_among, best_five, among, counted=True),
    "balanced_accuracy": Kind("balanced accuracy", balanced_accuracy, answers),
    "macro_f1": Kind("macro F1", macro_f1, answers),
    "auc": Kind("AUC", auc),
}
MULTILABEL = {"mean_average_precision": Kind("mean average precision", mean_average_precision)}
REGRESSION = {
    "r2": Kind("R\N{SUPERSCRIPT TWO}", r2, low=-math.inf),
    "mae": Kind("mean absolute error", mae, each=missed, high=math.inf, direction=MINIMISE),
}
