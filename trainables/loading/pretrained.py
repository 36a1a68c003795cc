"""Weights that torchvision and timm publish for their networks: from these libraries' caches, or downloaded by them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn

from trainables.loading.checkpoint import Loaded, difference
from trainables.networks.factory import TIMM, TORCHVISION, ModelSettings, library, short_name
from trainables.networks.parameters import fold
from trainables.records.names import InputError
from trainables.settings import one_line

ONLY_WEIGHTS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""Set, it lets ``torch.load`` run no code, whoever calls it."""


@dataclass(frozen=True)
class Published:
    """What is known of published weights without having them.

    ``label`` says which they are, ``place`` where they can be put by hand; ``classes`` they tell apart, and images of
    ``side`` pixels, scaled to 0..1, are normalised by ``mean`` and ``std``.
    """

    label: str
    place: str
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    side: int

    @property
    def moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation."""
        return self.mean, self.std


def published(name: str) -> Published:
    """The weights that the library of the network ``name`` publishes; InputError if there are none."""
    found = (_of_torchvision if name.startswith(TORCHVISION) else _of_timm)(short_name(name))
    if found is None:
        raise InputError(f"model.weights: none are published for {name!r}; leave the key out, or give model.checkpoint")
    return found


def _of_torchvision(short: str) -> Published | None:
    models = library(TORCHVISION)
    found = list(models.get_model_weights(short))
    if not found:
        return None
    best = models.get_model_weights(short).DEFAULT
    made = best.transforms()
    file = PurePosixPath(best.url).name
    return Published(
        f"torchvision's {best.name}", f"{file} in {torch.hub.get_dir()}/checkpoints", len(best.meta["categories"]),
        tuple(made.mean), tuple(made.std), made.crop_size[0],
    )  # fmt: skip


def _of_timm(short: str) -> Published | None:
    try:
        found = library(TIMM).get_pretrained_cfg(short)
    except RuntimeError as error:  # of a tag that there isn't
        raise InputError(f"model.name: timm:{short}: {one_line(error)}; leave the tag out, or give another") from None
    if found is None or not found.has_weights:
        return None
    tag = f".{found.tag}" if found.tag else ""
    place = str(found.file or found.hf_hub_id or found.url)
    return Published(
        f"timm's {found.architecture}{tag}", f"{place} in Hugging Face's cache", found.num_classes, tuple(found.mean),
        tuple(found.std), found.input_size[-1],
    )  # fmt: skip


def fetch(settings: ModelSettings, channels: int) -> dict[str, Tensor]:
    """The state dict that the library gives the network with its published weights; InputError if it can't be had."""
    about = published(settings.name)
    try:
        with _quiet():
            model = _built(settings, channels)
    except Exception as error:  # a download fails in many ways, as do arguments that the weights weren't made for
        raise InputError(
            f"model.weights: {about.label} for {settings.name!r} can't be had ({one_line(error)}); connect to the network, "
            f"put {about.place}, or give model.checkpoint"
        ) from error
    fold(model)
    return model.state_dict()


def _built(settings: ModelSettings, channels: int) -> nn.Module:
    short = short_name(settings.name)
    if settings.name.startswith(TORCHVISION):
        models = library(TORCHVISION)
        weights = models.get_model_weights(short).DEFAULT
        made: Any = models.get_model(short, weights=weights, progress=False, **settings.arguments)
    else:
        timm = library(TIMM)
        made = timm.create_model(short, pretrained=True, in_chans=channels, **settings.arguments)
    assert isinstance(made, nn.Module)
    return made


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Libraries tell of downloads, and of layers that will be made anew; nothing of a file is run as code."""
    said, before, level = io.StringIO(), os.environ.get(ONLY_WEIGHTS), logging.root.manager.disable
    os.environ[ONLY_WEIGHTS] = "1"
    logging.disable()
    try:
        with (
            warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said),
            torch.random.fork_rng(devices=[]),
        ):  # fmt: skip
            yield
    finally:
        logging.disable(level)
        del os.environ[ONLY_WEIGHTS]
        if before is not None:
            os.environ[ONLY_WEIGHTS] = before


def state_hash(state: dict[str, Tensor]) -> str:
    """SHA-256 of the tensors with their names, shapes and types, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_published(model: nn.Module, settings: ModelSettings, classes: int, shape: tuple[int, int, int]) -> Loaded:
    """Read the published weights into ``model``, which tells ``classes`` apart on images of ``shape`` [C, H, W].

    What makes the logits stays as it is where the weights tell other classes apart. InputError if the rest doesn't fit.
    """
    about, state, expected = published(settings.name), fetch(settings, shape[0]), model.state_dict()
    fresh = [name for name in state if _of_classes(state[name], expected.get(name), about.classes, classes)]
    wanted = {name: tensor for name, tensor in expected.items() if name not in fresh}
    if wrong := difference(wanted, {name: tensor for name, tensor in state.items() if name not in fresh}):
        raise InputError(
            f"model.weights: {about.label} doesn't fit the network: {wrong}; use images of {about.side} pixels, other "
            "model.arguments, or no published weights"
        )
    for name in wanted:
        expected[name] = state[name]  # layers tell by this dictionary's metadata which version of them it is of
    model.load_state_dict(expected)
    return Loaded(told=_told(about, fresh, classes, shape))


def _of_classes(found: Tensor, expected: Tensor | None, theirs: int, ours: int) -> bool:
    """Whether a tensor has a row for each class, and so another shape for other classes."""
    if theirs == ours or expected is None or not found.dim() or found.shape[1:] != expected.shape[1:]:
        return False
    return (found.shape[0], expected.shape[0]) == (theirs, ours)


def _told(about: Published, fresh: list[str], classes: int, shape: tuple[int, int, int]) -> list[str]:
    told = [f"{about.label}, of {about.classes} classes"]
    if fresh:
        layers = ", ".join(dict.fromkeys(name.rpartition(".")[0] for name in fresh))
        told = [
            f"{about.label}; {layers} is fresh, for {classes} classes in place of {about.classes}, and the dense network "
            "is trained from these weights"
        ]
    if about.side not in shape[1:]:
        told.append(f"they were trained on images of {about.side} pixels, and these have {shape[1]}x{shape[2]}")
    return told
