"""A pruned network as one file that says all it takes to use it, and the way back into a working module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import PositiveInt
from torch import nn

from trainables.models import ModelSettings, build, classifier
from trainables.names import InputError
from trainables.network import Network, decode, encode, metadata
from trainables.problem import Problem
from trainables.settings import Settings, parse
from trainables.storage import write_atomically
from trainables.structured import Anatomy

EXPORT = "export"


class About(Settings):
    """What an exported file says of its network."""

    model: str
    arguments: dict[str, Any]
    classes: tuple[str, ...]
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Exported:
    """A network ready for inference: feed it float images [N, C, H, W] in 0..1, less ``mean``, over ``std``."""

    model: nn.Module
    network: Network
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def export(network: Network, problem: Problem, target: Path) -> int:
    """Write ``network`` to ``target``; returns the bytes written."""
    data = problem.data
    about = About(
        model=problem.model.name, arguments=dict(problem.model.arguments), classes=data.classes, shape=data.shape,
        mean=data.mean, std=data.std,
    )  # fmt: skip
    content = encode(network, {EXPORT: about.model_dump()})
    write_atomically(target, content)
    return len(content)


def load(file: str | Path, *, allow_code: bool = False) -> Exported:
    """The network in an exported file, in eval mode.

    Nothing stored in the file is run. A network of a user's own factory is imported by its name only if ``allow_code``.
    """
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; give a file written by export") from None
    raw = metadata(content).get(EXPORT)
    if not isinstance(raw, dict):
        raise InputError(f"{file}: holds a step of a study, not an exported network; use `python -m search export`")
    about = parse(About, raw, str(file))
    settings = parse(ModelSettings, {"name": about.model, "arguments": about.arguments}, str(file))
    shape, classes = about.shape, about.classes

    def dense() -> nn.Module:
        return build(settings, len(classes), shape, trusted=allow_code)

    model = dense()
    network = decode(content, dense, Anatomy.of(model, shape, tuple(classifier(model, len(classes)))))
    network.model.eval()
    return Exported(network.model, network, classes, shape, about.mean, about.std)
