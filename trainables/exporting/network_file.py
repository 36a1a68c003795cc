"""A pruned network as one file that says all it takes to use it, and the way back into a working module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import nn

from trainables.forms import compact
from trainables.forms.forms import Form
from trainables.networks.anatomy import survey
from trainables.networks.factory import ModelSettings, build
from trainables.networks.network import Network, decode, encode, metadata
from trainables.networks.size import check_size
from trainables.problem import Problem
from trainables.records.files import write_atomically
from trainables.records.names import InputError
from trainables.records.untrusted import read
from trainables.settings import Settings, parse

EXPORT = "export"
SHAPES = "shapes"
"""The shapes of masked tensors, for loaders that have no architecture to ask; :func:`load` doesn't look at them."""
LARGEST_DENSE = 10**9
LARGEST_COMPRESSION = 100
MOST_MACS = 1e12
"""A file whose dense network is larger than both, in bytes and in times the file, asks for memory that nobody meant.
Of multiply-accumulates for one image, torchvision's largest network has as many."""


class About(Settings):
    """What an exported file says of its network."""

    model: str
    arguments: dict[str, Any]
    output: str | None = None
    classes: tuple[str, ...]
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    mean: tuple[float, ...]
    std: tuple[PositiveFloat, ...]
    task: str | None = Field(None, description="what it was trained for, if not to tell classes apart")
    outputs: tuple[PositiveInt, ...] | None = Field(None, description="shape of an output; null: a number for each class")
    preparation: dict[str, Any] = Field({}, description="what was done to images, beside being normalised")

    @model_validator(mode="after")
    def _of_channels(self) -> Self:
        if not len(self.mean) == len(self.std) == self.shape[0]:
            raise ValueError(f"mean and std must have one value for each of the {self.shape[0]} channels")
        return self


@dataclass(frozen=True)
class Exported:
    """A network ready for inference: feed it float images [N, C, H, W] in 0..1, less ``mean``, over ``std``."""

    model: nn.Module
    network: Network
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def export(network: Network, problem: Problem, target: Path, form: Form | None = None) -> int:
    """Write ``network`` to ``target``: compact in a stored form, safetensors without one; returns the bytes written."""
    content = content_of(network, problem, form)
    write_atomically(target, content)
    return len(content)


def content_of(network: Network, problem: Problem, form: Form | None = None) -> bytes:
    """The bytes of a file: compact in a stored form, safetensors without one."""
    data = problem.data
    about = About(
        model=problem.model.name, arguments=dict(problem.model.arguments), output=problem.model.output,
        classes=data.classes, shape=data.shape, mean=data.mean, std=data.std, preparation=data.preparation,
        **_of_task(problem),
    )  # fmt: skip
    extra: dict[str, Any] = {EXPORT: about.model_dump(exclude_none=True)}
    if form is not None:
        return compact.encode(network, form, extra)
    return encode(network, extra | {SHAPES: {name: list(mask.shape) for name, mask in network.masks.items()}})


def _of_task(problem: Problem) -> dict[str, Any]:
    """What the file says of a task that isn't to tell classes apart."""
    data, task = problem.data, problem.data.task
    return {} if task.of_classes else {"task": task.name, "outputs": task.shape(len(data.classes), data.shape)}


def load(
    file: str | Path, *, allow_code: bool = False, most_bytes: int | None = None, model: nn.Module | None = None
) -> Exported:
    """The network in an exported file of either format, in eval mode and in fp32.

    Nothing stored in the file is run. A network of a user's own factory is imported by its name only if ``allow_code``; of
    one that was in memory, ``model`` is needed, with any weights. The dense network that the file names is built on the
    way: one of more than ``most_bytes`` (a gigabyte, or a hundred times the file) is refused.
    """
    try:
        content = read(Path(file))
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; give a file written by export") from None
    is_compact = compact.is_compact(content)
    raw = (compact.metadata if is_compact else metadata)(content).get(EXPORT)
    if not isinstance(raw, dict):
        raise InputError(f"{file}: holds a step of a study, not an exported network; use `python -m search export`")
    about = parse(About, raw, str(file))
    settings = parse(ModelSettings, {"name": about.model, "arguments": about.arguments, "output": about.output}, str(file))
    if model is not None:
        settings = settings.of(model, weights=False)
    shape, classes = about.shape, about.classes
    limit = most_bytes or max(LARGEST_DENSE, LARGEST_COMPRESSION * len(content))
    check_size(settings, len(classes), shape, limit, f"if you trust {file}, load it with a larger most_bytes", MOST_MACS)

    def dense() -> nn.Module:
        output = () if about.task is None else about.outputs
        return build(settings, len(classes), shape, trusted=allow_code, output=output)

    built = dense()
    network = (compact.decode if is_compact else decode)(content, dense, survey(built, shape))
    for name, tensor in network.model.state_dict().items():
        if not bool(tensor.isfinite().all()):
            raise InputError(f"{file}: has infinite or NaN values in {name!r}; its training failed, export another point")
    network.model.eval()
    return Exported(network.model, network, classes, shape, about.mean, about.std)
