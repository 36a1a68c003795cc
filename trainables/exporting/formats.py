"""Formats of files that a network is exported to, for use outside a study."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from trainables.exporting import network_file
from trainables.forms.forms import FORMS
from trainables.methods import Method, Registry
from trainables.networks.network import Network
from trainables.problem import Problem
from trainables.records import names as n


class Format(Method):
    """How a network is written to a file of its own."""

    suffix: ClassVar[str]
    """What the file's name ends with."""

    @abstractmethod
    def write(self, network: Network, problem: Problem, target: Path) -> int:
        """Write the file whole or not at all; the bytes written. The network's values are those of its stored form."""


class Safetensors(Format):
    """Plain safetensors with a JSON description, encoded as the steps are; ``trainables.export.load`` reads it."""

    name, suffix = n.SAFETENSORS, ".safetensors"

    def write(self, network: Network, problem: Problem, target: Path) -> int:
        """Nothing in the file is code."""
        return network_file.export(network, problem, target)


class Compact(Format):
    """The smallest file, of any stored form, for inference; ``trainables.export.load`` reads it."""

    name, suffix = n.COMPACT, ".compact"
    form: str = Field(n.FP32, description="the stored form of the values")

    def write(self, network: Network, problem: Problem, target: Path) -> int:
        """Nothing in the file is code."""
        form = FORMS.load(self.form, trusted=problem.trusted)()
        return network_file.export(network, problem, target, form)


FORMATS = Registry[Format]("format", Format, (Safetensors, Compact))
