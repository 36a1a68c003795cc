"""torch_pruning without timm, which it imports where that is installed, for a counter of operations that isn't used here.

With timm comes torchvision, and with that torch's compiler: two seconds of a core for a process that trains nothing; one
that does imports the compiler in any case. And its groups find what they have by what it is of, and not one by one: that
took half of the time in networks of many groups. A group that names channels which a layer hasn't is not followed further:
they would multiply at every layer on the way.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["tp"]


@contextmanager
def _absent(name: str) -> Iterator[None]:
    """A module that isn't imported yet can't be imported inside; afterwards it can."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # documented: importing it is then an ImportError
    try:
        yield
    finally:
        del sys.modules[name]


with _absent("timm"):
    import torch_pruning as tp


def _add(self: Any, dep: Any, idxs: Any) -> None:
    self._group.append(tp._helpers.GroupItem(dep=dep, idxs=idxs))
    self.__dict__.setdefault("operations", {}).setdefault((dep.target, dep.handler), []).append(idxs)
    count = _channels(dep)
    if count is not None and any(getattr(one, "idx", one) >= count for one in idxs):
        self.lost = True


def _has(self: Any, dep: Any, idxs: Any) -> bool:
    return hasattr(self, "lost") or idxs in self.operations.get((dep.target, dep.handler), ())


def _channels(dep: Any) -> int | None:
    """How many channels a step of a group can be of, if its layer tells."""
    layer, out = dep.target.module, "out_channels" in dep.handler.__name__
    if isinstance(layer, nn.Linear):
        return layer.out_features if out else layer.in_features
    if isinstance(layer, nn.modules.conv._ConvNd):
        return layer.out_channels if out else layer.in_channels
    return None


tp.dependency.Group.add_dep, tp.dependency.Group.has_pruning_op = _add, _has
