"""Training and evaluation: one loop for the dense network, fine-tuning, rewinding and regularised training.

bf16 autocast on channels-last memory makes a step fast on a processor without an accelerator. The data set is one uint8
tensor in memory, which all workers of a machine share, and a batch is augmented by a single gather; that keeps what is left
of a step small (``benchmarks/throughput.py`` shows what each part gives).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from trainables.data.dataset import Data
from trainables.data.mapped import Pixels
from trainables.networks.limits import frozen_norms
from trainables.networks.reproducible import reproducible
from trainables.networks.running import channels_last
from trainables.records.names import InputError
from trainables.records.points import quality_problem
from trainables.settings import Settings
from trainables.tasks.base import guarded
from trainables.training.feeding import Feed, normalise, tensors
from trainables.training.optimizers import OPTIMIZERS, Optimizer, Sgd, make, set_rate
from trainables.training.resuming import Resumable, Training
from trainables.training.stepping import CudaGraph, Hook, Loss, Precision, Recorded, Step, Update

EVALUATION_BATCH, CPU_EVALUATION_BATCH = 1000, 256
"""On a processor small enough for what a layer computes to stay in its cache: on an AMD EPYC a third faster, with the same
logits bit by bit (networks of the comparison)."""
EVALUATION_SEED = 0
"""Of what a network draws in evaluation, should it do so."""


class TrainingDivergedError(RuntimeError):
    """The loss became infinite or not a number."""


Decay = Literal["linear", "cosine", "constant"]


class GivenRecipe(Settings):
    """The schedule that a given network was trained with, whose end learning-rate rewinding replays."""

    epochs: int = Field(ge=1, description="epochs that the given network was trained; with these, lr_rewind works on it")
    learning_rate: float = Field(gt=0, description="peak of its learning rate")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of its epochs that warmed up")
    decay: Decay = Field("cosine", description="how its learning rate fell: cosine or linear (to 0) | constant")


class DenseSettings(Settings):
    """How the dense network is trained when no checkpoint is given; its batch, optimizer and decay hold for retraining."""

    epochs: int = Field(30, ge=1, description="epochs of the dense training")
    learning_rate: float = Field(0.1, gt=0, description="peak of the dense schedule: a linear warm-up, then decay")
    warmup: float = Field(0.2, ge=0, lt=1, description="share of the dense epochs that warm up")
    batch_size: int = Field(256, ge=2, description="images a batch, in dense training and in retraining")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum (Nesterov) of SGD, everywhere")
    weight_decay: float = Field(5e-4, ge=0, description="weight decay of SGD, everywhere")
    rewind_epoch: int = Field(1, ge=0, description="the early epoch whose weights weight rewinding goes back to")
    threads: int = Field(2, ge=1, description="threads that train the dense network; part of its identity")
    decay: Decay = Field("linear", description="after the warm-up: linear | cosine (both to 0) | constant")
    optimizer: Annotated[str, AfterValidator(OPTIMIZERS.known)] = Field(
        Sgd.name, description=f"{OPTIMIZERS.help()} | package.module:Class (--allow-code), everywhere"
    )
    clip_norm: float | None = Field(
        None, gt=0, description="largest norm of all gradients together, everywhere; larger ones are scaled to it"
    )
    recipe: GivenRecipe | None = None

    def scheduled(self, *, given: bool) -> DenseSettings:
        """With the schedule that the dense network has been trained with, if that is known of one that was given."""
        if not given or self.recipe is None:
            return self
        return self.model_copy(update=self.recipe.model_dump())

    def identity(self, *, given: bool) -> dict[str, Any]:
        """What stands for it in a dense network's address: of one that was given only what retraining takes over.

        What came later is left out at its default. The recipe is told by the steps that replay it.
        """
        later = {name: getattr(self, name) for name in ("decay", "optimizer", "clip_norm")}
        changed = {key: value for key, value in later.items() if value != type(self).model_fields[key].default}
        if given:
            names = ("batch_size", "momentum", "weight_decay", *(changed.keys() - {"decay"}))
            return {name: getattr(self, name) for name in names}
        return {**self.model_dump(exclude={*later, "recipe"}), **changed}


@dataclass(frozen=True)
class LearningRate:
    """A piecewise-linear schedule over epochs: ``values[i]`` at ``epochs[i]``."""

    epochs: tuple[float, ...]
    values: tuple[float, ...]
    cosine: bool = False
    """Whether the last of its pieces is half a wave of a cosine (Loshchilov and Hutter 2017) instead of a line."""

    def at(self, epoch: float) -> float:
        """The learning rate at a (fractional) epoch."""
        start, end = self.epochs[-2:]
        if not self.cosine or epoch <= start:
            return float(np.interp(epoch, self.epochs, self.values))
        above, below = self.values[-2:]
        return below + (above - below) * (1 + math.cos(math.pi * min(1.0, (epoch - start) / (end - start)))) / 2


def dense_schedule(dense: DenseSettings) -> LearningRate:
    """The one-cycle schedule (Smith and Topin 2018), in its linear form unless it says otherwise, of the dense training."""
    peak, total, cosine = dense.learning_rate, float(dense.epochs), dense.decay == "cosine"
    last = peak if dense.decay == "constant" else 0.0
    if dense.warmup == 0:
        return LearningRate((0.0, total), (peak, last), cosine)
    return LearningRate((0.0, dense.warmup * total, total), (0.1 * peak, peak, last), cosine)


SGD = Sgd()


@dataclass(frozen=True)
class Recipe:
    """One call of :func:`fit`: epochs ``start`` to ``stop`` of a learning-rate schedule, and the optimizer's settings.

    ``auxiliary`` is the weight of the loss of each auxiliary output. With ``hold_frozen``, BatchNorm layers whose
    parameters are frozen keep their statistics too, and normalise by them; torch alone would go on estimating these.
    With ``recorded``, for a GPU, updates are replayed from a CUDA graph: all that they call must do the same each time.
    """

    rate: LearningRate
    start: int
    stop: int
    batch_size: int
    momentum: float
    weight_decay: float
    precision: Precision
    device: str = "cpu"
    auxiliary: float = 0.0
    hold_frozen: bool = False
    optimizer: Optimizer = SGD
    clip_norm: float | None = None
    recorded: bool = False

    @property
    def epochs(self) -> int:
        """Epochs that this recipe trains."""
        return self.stop - self.start


def fit(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    seed: int,
    *,
    before_update: Hook | None = None,
    after_update: Hook | None = None,
    after_epoch: Callable[[int, nn.Module], None] | None = None,
    resumable: Resumable | None = None,
    loss: Loss | None = None,
) -> None:
    """Train ``model`` in place on the training images, and end with the last epoch's weights; ``loss`` is the task's.

    Every random draw (order, crops, flips, dropout, and what a network draws from Python's or NumPy's generator) comes
    from ``seed``. ``before_update`` runs between backward and the optimizer (regularisers add to gradients there),
    ``after_update`` after it (masks are applied again there).
    With ``resumable`` it goes on where an earlier one was interrupted, with hooks that are ``Stateful`` as they were then.
    Raises TrainingDivergedError when the loss of an epoch is not finite.
    """
    channels_last(model.to(recipe.device)).train()
    for norm in frozen_norms(model).values() if recipe.hold_frozen else ():
        norm.eval()
    feed = Feed(data, recipe.batch_size, recipe.device)
    optimizer = make(recipe.optimizer, model, recipe.momentum, recipe.weight_decay)
    random = torch.Generator().manual_seed(seed)
    training = Training(model, optimizer, random, range(recipe.start, recipe.stop), feed.batches)
    step: Update = Step(
        model, optimizer, data.task, recipe.precision, recipe.device, recipe.auxiliary, recipe.clip_norm, loss,
        before_update, after_update,
    )  # fmt: skip
    if recipe.recorded and before_update is None:  # penalties are torch-pruning's, which look at values
        step = Recorded(step, CudaGraph())
    with reproducible(seed, recipe.device):
        if resumable is not None:
            resumable.resume(training, before_update=before_update, after_update=after_update)
        while training.epoch < recipe.stop:
            feed.draw(random)
            while training.batch < training.batches:
                set_rate(optimizer, recipe.rate.at(training.middle))
                training.loss += step(*feed.batch(training.batch))
                training.batch += 1
                if resumable is not None and training.batch < training.batches:
                    resumable.after_update(training)
            _check_finite(training)
            training.begin(training.epoch + 1)
            if after_epoch is not None:
                after_epoch(training.epoch, model)
            if resumable is not None and training.epoch < recipe.stop:
                resumable.after_update(training)


def _check_finite(training: Training) -> None:
    if not math.isfinite(mean := float(training.loss) / training.batches):
        raise TrainingDivergedError(f"the training loss is {mean} in epoch {training.epoch + 1}; lower the learning rate")


class Judged(NamedTuple):
    """What a network's outputs for some images are worth: the task's measure, and its standard error if that is wanted."""

    value: float
    error: float | None = None


def evaluate(model: nn.Module, data: Data, device: str = "cpu") -> float:
    """The task's measure on the validation images in fp32; BatchNorm's statistics are left as they are."""
    return judge(model, *tensors(data.validation_images, data.validation_labels, device), data, device).value


@torch.no_grad()
def judge(model: nn.Module, images: Pixels, targets: Pixels, data: Data, device: str, *, error: bool = False) -> Judged:
    """The task's measure of ``model`` on images [N, H, W, C], normalised as the training images are.

    InputError if a measure of the user's own fails, or gives no number.
    """
    return judge_outputs(kept_outputs(model, images, data, device), targets.cpu(), data, error=error)


def judge_outputs(outputs: Tensor, truth: Tensor, data: Data, *, error: bool = False) -> Judged:
    """The same of what was kept of its outputs."""
    task, quality = data.task, data.task.quality
    value = guarded(task, "its measure", lambda: float(task.measure(outputs, truth)))
    if problem := quality_problem(quality, value):
        raise InputError(f"task: {task.name!r}: {quality.name} {problem}; correct what it measures")
    known = guarded(task, "its error", lambda: float(task.error(outputs, truth))) if error else None
    return Judged(value, known)


def difference_error(outputs: Tensor, others: Tensor, truth: Tensor, data: Data) -> float:
    """The standard error of the difference of two networks' measures on the same images; InputError as for a measure."""
    task = data.task
    found: float = guarded(task, "its error", lambda: float(task.difference_error(outputs, others, truth)))
    return found


@torch.no_grad()
def kept_outputs(model: nn.Module, images: Pixels, data: Data, device: str) -> Tensor:
    """What the task's measure needs of the outputs for all images, on the CPU."""
    channels_last(model.to(device)).eval()
    batch = CPU_EVALUATION_BATCH if device == "cpu" else EVALUATION_BATCH
    found = []
    with reproducible(EVALUATION_SEED, device):
        for some in images.split(batch):
            outputs = model(normalise(some, data))
            found.append(guarded(data.task, "what it keeps of outputs", partial(data.task.kept, outputs)).cpu())
    return torch.cat(found)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch computes with ``count`` threads inside; sums are ordered by threads, so the count is part of a result."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fastest_precision(device: str) -> Precision:
    """bf16 where the hardware multiplies it natively, else fp32."""
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("bf16") else "fp32"
