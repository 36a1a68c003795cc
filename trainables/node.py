"""The addresses of the tree of steps.

A pruned network is determined by the dense network and the chain of steps that led to it. So a step's address is the hash
of its parent's address and of the settings that have an effect on it; whatever has none is left out, and schedules that
begin alike share their beginnings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

KIND = "kind"
"""The setting of a node that says what happens there (``trainables.steps``)."""
ROOT, CUT = "dense", "prune"
ONLY = "only"
"""The setting of a cut that names the one layer, or group of layers, that it is of; of other cuts it isn't there."""
BETWEEN = "sparse"
"""The kind that is no step of its own: a regularised training, which the cuts after it share."""


def address(parent: str | None, settings: Mapping[str, Any]) -> str:
    """Hash of the parent's address and the settings, 16 hexadecimal digits."""
    text = json.dumps({"parent": parent, "settings": dict(settings)}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Node:
    """One address in the tree: the dense network, a regularised training, or a step."""

    parent: Node | None
    settings: Mapping[str, Any]

    @cached_property
    def id(self) -> str:
        """Hash of the parent's address and the settings, 16 hexadecimal digits."""
        return address(self.parent.id if self.parent else None, self.settings)

    @property
    def seed(self) -> int:
        """The seed of every random draw of this node; it depends on the address, never on the order of work."""
        return int(self.id[:12], 16)

    @property
    def root(self) -> Node:
        """The dense network that this node descends from."""
        return self.parent.root if self.parent else self

    def only(self, name: str) -> Node:
        """The same cut of one layer, or of one group of layers, alone."""
        return Node(self.parent, {**self.settings, ONLY: name})

    @property
    def is_point(self) -> bool:
        """Whether it is a step, or the dense network, and so a point of its own."""
        return bool(self.settings[KIND] != BETWEEN)

    @property
    def step_parent(self) -> Node | None:
        """The step (or dense network) before this one; what lies between them is passed over."""
        parent = self.parent
        return parent if parent is None or parent.is_point else parent.step_parent

    @property
    def own_nodes(self) -> list[Node]:
        """A step, with what lies between it and the step before; parents first."""
        before = self.parent.own_nodes if self.parent is not None and not self.parent.is_point else []
        return [*before, self]
