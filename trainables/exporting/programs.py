"""Networks as programs that run without this one and without their Python: what all such formats share, and torch's own."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from trainables.data.dataset import Data
from trainables.exporting.base import File, Format
from trainables.exporting.folding import folded
from trainables.networks.network import Network
from trainables.networks.reproducible import reproducible
from trainables.networks.running import evaluating
from trainables.problem import Problem
from trainables.records.names import InputError
from trainables.training.feeding import normalise, tensors
from trainables.training.loop import threads

Preprocessing = bool | Literal["uint8"]
IMAGES = "images"
LOGITS = "logits"
"""The program's input [N, C, H, W] and its output [N, classes]."""
CHECKED = 256
"""Validation images that a file's logits are compared on."""
SIZES = (1, 3, 64)
"""Of the batches that they come in, the last of them again and again."""

USAGE = """\
import torch

program = torch.export.load({file!r}).module()
images = {example}  # [N, C, H, W], {takes}
print({answer})"""


class Served(nn.Module):
    """The network behind what is done to images on their way into it."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, data: Data, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model, self.preprocessing = model, preprocessing
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(data, name))[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, classes] of images [N, C, H, W]: normalised, or as ``preprocessing`` takes them."""
        if self.preprocessing == "uint8":
            images = images.to(torch.float32) / 255
        if self.preprocessing:
            images = (images - self.mean) / self.std
        logits: Tensor = self.model(images)
        return logits


class Program(Format):
    """A network as a program, for batches of any size. Masked weights are zeros in it."""

    preprocessing: Preprocessing = Field(
        False, description="whether images are normalised inside: true takes floats in 0..1, uint8 takes bytes"
    )
    fold: bool = Field(False, description="whether BatchNorm is folded into the layer before it")
    tolerance: float = Field(1e-4, gt=0, description="the largest difference from PyTorch's logits that is accepted")

    def captured(self, network: Network, problem: Problem) -> tuple[ExportedProgram, tuple[str, ...]]:
        """The network as a program of torch's, and what to tell of it; InputError if it can't be one."""
        self.check_installed()
        if self.preprocessing == "uint8" and problem.data.validation_images.dtype != "uint8":
            raise InputError("--option preprocessing: uint8, but the study's images are floats; use true")
        model = Served(evaluating(network.model.cpu()), problem.data, self.preprocessing).eval()
        example = fed(_images(problem.data, 2), problem.data, self.preprocessing)
        with refused(self.name):
            program = _export(model, example)
            if not self.fold:
                return program, ()
            model, count = folded(model, program)  # type: ignore[assignment]
            return _export(model, example), (f"BatchNorm layers folded into the layers before them: {count}.",)

    def checked(self, run: Callable[[Tensor], Tensor], network: Network, problem: Problem) -> str:
        """How far what a file computes is from the network on validation images, in words.

        InputError if that is more than the tolerance.
        """
        images = _images(problem.data, CHECKED)
        with refused(self.name), threads(problem.threads):
            difference = largest_difference(run, network.model, images, problem.data, self.preprocessing)
        if not difference <= self.tolerance:
            raise InputError(
                f"format: {self.name} differs from PyTorch by {difference:.2g} in a logit, more than {self.tolerance:g}, "
                "and was not written; use another format, or accept it with --option tolerance=NUMBER"
            )
        return f"Largest difference from PyTorch: {difference:.2g} in a logit, on {len(images)} validation images."

    def takes(self, problem: Problem) -> str:
        """What the program takes, in words."""
        if self.preprocessing == "uint8":
            return "uint8"
        scale = "in 0..1" if problem.data.validation_images.dtype == "uint8" else "floats"
        if self.preprocessing:
            return scale
        return f"{scale}, less {list(problem.data.mean)}, over {list(problem.data.std)} by channel"


class TorchExport(Program):
    """A program of torch.export, .pt2, for batches of any size; torch runs it without the network's Python."""

    name, suffix = "torch_export", ".pt2"

    def encode(self, network: Network, problem: Problem, about: Mapping[str, Any]) -> File:
        """The program, read back and compared; with the class names and ``about`` beside it."""
        program, notes = self.captured(network, problem)
        buffer = io.BytesIO()
        told = json.dumps({"classes": problem.data.classes, "takes": self.takes(problem), **about})
        with refused(self.name):
            torch.export.save(program, buffer, extra_files={"about.json": told})
            again = torch.export.load(io.BytesIO(buffer.getvalue())).module()
        return File(buffer.getvalue(), (self.checked(again, network, problem), *notes))

    def usage(self, file: str, problem: Problem) -> str:
        """By torch alone."""
        kind = ", dtype=torch.uint8" if self.preprocessing == "uint8" else ""
        example = f"torch.zeros(1, {', '.join(map(str, problem.data.shape))}{kind})"
        answer = problem.data.task.answer("program(images)")
        return USAGE.format(file=file, example=example, takes=self.takes(problem), answer=answer)


def _export(model: nn.Module, example: Tensor) -> ExportedProgram:
    return torch.export.export(model, (example,), dynamic_shapes=({0: Dim("batch", min=1)},))


def _images(data: Data, count: int) -> Tensor:
    """Validation images [N, H, W, C] as they are stored."""
    return tensors(data.validation_images[:count], data.validation_labels[:count], "cpu")[0]


def fed(images: Tensor, data: Data, preprocessing: Preprocessing) -> Tensor:
    """Images [N, H, W, C] as a program with this preprocessing takes them, [N, C, H, W]."""
    if not preprocessing:
        return normalise(images, data).contiguous()
    plain = images.permute(0, 3, 1, 2).contiguous()
    return plain / 255 if plain.dtype == torch.uint8 and preprocessing is True else plain


@torch.no_grad()
def largest_difference(
    run: Callable[[Tensor], Tensor], model: nn.Module, images: Tensor, data: Data, preprocessing: Preprocessing
) -> float:
    """How far logits are apart at most, in batches of several sizes; infinite where one isn't a number."""
    found = 0.0
    with reproducible(0, "cpu"):
        for some in images.split(_sizes(len(images))):
            apart = (run(fed(some, data, preprocessing)) - model(normalise(some, data))).abs().max()
            found = max(found, float(apart.nan_to_num(torch.inf)))
    return found


def _sizes(count: int) -> list[int]:
    """Sizes of batches that add up to ``count``."""
    found, left = list[int](), count
    while left:
        found.append(min(left, SIZES[min(len(found), len(SIZES) - 1)]))
        left -= found[-1]
    return found


@contextlib.contextmanager
def refused(name: str) -> Iterator[None]:
    """What a library says, prints or raises inside becomes one line: that this format can't hold the network, and why."""
    before = logging.root.manager.disable
    silent = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)
            yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # exporters raise anything, of their own and of the network's
        raise InputError(f"format: {name} can't hold this network ({_reason(error)}); use another format") from error
    finally:
        logging.disable(before)


def _reason(error: BaseException) -> str:
    """The first line of what was first raised."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines: Sequence[str] = str(error).strip().splitlines() or [""]
    if "Constraints violated" in lines[0]:
        return "it computes with one number of images in a batch, as len(x) in a forward pass does and x.shape[0] doesn't"
    return f"{type(error).__name__}: {lines[0][:200]}"
