"""Formats of files that a network is exported to, for use outside a study."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from trainables.exporting import safetensors_file
from trainables.methods import Method, Registry
from trainables.networks.network import Network
from trainables.problem import Problem


class Format(Method):
    """How a network is written to a file of its own."""

    suffix: ClassVar[str]
    """What the file's name ends with."""

    @abstractmethod
    def write(self, network: Network, problem: Problem, target: Path) -> int:
        """Write the file whole or not at all; the bytes written."""


class Safetensors(Format):
    """Plain safetensors with a JSON description, encoded as the steps are; ``trainables.export.load`` reads it."""

    name, suffix = "safetensors", ".safetensors"

    def write(self, network: Network, problem: Problem, target: Path) -> int:
        """Nothing in the file is code."""
        return safetensors_file.export(network, problem, target)


FORMATS = Registry[Format]("format", Format, (Safetensors,))
