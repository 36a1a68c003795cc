"""What a network is judged by: each objective one class, which says everything of itself.

Its unit, its direction, how its values become gains, how far noise goes, and how it is measured of a context that is handed
in. So nothing here imports torch, and the side of the disk that only reads knows as much as the side that measures.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from trainables.records import names as n
from trainables.records.words import counted

MAXIMISE: Final = "maximise"
MINIMISE: Final = "minimise"
LOG2: Final = "log2"
LINEAR: Final = "linear"

# How often what is stored, or executed, is halved when what is asked to remain is: of weights the file that holds them
# (masked, they don't spare a dense runtime anything); of channels, which a layer has on both its sides, their products.
STORED: Mapping[str, float] = {n.UNSTRUCTURED: 1.0, n.STRUCTURED: 2.0, n.MIXED: 1.0}
EXECUTED: Mapping[str, float] = {n.STRUCTURED: 2.0}


class Counts(Protocol):
    """What a network costs, counted."""

    @property
    def params(self) -> int:
        """Parameters kept."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates that a dense runtime executes for one input."""

    @property
    def effective_macs(self) -> int:
        """Those of unmasked weights."""


class Context(Protocol):
    """A network to be measured, as it is stored: read back, in fp32."""

    @property
    def model(self) -> Any:
        """The ``torch.nn.Module``, in eval mode."""

    @property
    def data(self) -> Any:
        """The study's data set (``trainables.data.dataset.Data``), of which ``validation_images`` may be looked at."""

    @property
    def device(self) -> str:
        """Where to measure: cpu or cuda."""

    @property
    def counts(self) -> Counts:
        """What the network costs."""

    @property
    def content(self) -> bytes:
        """The file that holds the weights."""

    @property
    def dense(self) -> Mapping[str, Any] | None:
        """The record of the dense network; None for that one itself."""

    def evaluate(self) -> float:
        """The task's measure on the validation images: the share that is classified rightly, unless a study has another."""

    def error(self) -> float:
        """Its standard error, where it doesn't follow from the value."""

    def milliseconds(self, batch: int | None = None) -> float:
        """One forward pass of a batch, or of a large one, with nothing else of ours running on the host."""


class Objective(ABC):
    """A quantity that is measured of every network, and that a study may search by.

    An objective of your own subclasses this: it gives ``column``, ``label``, ``direction`` and ``measure``, and is named
    ``package.module:Class`` in a study file. How a value becomes a gain follows from ``direction`` and ``scale`` alone, so
    that a report needs no code of yours.
    """

    name: str = ""
    """in a study file"""
    column: str = ""
    """of points.jsonl and every table"""
    label: str = ""
    """of an axis"""
    unit: str = ""
    direction: Literal["maximise", "minimise"] = MAXIMISE
    scale: Literal["log2", "linear"] = LINEAR
    """log2: a gain of 1 is a halving, or a doubling, of the dense network's value; linear: the value itself"""
    slack: float | None = 0.0
    """how much worse than the dense network the hypervolume's reference is, in gains; None: reference.accuracy_drop"""
    fills: tuple[str, ...] = ()
    """further columns, which ``beside`` gives"""
    of_host: bool = False
    """whether its value belongs to the machine that it was measured on: kept beside the steps, compared within one key"""
    dense_columns: Mapping[str, str] = MappingProxyType({})
    """of a host's: column -> where a point keeps the dense network's value under the same key"""
    drawn: bool = False
    """whether every report shows accuracy against it"""
    quality: bool = False
    """whether it is what pruning costs: a cut seldom makes it better, and ``noise`` is known"""
    halved: Mapping[str, float] | None = None
    """family -> how often it is halved, at best, when what is asked to remain is; None: nothing is known of it"""
    source: str | None = None
    """of a user's own: the hash of the code that measures it"""

    def __repr__(self) -> str:
        return self.name

    @abstractmethod
    def measure(self, context: Context) -> float:
        """The value of a network; it must be finite, and above 0 on a log2 scale."""

    def beside(self, _context: Context) -> Mapping[str, Any]:
        """The values of ``fills``."""
        return {}

    def noise(self, _value: float, _images: int) -> float:
        """Standard error of a value measured on so many validation images; 0 where there is none, or it isn't known."""
        return 0.0

    @property
    def axis(self) -> str:
        """What a figure writes on the axis of its gains."""
        if self.scale == LINEAR:
            return self.label + (f" ({self.unit})" if self.unit else "")
        return f"{self.noun} ({'dense / pruned' if self.direction == MINIMISE else 'pruned / dense'})"

    @property
    def noun(self) -> str:
        """What its gain is called in a sentence."""
        if self.scale == LINEAR:
            return self.label
        return f"{'reduction' if self.direction == MINIMISE else 'growth'} of {self.label}"

    def gain(self, value: float, dense: float) -> float:
        """What a value is worth beside the dense network's: larger is better."""
        sign = 1.0 if self.direction == MAXIMISE else -1.0
        return sign * (math.log2(value / dense) if self.scale == LOG2 else value)

    def origin(self, dense: float, accuracy_drop: float) -> float:
        """The hypervolume's fixed reference, in gains: no better than dense, less the slack."""
        return self.gain(dense, dense) - self.margin(accuracy_drop)

    def margin(self, accuracy_drop: float) -> float:
        """How far the dense network itself lies above the reference."""
        return accuracy_drop if self.slack is None else self.slack

    def dense_value(self, point: Mapping[str, Any], dense: Mapping[str, Any]) -> float:
        """What a point's value is compared with: of a host's, the dense network's under the point's own key."""
        beside = point.get(self.dense_columns.get(self.column, ""))
        return float(dense[self.column] if beside is None or math.isnan(beside) else beside)

    def describe(self) -> dict[str, Any]:
        """What those need who can't import the class: JSON, in which ``Description`` reads it."""
        return {name: getattr(self, name) for name in (*Description.model_fields, "source")}


class Quality(Objective):
    """What a task wants of a network: measured on the validation images, and what pruning costs."""

    slack, quality = None, True
    low: float = -math.inf
    """the least that a value can be"""
    high: float = math.inf
    """the most"""
    counted: bool = False
    """whether it is a share of the images, so that its noise follows from the value; else that is measured beside it"""

    @property
    def before(self) -> str:
        """The column of its value between a cut and its retraining."""
        return f"{self.column}_before"

    @property
    def recalibrated(self) -> str:
        """The column of the same with BatchNorm's statistics estimated anew: what a look at a cut tells."""
        return f"{self.column}_recalibrated"

    @property
    def error(self) -> str:
        """The column of its standard error, where that is measured."""
        return f"{self.column}_error"

    @property
    def test(self) -> str:
        """The column of its value on the test images."""
        return f"test_{self.column}"

    @property
    def test_paired(self) -> str:
        """The column of the standard error of its difference to the dense network's value, on the same test images."""
        return f"{self.test}_paired_error"

    @property
    def retrained(self) -> str:
        """The column of the validation value of a network that was trained again, and came out different."""
        return f"retrained_{self.column}"

    @property
    def is_share(self) -> bool:
        """Whether its values go from 0 to 1."""
        return (self.low, self.high) == (0.0, 1.0)

    @property
    def has_scale(self) -> bool:
        """Whether the same difference means as much in every study: what is best is a number, and more is better."""
        return self.direction == MAXIMISE and math.isfinite(self.high)

    @property
    def test_label(self) -> str:
        """Of an axis with its values on the test images."""
        return f"test {self.label.removeprefix('validation ')}"

    @property
    def article(self) -> str:
        """What stands before its name."""
        return "an" if self.name[0] in "aeiou" else "a"

    def told(self, value: float, digits: int = 2) -> str:
        """A value in words: a share in percent, anything else in four digits with its unit."""
        if self.is_share:
            return f"{value:.{digits}%}"
        return f"{value:.4g}" + (f" {self.unit}" if self.unit else "")

    def told_drop(self, drop: float) -> str:
        """How much worse a value is, in words."""
        if not self.is_share:
            return f"{drop:.4g} {self.unit or f'of {self.name}'}"
        return counted(round(100 * drop, 6), "point")

    def told_loss(self, lost: float) -> str:
        """The same of what was measured, in as many digits as it deserves: of a share to hundredths of a point."""
        return self.told_drop(round(lost, 4) if self.is_share else lost)

    def told_change(self, change: float) -> str:
        """A change in words, with its sign."""
        return f"{100 * change:+.2f} points" if self.is_share else f"{change:+.4g} {self.unit or f'of {self.name}'}"

    def told_spread(self, mean: float, spread: float, *, change: bool = False) -> str:
        """A mean and its standard deviation (or NaN) in words: a share in percent, and a ``change`` with its sign."""
        if math.isnan(mean):
            return "-"
        scale, kind = (100.0, ".2f") if self.is_share else (1.0, ".4g")
        text = f"{scale * mean:{'+' if change else ''}{kind}}"
        return text if math.isnan(spread) else f"{text} ± {scale * spread:{kind}}"

    def measure(self, context: Context) -> float:
        """Between ``low`` and ``high``."""
        return context.evaluate()

    def beside(self, context: Context) -> Mapping[str, Any]:
        """Its standard error, where that doesn't follow from the value."""
        return {} if self.counted else {self.error: context.error()}

    def noise(self, value: float, images: int) -> float:
        """The standard error of a share, sqrt(a(1 - a)/n); 0 where it doesn't follow from the value."""
        if not self.counted:
            return 0.0
        share = min(max(value, 0.5 / images), 1 - 0.5 / images)
        return math.sqrt(share * (1 - share) / images)

    def noise_beside(self, rows: Iterable[Mapping[str, Any]], images: int) -> float:
        """The largest standard error of the values in rows of networks, such as the dense ones."""
        errors = (self.noise(row[self.column], images) if self.counted else row.get(self.error) or 0.0 for row in rows)
        return max(errors, default=0.0)


class Accuracy(Quality):
    """Share of the validation images that are classified rightly."""

    name, column, label = "accuracy", n.ACCURACY, "validation accuracy"
    low, high, counted = 0.0, 1.0, True


class Compression(Objective):
    """Bytes of the dense network's file / bytes of the file that holds the network."""

    name, column, label = "compression", n.COMPRESSION, "compression"
    axis, noun = "compression (dense bytes / stored bytes)", "compression"
    scale, fills, drawn = LOG2, (n.STORED_BYTES,), True
    halved = STORED

    def measure(self, context: Context) -> float:
        """1 for the dense network."""
        size = len(context.content)
        return float(context.dense[n.STORED_BYTES]) / size if context.dense else 1.0

    def beside(self, context: Context) -> Mapping[str, Any]:
        """The file's size."""
        return {n.STORED_BYTES: len(context.content)}


class Macs(Objective):
    """Multiply-accumulates that a dense runtime executes for one input."""

    name, column, label = "macs", n.MACS, "MACs"
    direction, scale, fills, drawn = MINIMISE, LOG2, (n.EFFECTIVE_MACS,), True
    halved = EXECUTED

    def measure(self, context: Context) -> float:
        """Of convolutions and linear layers."""
        return context.counts.macs

    def beside(self, context: Context) -> Mapping[str, Any]:
        """Those of unmasked weights."""
        return {n.EFFECTIVE_MACS: context.counts.effective_macs}


class Params(Objective):
    """Parameters kept."""

    name, column, label = "params", n.PARAMS, "parameters kept"
    axis, noun = "reduction of parameters (dense / kept)", "reduction of parameters"
    direction, scale = MINIMISE, LOG2
    halved = STORED

    def measure(self, context: Context) -> float:
        """A masked weight isn't kept."""
        return context.counts.params


class Latency(Objective):
    """Milliseconds of one forward pass at batch 1, and beside it at a large one."""

    name, column, label, unit = "latency", n.LATENCY, "latency at batch 1 (ms)", "ms"
    axis, noun = "speed-up at batch 1 (dense ms / pruned ms)", "speed-up"
    direction, scale, drawn = MINIMISE, LOG2, True
    fills: tuple[str, ...] = (n.LATENCY_LARGE,)
    of_host = True
    dense_columns: Mapping[str, str] = MappingProxyType(
        {n.LATENCY: n.LATENCY_DENSE, n.LATENCY_LARGE: n.LATENCY_LARGE_DENSE}
    )
    halved: Mapping[str, float] | None = EXECUTED

    def measure(self, context: Context) -> float:
        """Median of many."""
        return context.milliseconds(1)

    def beside(self, context: Context) -> Mapping[str, Any]:
        """The same of a large batch."""
        return {n.LATENCY_LARGE: context.milliseconds()}


TARGETS: Mapping[str, str] = {"onnx": "onnxruntime"}
"""What runs a network in place of PyTorch, by the name that an objective has for it: ``latency.onnx``."""


class LatencyOn(Latency):
    """Milliseconds of one forward pass at batch 1 elsewhere than in PyTorch: by onnxruntime, or by a function of one's own.

    All of it follows from the target's name, so that who reads a study's points needs nothing of what measured them.
    """

    fills = ()
    drawn = False

    def __init__(self, target: str) -> None:
        stem = f"latency_{re.sub(r'[^a-z0-9]+', '_', target.lower()).strip('_')}"
        self.name, self.target = f"{LATENCY.name}.{target}", target
        self.column, self.dense_columns = f"{stem}_ms", {f"{stem}_ms": f"{stem}_dense_ms"}
        by = TARGETS.get(target, target)
        self.label = f"latency by {by} at batch 1 (ms)"
        self.axis = f"speed-up by {by} at batch 1 (dense ms / pruned ms)"
        self.noun = f"speed-up by {by}"
        # A runtime of one's own may save what others multiply by zero.
        self.halved = EXECUTED if target in TARGETS else None

    def measure(self, context: Context) -> float:  # noqa: ARG002
        """Never: its target does (``trainables.measuring.runtimes``)."""
        raise TypeError(f"{self.name} is measured by its target")

    def beside(self, context: Context) -> Mapping[str, Any]:  # noqa: ARG002
        """Nothing."""
        return {}


ACCURACY, COMPRESSION, LATENCY = Accuracy(), Compression(), Latency()
"""What a classification is measured by, and what is gained where a study names nothing else."""
OBJECTIVES: Mapping[str, Objective] = {one.name: one for one in (ACCURACY, COMPRESSION, Macs(), Params(), LATENCY)}
"""Those of this program, by name. A new one is a class above and an entry here: its columns follow."""


def _readable(text: str) -> str:
    # A dollar sign would be mathematics on an axis, and the others a formula in a sheet.
    if not text.isprintable() or "$" in text or text.startswith(("=", "+", "-", "@")):
        raise ValueError("use plain words, without $, and not beginning like a formula")
    return text


def _new_column(column: str) -> str:
    if column in (*columns_of(), n.TEST_ACCURACY, n.RETRAINED_ACCURACY):
        raise ValueError("there is a column of this name; choose another")
    return column


Words = Annotated[str, Field(max_length=80), AfterValidator(_readable)]


class Description(BaseModel):
    """What is on record of an objective that isn't ours."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, strict=True)

    column: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$"), AfterValidator(_new_column)]
    label: Annotated[Words, Field(min_length=1)]
    unit: Words = ""
    direction: Literal["maximise", "minimise"]
    scale: Literal["log2", "linear"]
    slack: Annotated[float, Field(ge=0)] | None = 0.0


class Described(Objective):
    """An objective whose class isn't at hand, as ``methods.json`` describes it."""

    def __init__(self, name: str, described: Description) -> None:
        self.name = name
        for field in Description.model_fields:
            setattr(self, field, getattr(described, field))

    def measure(self, context: Context) -> float:  # noqa: ARG002
        """Never: what measures is code that isn't here."""
        raise TypeError(f"{self.name} is described and not at hand; it measures nothing")


def latency_on(name: str) -> LatencyOn | None:
    """The latency of another target, if an objective's name is written as one: ``latency.onnx``."""
    found = re.fullmatch(rf"{LATENCY.name}\.([\w.:]+)", name)
    return LatencyOn(found[1]) if found else None


def objectives_of(given: Iterable[str | Objective]) -> tuple[Objective, ...]:
    """Objectives, of which ours may be given by name."""
    return tuple(OBJECTIVES[one] if isinstance(one, str) else one for one in given)


def gains(point: Mapping[str, Any], dense: Mapping[str, Any], objectives: Sequence[str | Objective]) -> list[float]:
    """The point's gain on each objective, all to be maximised. ``dense`` is the record of the dense network."""
    return [one.gain(float(point[one.column]), one.dense_value(point, dense)) for one in objectives_of(objectives)]


def reference(dense: Mapping[str, Any], objectives: Sequence[str | Objective], accuracy_drop: float) -> list[float]:
    """The hypervolume's reference point in gains (see ``Objective.origin``)."""
    return [one.origin(float(dense[one.column]), accuracy_drop) for one in objectives_of(objectives)]


def columns_of(objectives: Iterable[Objective] = ()) -> tuple[str, ...]:
    """The columns of points.jsonl, in order: the fixed ones, then what objectives add to them."""
    ours = (column for one in (*OBJECTIVES.values(), *objectives) for column in own_columns(one))
    return tuple(dict.fromkeys((*n.POINT_COLUMNS, *ours)))


def own_columns(objective: Objective) -> tuple[str, ...]:
    """The columns that tell of one objective."""
    before = (objective.before, objective.recalibrated) if isinstance(objective, Quality) else ()
    return (*before, objective.column, *objective.fills, *objective.dense_columns.values())
