"""What a format of exported files is."""

from __future__ import annotations

import importlib.util
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from trainables.methods import Method
from trainables.networks.network import Network
from trainables.problem import Problem
from trainables.records.files import write_atomically
from trainables.records.names import InputError


@dataclass(frozen=True)
class File:
    """The content of an exported file, and what its user should know of it, in sentences."""

    content: bytes
    notes: tuple[str, ...] = ()


class Format(Method):
    """How a network is written to a file of its own."""

    suffix: ClassVar[str]
    """What the file's name ends with."""
    requires: ClassVar[Sequence[str]] = ()
    """Requirements, as pip takes them, that are installed only by who needs this format."""

    @abstractmethod
    def encode(self, network: Network, problem: Problem, about: Mapping[str, Any]) -> File:
        """The file, checked; InputError, in one line, if it can't hold the network.

        The network's values are those of its stored form. ``about`` says in JSON which point it is and what was measured.
        """

    @abstractmethod
    def usage(self, file: str, problem: Problem) -> str:
        """Python that loads the file and classifies an image."""

    def write(self, network: Network, problem: Problem, target: Path, about: Mapping[str, Any] | None = None) -> File:
        """Write the file whole or not at all."""
        file = self.encode(network, problem, about or {})
        write_atomically(target, file.content)
        return file

    @classmethod
    def check_installed(cls) -> None:
        """InputError if a package that the format needs isn't there."""
        names = (requirement.partition("==")[0] for requirement in cls.requires)
        if missing := [name for name in names if importlib.util.find_spec(name) is None]:
            remedy = f"pip install {' '.join(cls.requires)}"
            raise InputError(f"format: {cls.name} needs {missing[0]}, which isn't installed; {remedy}")
