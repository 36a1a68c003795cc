"""Formats of files that a network is exported to, for use outside a study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from trainables.exporting import network_file
from trainables.exporting.base import File, Format
from trainables.exporting.onnx_file import Onnx
from trainables.exporting.programs import TorchExport
from trainables.exporting.quantised import OnnxInt8
from trainables.forms.forms import FORMS
from trainables.methods import Registry
from trainables.networks.network import Network
from trainables.problem import Problem
from trainables.records import names as n

USAGE = """\
import torch
from trainables.export import load

exported = load({file!r}{trusted})
mean, std = (torch.tensor(one)[:, None, None] for one in (exported.mean, exported.std))
images = torch.zeros(1, *exported.shape)  # [N, C, H, W], {scale}
with torch.no_grad():
    outputs = exported.model((images - mean) / std).numpy()
print({answer})"""


def _usage(file: str, problem: Problem) -> str:
    trusted = ", allow_code=True" if problem.trusted else ""
    scale = "in 0..1" if problem.data.validation_images.dtype == "uint8" else "floats"
    answer = problem.data.task.answer("outputs", "exported.classes")
    return USAGE.format(file=file, trusted=trusted, scale=scale, answer=answer)


class Safetensors(Format):
    """Plain safetensors with a JSON description, encoded as the steps are; ``trainables.export.load`` reads it."""

    name, suffix = n.SAFETENSORS, ".safetensors"

    def encode(self, network: Network, problem: Problem, about: Mapping[str, Any]) -> File:  # noqa: ARG002
        """Nothing in the file is code."""
        return File(network_file.content_of(network, problem))

    def usage(self, file: str, problem: Problem) -> str:
        """By this program; ``docs/loading.md`` has a loader that does without."""
        return _usage(file, problem)


class Compact(Format):
    """The smallest file, of any stored form, for inference; ``trainables.export.load`` reads it."""

    name, suffix = n.COMPACT, ".compact"
    form: str = Field(n.FP32, description="the stored form of the values")

    def encode(self, network: Network, problem: Problem, about: Mapping[str, Any]) -> File:  # noqa: ARG002
        """Nothing in the file is code."""
        return File(network_file.content_of(network, problem, FORMS.load(self.form, trusted=problem.trusted)()))

    def usage(self, file: str, problem: Problem) -> str:
        """By this program alone."""
        return _usage(file, problem)


FORMATS = Registry[Format]("format", Format, (Safetensors, Compact, TorchExport, Onnx, OnnxInt8))
