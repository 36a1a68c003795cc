"""How small a study's schedules make its network, told before anything is trained, and what to cut to come to a size.

The untrained network is cut by magnitude, in each family's plain scope. Which weights and channels go hardly matters to
sizes, so other importances come to nearly the same; a global scope may take more from layers that cost more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

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

COLUMNS = {"bytes": n.STORED_BYTES, "params": n.PARAMS, "macs": n.MACS}
"""What a network costs, by the words that targets name it with."""
WORDS = {"bytes": "bytes", "params": "parameters", "macs": "MACs"}
HALVINGS = 10
"""How often the interval is halved in which a target's sparsity lies."""
Sizes = Mapping[str, float]
"""By column: bytes of the smallest stored form, parameters, and multiply-accumulates of one image."""


def sizes(problem: Problem, forms: Sequence[str] = ("fp32",), schedule: Schedule | None = None) -> Sizes:
    """Of the untrained network after a schedule, stored in the smallest of these forms; of the dense one without."""
    with reproducible(0):
        network = Network(problem.build())
        for node in problem.chain(schedule) if schedule is not None else ():
            network = cut(network, node, problem)
    counted = footprint(network, problem.data.shape)
    made = (compact.encode(network, FORMS.load(form, trusted=problem.trusted)()) for form in named(forms))
    stored = min((len(content) for content in made), default=0) or len(encode(network))
    return {n.STORED_BYTES: stored, n.PARAMS: counted.params, n.MACS: counted.macs}


class Reach:
    """What the deepest schedule of each of these families leaves, and the sparsities that end at a size."""

    def __init__(self, families: Iterable[str], space: SearchSpace, problem: Problem, forms: Sequence[str]) -> None:
        self._space, self._problem, self._forms = space, problem, forms
        self._dense = sizes(problem)
        self._least = {family: sizes(problem, forms, space.one_cut(family)) for family in families}

    def ends(self, targets: Iterable[tuple[str, float]]) -> Iterator[tuple[str, float]]:
        """For each target (``COLUMNS``, a share of the dense network's) and family the sparsity that comes to it.

        InputError for one that no family comes to.
        """
        for name, share in targets:
            within = [family for family in self._least if self._share(self._least[family], name) <= share]
            if not within:
                least = min(self._share(left, name) for left in self._least.values())
                raise InputError(
                    f"search.targets.{name}: no schedule of this space leaves {share:.1%} of the dense network's {name}; "
                    f"the deepest leave about {least:.1%}; raise it, or max_sparsity of the space"
                )
            yield from ((family, self._sparsity(family, name, share)) for family in within)

    def _share(self, left: Sizes, name: str) -> float:
        return left[COLUMNS[name]] / self._dense[COLUMNS[name]]

    def _sparsity(self, family: str, name: str, share: float) -> float:
        """The least sparsity of one cut that leaves no more."""
        low, high = 0.0, float(self._space.one_cut(family).step_ratio or 1.0)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            try:
                left = sizes(self._problem, self._forms, self._space.one_cut(family, middle))
            except NothingRemovedError:
                left = self._dense
            low, high = (low, middle) if self._share(left, name) <= share else (middle, high)
        return high

    def told(self) -> Iterator[str]:
        """A line for each family."""
        for family, left in self._least.items():
            parts = (f"{left[COLUMNS[name]]:,.0f} {word} ({self._share(left, name):.1%})" for name, word in WORDS.items())
            yield f"{family} to about {', '.join(parts)}"

    def beyond(self, limits: Limits, measure: Quality) -> Iterator[str]:
        """Limits of size that no family comes to."""
        of_size = limits.model_copy(update=dict.fromkeys(OF_QUALITY))
        for bound in bounds(of_size, self._dense, measure):
            if bound.column in self._dense:
                least = min(left[bound.column] for left in self._least.values())
                if least > bound.value:
                    yield f"{bound.name} allows {bound.value:,.0f}, and the deepest schedules leave about {least:,.0f}"
