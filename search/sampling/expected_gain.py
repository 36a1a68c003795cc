"""Growth of the hypervolume by whole chains of points, for any number of objectives.

The hypervolume above a reference is, up to a constant, the mean over directions of r^m, where r is how far the front
reaches in that direction (Deng and Zhang 2019; Zhang and Golovin 2020, arXiv:2006.04655). So a set of points counts by
its farthest in each direction, which a chain accumulates step by step, and no box has to be cut up. All values here are
to be maximised.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from search.sampling.step_tree import Flags, Floats, Integers, StepTree

Radii = npt.NDArray[np.float32]

PLANE_DIRECTIONS = 64
SPACE_DIRECTIONS = 256
"""Of a low-discrepancy set. On 300 made-up fronts of three objectives the hypervolume is off by .6 % (root mean square; at
most 5.3 %), and by 1.2 % and 12 % with 128 directions; 128 that are drawn at random are off by 7 % and 31 %."""


def directions(objectives: int) -> Floats:
    """Unit vectors spread over the positive orthant, [direction, objective]."""
    if objectives == 2:
        angles = (np.arange(PLANE_DIRECTIONS) + 0.5) * (np.pi / 2 / PLANE_DIRECTIONS)
        return np.column_stack([np.cos(angles), np.sin(angles)])
    from scipy.stats import qmc  # noqa: PLC0415 - most of a second, and studies of two objectives don't need it

    # The squares of a uniform direction are Dirichlet(1/2, ..., 1/2), which breaks a stick in shares of Beta distributions.
    even = qmc.Sobol(objectives - 1, scramble=False).random(SPACE_DIRECTIONS) + 0.5 / SPACE_DIRECTIONS
    squares, stick = np.empty((SPACE_DIRECTIONS, objectives)), np.ones(SPACE_DIRECTIONS)
    for i in range(objectives - 1):
        squares[:, i] = stick * betaincinv(0.5, (objectives - 1 - i) / 2, even[:, i])
        stick = stick - squares[:, i]
    squares[:, -1] = stick
    return np.sqrt(np.maximum(squares, 1e-12))


def reach(values: Floats, along: Floats) -> Radii:
    """How far points [..., objective] above the origin dominate in each direction, [..., direction]."""
    far = values[..., :1] / along[:, 0]
    for i in range(1, along.shape[1]):
        np.minimum(far, values[..., i : i + 1] / along[:, i], out=far)
    return np.maximum(far, 0.0).astype(np.float32)


def farthest(values: Floats, along: Floats) -> Radii:
    """The same of sets of points [..., point, objective]: the farthest of each in each direction."""
    return np.asarray(reach(values, along).max(axis=-2))


def chain_gains(tree: StepTree, nodes: Flags, known: Flags, at: Integers, values: Floats, front: Radii) -> Floats:
    """Growth of the hypervolume by each flagged node and the unknown ones above it, [node] (0 elsewhere).

    ``nodes`` are closed upwards as far as they are unknown; ``values`` [candidate of ``at``, form, objective] are above
    the reference; ``front`` [direction] is what is reached already.
    """
    objectives = values.shape[-1]
    along = directions(objectives)
    row = np.zeros(len(tree.parent), np.int64)
    row[nodes] = np.arange(1, int(nodes.sum()) + 1)
    far = np.empty((int(nodes.sum()) + 1, len(front)), np.float32)
    far[0] = front
    value = np.zeros(len(tree.candidates), np.int64)
    value[at] = np.arange(len(at))
    for level in tree.levels:
        some = level[nodes[level]]
        above = tree.parent[some]
        far[row[some]] = far[np.where((above >= 0) & ~known[above], row[above], 0)]
        points = some[tree.point[some] >= 0]
        far[row[points]] = np.maximum(far[row[points]], farthest(values[value[tree.point[points]]], along))
    gains = np.zeros(len(tree.parent))
    gains[nodes] = (far[1:] ** objectives - front**objectives).mean(axis=1)
    return gains
