"""How small a study's schedules make its network, told before anything is trained, and what to cut to come to a size.

The untrained network is cut by magnitude, in each family's plain scope. Which weights and channels go hardly matters to
sizes, so other importances come to nearly the same; a global scope may take more from layers that cost more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from search.sampling.space import SearchSpace
from trainables.forms import compact
from trainables.forms.forms import FORMS
from trainables.measuring.footprint import footprint
from trainables.measuring.stored_forms import named
from trainables.networks.network import Network, encode
from trainables.networks.reproducible import reproducible
from trainables.problem import Problem
from trainables.records import names as n
from trainables.records.limits import OF_QUALITY, Limits, bounds
from trainables.records.names import InputError
from trainables.records.objectives import Quality
from trainables.schedule import Schedule
from trainables.steps import NothingRemovedError, cut

HALVINGS = 10
"""How often the interval is halved in which a target's sparsity lies."""


def network(problem: Problem, schedule: Schedule | None = None) -> Network:
    """The untrained network after a schedule; the dense one without. Cuts that can remove nothing leave it as it is."""
    with reproducible(0):
        found = Network(problem.build())
        for node in problem.chain(schedule) if schedule is not None else ():
            with suppress(NothingRemovedError):
                found = cut(found, node, problem)
    return found


def _bytes(found: Network, problem: Problem, forms: Sequence[str]) -> int:
    """In the smallest of these stored forms."""
    made = (compact.encode(found, FORMS.load(form, trusted=problem.trusted)()) for form in named(forms))
    return min((len(content) for content in made), default=0) or len(encode(found))


def _params(found: Network, problem: Problem, _forms: Sequence[str]) -> int:
    return footprint(found, problem.data.shape).params


def _macs(found: Network, problem: Problem, _forms: Sequence[str]) -> int:
    return footprint(found, problem.data.shape).macs


class Size(NamedTuple):
    """What a network costs: its column, its word, and how it is counted (bytes in the smallest of some stored forms)."""

    column: str
    word: str
    of: Callable[[Network, Problem, Sequence[str]], int]


SIZES = {
    "bytes": Size(n.STORED_BYTES, "bytes", _bytes), "params": Size(n.PARAMS, "parameters", _params),
    "macs": Size(n.MACS, "MACs", _macs),
}  # fmt: skip
"""By the names that targets have."""


class Reach:
    """What the deepest schedule of each of these families leaves, and the sparsities that end at a size."""

    def __init__(self, families: Iterable[str], space: SearchSpace, problem: Problem, forms: Sequence[str]) -> None:
        self._space, self._problem, self._forms = space, problem, forms
        dense = network(problem)
        self._dense = {name: size.of(dense, problem, ("fp32",)) for name, size in SIZES.items()}
        cuts = {family: network(problem, space.one_cut(family)) for family in families}
        self._least = {
            family: {name: size.of(left, problem, forms) for name, size in SIZES.items()} for family, left in cuts.items()
        }

    def ends(self, targets: Iterable[tuple[str, float]]) -> Iterator[tuple[str, float]]:
        """For each target (``SIZES``, a share of the dense network's) and family the sparsity that comes to it.

        InputError for one that no family comes to.
        """
        for name, share in targets:
            within = [family for family in self._least if self._share(self._least[family][name], name) <= share]
            if not within:
                least = min(self._share(left[name], name) for left in self._least.values())
                raise InputError(
                    f"search.targets.{name}: no schedule of this space leaves {share:.1%} of the dense network's {name}; "
                    f"the deepest leave about {least:.1%}; raise it, or max_sparsity of the space"
                )
            yield from ((family, self._sparsity(family, name, share)) for family in within)

    def _share(self, left: float, name: str) -> float:
        return left / self._dense[name]

    def _sparsity(self, family: str, name: str, share: float) -> float:
        """The least sparsity of one cut that leaves no more."""
        low, high = 0.0, float(self._space.one_cut(family).step_ratio or 1.0)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            cut_once = network(self._problem, self._space.one_cut(family, middle))
            left = SIZES[name].of(cut_once, self._problem, self._forms)  # that alone: bytes take far longer than the rest
            low, high = (low, middle) if self._share(left, name) <= share else (middle, high)
        return high

    def told(self) -> Iterator[str]:
        """A line for each family."""
        for family, left in self._least.items():
            parts = (f"{left[name]:,.0f} {size.word} ({self._share(left[name], name):.1%})" for name, size in SIZES.items())
            yield f"{family} to about {', '.join(parts)}"

    def beyond(self, limits: Limits, measure: Quality) -> Iterator[str]:
        """Limits of size that no family comes to."""
        of_size = limits.model_copy(update=dict.fromkeys(OF_QUALITY))
        names = {size.column: name for name, size in SIZES.items()}
        dense = {column: self._dense[name] for column, name in names.items()}
        for bound in (one for one in bounds(of_size, dense, measure) if one.column in names):
            least = min(left[names[bound.column]] for left in self._least.values())
            if least > bound.value:
                yield f"{bound.name} allows {bound.value:,.0f}, and the deepest schedules leave about {least:,.0f}"
