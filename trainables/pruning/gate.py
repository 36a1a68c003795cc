"""What of a network can be cut, found by cutting the untrained network before the first trial.

Whole channels are cut at low and high ratios, locally and globally, and to other layers' widths, at random. Each must
compute what the dense one computes without what was removed (``trainables.networks.oracle``), be trained a step, and come
back from its file. What fails is narrowed down to the groups of layers that cause it, and these are protected: they stay
whole. Nothing is drawn from global generators, and the answer is the same every time.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trainables.networks import limits, oracle
from trainables.networks.anatomy import (
    ROOTS,
    Anatomy,
    Graph,
    Group,
    Removed,
    families,
    groups,
    groups_in,
    leader,
    losing,
    member,
    of_heads,
    prunable,
    survey,
    trace,
    weights,
)
from trainables.networks.attention.heads import heads_of
from trainables.networks.limits import Wishes
from trainables.networks.network import Network, decode, encode
from trainables.networks.parameters import FOLDED
from trainables.networks.reproducible import reproducible
from trainables.networks.running import copied, evaluating, lives_elsewhere
from trainables.networks.shuffles.families import Family
from trainables.networks.size import module_macs
from trainables.networks.torch_pruning_alone import tp
from trainables.pruning import masks
from trainables.pruning.channel_scopes import ChannelScope, Global, Local, Narrowed
from trainables.pruning.channels import cut_by, joined
from trainables.pruning.sample import Sample
from trainables.pruning.weight_importances import Random as RandomWeights
from trainables.pruning.weight_scopes import Layerwise
from trainables.training.kernels import trainable

LOW, HIGH, HIGHEST, ALL_BUT_ONE = 250_000, 850_000, 950_000, 999_999
"""The ratios that are tried, in millionths."""
DRAWS = tuple(range(50_000, 900_000, 100_000))
"""The ratios that groups are tried at, each with channels of its own, in which several channels may hang on one."""
BATCH, TRIED = 4, 6
IDLE = "torch-pruning finds no channel of it that can go without all others"
ELSEWHERE = (
    "copies of it fail, or compute something else: a hook or a function holds on to the network that it was made for; "
    "let it use the module that it is given"
)
Build = Callable[[], nn.Module]
Try = tuple[ChannelScope, Sequence[int]]


@dataclass(frozen=True)
class Gate:
    """What the gate found.

    ``outputs`` are the layers that make the logits; they have ``moved`` if they aren't the last one of so many outputs.
    ``protected`` has the layers that lead groups which are not cut, with the reason; ``fixed`` those whose outputs nothing
    can cut. ``weights`` and ``macs`` are the shares of both, ``difference`` is the largest that the oracle saw.
    """

    outputs: tuple[str, ...] = ()
    moved: bool = False
    protected: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)
    floors: dict[str, int] = field(default_factory=dict)
    weights: float = 0.0
    macs: float = 0.0
    difference: float = 0.0
    refused: str | None = None
    folded: tuple[str, ...] = ()

    def told(self) -> list[str]:
        """What is protected, a line for each reason, and then what that locks; no line if nothing is."""
        by_reason: dict[str, list[str]] = {}
        for name, reason in {**self.protected, **self.fixed}.items():
            by_reason.setdefault(reason, []).append(name)
        lines = [f"{_listed(names)}: {reason}" for reason, names in by_reason.items()]
        if lines:
            lines.append(f"layers that stay whole hold {self.weights:.0%} of the weights and {self.macs:.0%} of the MACs")
        if self.folded:
            lines.append(f"computed weights became plain ones: {_listed(self.folded)}")
        return lines

    def anatomy(self, skeleton: Anatomy) -> Anatomy:
        """The network with what is protected."""
        return replace(skeleton, keep=self.outputs, protected=tuple(self.protected), floors=self.floors)


def gate(build: Build, shape: tuple[int, int, int], classes: int, wishes: Wishes) -> Gate:
    """Try the network that ``build`` makes, for images of ``shape`` [C, H, W]."""
    with reproducible(0):
        model = build()
        if lives_elsewhere(model, shape):
            return Gate(refused=ELSEWHERE)
        skeleton = survey(model, shape)
        return _Trial(model, build, skeleton, classes).judged(wishes)


@dataclass
class _Trial:
    """The network at the gate."""

    model: nn.Module
    build: Build
    skeleton: Anatomy
    classes: int
    leaders: list[str] = field(default_factory=list)
    relatives: list[Family] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    right: set[str] = field(default_factory=set)
    ran: set[str] = field(default_factory=set)
    floors: dict[str, int] = field(default_factory=dict)

    def judged(self, wishes: Wishes) -> Gate:
        if reason := not_restored(self.model, self.build, self.skeleton):
            return self._refused(reason)
        if reason := untrainable(self.model, self.skeleton, self.classes):
            return self._refused(reason)
        if wandering := self._wandering():
            return self._refused(
                f"which layers run depends on the images (here {wandering}), and so does what hangs together"
            )
        try:
            graph = trace(self.model, self.skeleton)
            found = groups_in(graph, self.model, self.skeleton)
            self.relatives = families(graph, self.model, self.skeleton)
        except Exception as error:  # torch-pruning can fail on any network that it doesn't know
            return self._refused(f"torch-pruning fails on this network ({_line(error)})")
        self.leaders = [leader(group) for group in found]
        protected, worst = self._narrowed(found, graph, wishes)
        self.floors = self._floors(protected, wishes)
        worst = max(worst, self._settled(protected, [(Local(), (LOW, HIGH, HIGHEST))]))
        gone = self.touched - protected.keys()
        found_here = self._shares(
            Gate(
                self.skeleton.keep, self._moved(), protected, self._fixed(found), self.floors,
                difference=worst, folded=tuple(getattr(self.model, FOLDED, ())),
            ),
            found,
        )  # fmt: skip
        if gone:
            return found_here
        reasons = list(dict.fromkeys([*protected.values(), *found_here.fixed.values()]))
        return replace(
            found_here, refused=f"no channel can go: {'; '.join(reasons[:3]) or 'there is none beside the logits'}"
        )

    def _wandering(self) -> str | None:
        """A layer that runs for some images and not for others, or in another order.

        An untrained network may never decide otherwise: what it decides by values is also turned round.
        """
        shape, random = self.skeleton.example.shape, torch.Generator().manual_seed(2)
        nothing = torch.zeros(shape)
        first = _run(self.model, nothing)
        self.ran |= {*first}
        for _ in range(TRIED):  # of some colour, with noise: what looks at means alone would take all noise to be the same
            colour = 2 * torch.randn((*shape[:2], 1, 1), generator=random)
            if found := _differing(first, _run(self.model, colour + torch.randn(shape, generator=random))):
                return found
        for decisions in (Otherwise(), Otherwise(1e3), Otherwise(-1e3)):
            with suppress(Exception):  # it breaks what was made sure of
                if found := _differing(first, _run(self.model, nothing, decisions)):
                    return found
        return None

    def _refused(self, reason: str) -> Gate:
        return Gate(self.skeleton.keep, refused=reason)

    def _moved(self) -> bool:
        fitting = [name for name, width in self.skeleton.widths.items() if width == self.classes]
        return self.skeleton.keep != tuple(fitting[-1:])

    def _narrowed(self, found: list[Group], graph: Graph, wishes: Wishes) -> tuple[dict[str, str], float]:
        """The groups that stay whole, with the reason; and the largest error of the others' cuts.

        They are those that the user keeps, and those that make a cut wrong. ``found`` is given those that others are then
        led by.
        """
        protected = self._with_relatives(_beyond(found, graph) | _asked(self.model, found, wishes))
        worst = self._settled(protected, self._tries())
        while protected := protected | self._mixed_up(found, protected) | self._idle(found, protected):
            count, more = len(protected), self._led_anew(protected)
            self.leaders += [leader(group) for group in more]
            found += more
            protected |= self._with_relatives(_beyond(more, graph) | _asked(self.model, more, wishes))
            still = Narrowed(widths=tuple(sorted({self.skeleton.widths[name] for name in protected})))
            worst = max(worst, self._settled(protected, [*(self._tries() if more else ()), (still, (LOW,))]))
            if not more and len(protected) == count:
                break
        return protected, worst

    def _tries(self) -> list[Try]:
        """How channels are cut, and to which ratios one after another; other scopes remove what one of these could."""
        widths = sorted(set(self.skeleton.widths.values()))
        prime = _prime_below(min((width for width in widths if width > 3), default=3))
        every_other = [some for some in (widths[::2], widths[1::2]) if some and some[0] < widths[-1]]
        narrowed: list[Try] = [(Narrowed(widths=tuple(some)), (LOW,)) for some in ([prime], *every_other)]
        return [(Local(), (LOW,)), (Local(), (LOW, HIGH)), *narrowed, (Global(), (LOW,)), (Global(), (LOW, HIGH))]

    def _settled(self, protected: dict[str, str], tries: Iterable[Try]) -> float:
        """The largest error of these cuts, once what makes them wrong is ``protected``, too."""
        worst = 0.0
        for scope, targets in tries:
            while left := [name for name in self.leaders if name not in protected]:
                found = self._first(left, scope, targets)
                if isinstance(found, float):
                    worst = max(worst, found)
                    break
                protected |= self._with_relatives(found | self._alike(found, left, scope, targets))
        return worst

    def _mixed_up(self, found: Iterable[Group], protected: Collection[str]) -> dict[str, str]:
        """Groups in which several channels may hang on one, if a cut of one alone is wrong: which channels go matters.

        Blocks repeat: where a group comes out right, those in the same place of other blocks aren't looked at.
        """
        wrong: dict[str, str] = {}
        for group in found:
            name, place = leader(group), _place(leader(group))
            if name in protected or place in self.right or not joined(group):
                continue
            outcomes = (self._try([name], Local(), (removed_ppm,)) for removed_ppm in DRAWS)
            if reason := next((outcome for outcome in outcomes if isinstance(outcome, str)), None):
                wrong |= self._with_relatives({name: reason})
            else:
                self.right.add(place)
        return wrong

    def _led_anew(self, protected: Iterable[str]) -> list[Group]:
        """Groups that others lead once these stay: to torch-pruning, what hangs together differs by where it begins."""
        found = groups(self.model, replace(self.skeleton, protected=tuple(protected)))
        return [group for group in found if leader(group) not in self.leaders]

    def _floors(self, protected: Mapping[str, str], wishes: Wishes) -> dict[str, int]:
        """The channels that layers keep: those that the user wants, and two where a cut to one fails (``x.squeeze()``)."""
        left = [name for name in self.leaders if name not in protected]
        fails = left and isinstance(self._try(left, Local(), (ALL_BUT_ONE,)), str)
        two = {name: 2 for name in left if fails and self.skeleton.widths[name] > 1}
        return two | limits.floors(self.model, wishes)

    def _alike(
        self, found: Mapping[str, str], leaders: Iterable[str], scope: ChannelScope, targets: Sequence[int]
    ) -> dict[str, str]:
        """Groups in the same place of other blocks: all, if three of them go wrong, too.

        Blocks repeat, and with them what can't be cut: that takes a few tries here, and for each of them a search in
        ``_first``.
        """
        places = {_place(name) for name in found}
        others = [name for name in leaders if name not in found and _place(name) in places]
        alike: dict[str, str] = {}
        for name in others[:: max(1, len(others) // 2)]:
            outcome = self._try([name], scope, targets)
            if isinstance(outcome, float):
                break
            alike[name] = outcome
        else:
            return {name: next(iter(alike.values())) for name in others} | alike
        return {name: alike[name] for name in itertools.takewhile(alike.__contains__, others)}

    def _with_relatives(self, reasons: dict[str, str]) -> dict[str, str]:
        """Layers whose channels are shuffled together stay together."""
        for family in self.relatives:
            for reason in [reasons[name] for name in family.blocks if name in reasons][:1]:
                reasons = dict.fromkeys(family.blocks, reason) | reasons
        return reasons

    def _first(self, leaders: list[str], scope: ChannelScope, targets: Sequence[int]) -> float | dict[str, str]:
        """One group without which fewer cuts go wrong, with the reason; or the error, if none goes wrong.

        With the groups in order, it is the last of the shortest beginning that goes wrong, found by halving.
        """
        outcome = self._try(leaders, scope, targets)
        if isinstance(outcome, float):
            return outcome
        right, wrong = 0, len(leaders)
        while wrong - right > 1:
            middle = (right + wrong) // 2
            tried = self._try(leaders[:middle], scope, targets)
            if isinstance(tried, float):
                right = middle
            else:
                wrong, outcome = middle, tried
        return {leaders[wrong - 1]: outcome}

    def _try(self, cut: Iterable[str], scope: ChannelScope, targets: Sequence[int]) -> float | str:
        """The oracle's difference after cuts of some groups alone, told by their leaders; or what is wrong."""
        chosen = set(cut)
        protected = tuple(name for name in self.leaders if name not in chosen)
        anatomy = replace(self.skeleton, protected=protected, floors=self.floors)
        model = copied(self.model)
        try:
            removed: Removed = []
            for removed_ppm in targets:
                removed += cut_by(model, anatomy, tp.importance.RandomImportance(), scope, removed_ppm, 1, removed_ppm)
            self.touched |= {name for name, _, indices in removed if indices}
            error = oracle.compare(self.model, removed, anatomy)
            self._use(model, removed, anatomy)
        except oracle.WrongCutError as wrong:
            return str(wrong)
        except Exception as failure:  # torch-pruning and networks raise anything
            if is_want_of_memory(failure):
                raise MemoryError from failure
            return f"a cut makes it fail ({_line(failure)})"
        return error

    def _use(self, model: nn.Module, removed: Removed, anatomy: Anatomy) -> None:
        """Train the cut network a step, and write and read it."""
        trained = copied(model)
        train_a_step(trained, anatomy, self.classes)
        _read_back(Network(trained, {}, removed), lambda: copied(self.model), anatomy)

    def _fixed(self, found: Sequence[Group]) -> dict[str, str]:
        """Layers whose outputs no group cuts, and why."""
        cut = {name for group in found for item in group for name in losing(item)}
        trained = {p for p in self.model.parameters() if p.requires_grad}
        fixed = {}
        for name, module in prunable(self.model).items():
            if name not in cut and name not in self.skeleton.keep:
                fixed[name] = "it is frozen" if module.weight not in trained else self._why_fixed(name)
        return fixed

    def _idle(self, groups: Iterable[Group], protected: Collection[str]) -> dict[str, str]:
        """The leaders of groups that no try has cut; one of a single channel with those that it holds back."""
        found: dict[str, str] = {}
        for group in groups:
            if leader(group) in protected or leader(group) in self.touched:
                continue
            widths = {name: self.skeleton.widths.get(name, 1) for item in group for name in losing(item)}
            wide = [name for name, width in widths.items() if width > 1]
            if wide:
                alone = self.skeleton.widths[leader(group)] > 1
                found |= dict.fromkeys([leader(group)] if alone else [leader(group), *wide], IDLE)
        return found

    def _why_fixed(self, name: str) -> str:
        if name not in self.ran:
            return "no image passes through it"
        owners = [self.model.get_submodule(name[:end]) for end in range(len(name)) if name[end] == "."]
        if any(isinstance(owner, nn.MultiheadAttention) for owner in owners):
            return "attention with other inputs than its queries keeps its heads"
        if any(heads_of(owner) for owner in owners):
            return "it is in an attention, which loses heads alone"
        return "no gradient reaches it, or what it feeds can't be cut"

    def _shares(self, gate: Gate, found: Sequence[Group]) -> Gate:
        """The shares of weights and MACs in layers whose outputs stay, the output layers' left out.

        With a layer that leads a group all layers of the group stay.
        """
        stay = {*gate.protected, *gate.fixed}
        if not stay:  # counting MACs takes a second of imports
            return gate
        cut = {name for group in found if leader(group) not in stay for item in group for name in losing(item)}
        locked = prunable(self.model).keys() - cut - {*self.skeleton.keep}
        sizes = {name.removesuffix(".weight"): weight.numel() for name, weight in weights(self.model).items()}
        macs = module_macs(self.model, tuple(self.skeleton.example.shape[1:]))  # type: ignore[arg-type]
        return replace(gate, weights=_share(sizes, locked), macs=_share(macs, locked))


@torch.no_grad()
def _run(model: nn.Module, image: Tensor, decisions: TorchFunctionMode | None = None) -> list[str]:
    """The names of the layers without layers of their own, as they run in evaluation."""
    ran: list[str] = []
    inner = {name: module for name, module in model.named_modules() if not list(module.children())}
    hooks = [module.register_forward_pre_hook(lambda *_, name=name: ran.append(name)) for name, module in inner.items()]
    training = model.training
    try:
        model.eval()
        with reproducible(0), decisions or nullcontext():
            model(image)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return ran


class Otherwise(TorchFunctionMode):
    """Turns round what is decided by the values of tensors: whether one is true, or what number one is."""

    def __init__(self, number: float | None = None) -> None:
        super().__init__()
        self._number = number

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        value, name = func(*args, **(kwargs or {})), getattr(func, "__name__", "")
        turned = isinstance(value, bool) if self._number is None else isinstance(value, float)
        if not turned or name not in ("__bool__", "__float__", "item"):
            return value
        return not value if self._number is None else self._number


def _differing(first: list[str], other: list[str]) -> str | None:
    """Where two orders of layers part."""
    return next((one or two for one, two in itertools.zip_longest(first, other) if one != two), None)


def not_restored(model: nn.Module, build: Build, skeleton: Anatomy) -> str | None:
    """Why another network of the same state dict computes something else; None if it doesn't."""
    other = build()
    other.load_state_dict(model.state_dict())
    inputs = _inputs(skeleton)
    with torch.no_grad():
        if torch.allclose(_outputs(model, inputs), _outputs(other, inputs), 1e-3, 1e-4, equal_nan=True):
            return None
    return (
        "it computes with values that its state dict doesn't have, and that differ each time it is made; register them as "
        "modules, parameters or persistent buffers, or draw them from a seed of their own"
    )


def untrainable(model: nn.Module, skeleton: Anatomy, classes: int) -> str | None:
    """Why the network fails in a step of training before anything is removed; None if it doesn't, or is frozen."""
    if any(parameter.requires_grad for parameter in model.parameters()):
        try:
            train_a_step(copied(model), skeleton, classes)
        except Exception as failure:  # networks raise anything
            if is_want_of_memory(failure):
                raise MemoryError from failure
            return f"it can't be trained, before anything is removed ({_line(failure)})"
    return None


def refuse_weights(build: Build, skeleton: Anatomy, classes: int, spared: Mapping[str, float]) -> str | None:
    """Why single weights of the network can't be removed, found by removing some of the untrained one; None if they can."""
    with reproducible(0):
        model = build()
        if reason := not_restored(model, build, skeleton) or untrainable(model, skeleton, classes):
            return reason
        if set(weights(model)) <= {name for name, share in spared.items() if share == 0}:
            return "every weight is frozen or in model.keep"
        try:
            for removed_ppm in (LOW, HIGH):
                _mask(copied(model), build, skeleton, classes, removed_ppm, spared)
        except oracle.WrongCutError as wrong:
            return str(wrong)
        except Exception as failure:  # networks raise anything
            return f"removing weights makes it fail ({_line(failure)})"
    return None


def _mask(
    model: nn.Module, build: Build, skeleton: Anatomy, classes: int, removed_ppm: int, spared: Mapping[str, float]
) -> None:
    """Remove weights, train a step, write and read; WrongCutError if the network isn't as it was, its weights less."""
    sample: Any = Sample(None, removed_ppm)  # type: ignore[arg-type]  # random scores see no data
    found = masks.cut(Network(model), RandomWeights(), Layerwise(), removed_ppm, sample, spared)
    masks.masking(model, found)(model)
    parameters = dict(model.named_parameters())
    if any(bool(parameters[name][~mask].any()) for name, mask in found.items()):
        raise oracle.WrongCutError("what was removed is still there")
    train_a_step(copied(model), skeleton, classes)
    _read_back(Network(model, found), build, skeleton)


def is_want_of_memory(error: Exception) -> bool:
    """Whether an error says that there is no more memory."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def _read_back(network: Network, build: Build, anatomy: Anatomy) -> None:
    """WrongCutError if the network doesn't come back from its file as it was."""
    model, stored = network.model, decode(encode(network), build, anatomy).model
    inputs, (one, other) = _inputs(anatomy), (model.state_dict(), stored.state_dict())
    with torch.no_grad():
        same = one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
        if not same or not torch.allclose(_outputs(model, inputs), _outputs(stored, inputs), 1e-3, 1e-4, equal_nan=True):
            raise oracle.WrongCutError("it doesn't come back from its file as it was")


def _outputs(model: nn.Module, inputs: Tensor) -> Any:
    with reproducible(0):
        return evaluating(model)(inputs)


def train_a_step(model: nn.Module, anatomy: Anatomy, classes: int) -> None:
    """One forward and backward pass; WrongCutError if the gradients are not those of such a network."""
    model.train()
    with trainable(model):
        outputs = model(_inputs(anatomy))
    labels = torch.arange(BATCH) % classes
    of_classes = outputs.shape == (BATCH, classes)
    (F.cross_entropy(outputs, labels) if of_classes else outputs.float().square().mean()).backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            raise oracle.WrongCutError(f"the gradient of {name} is not finite")


def _inputs(anatomy: Anatomy) -> Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randn((BATCH, *anatomy.example.shape[1:]), generator=random)


def _asked(model: nn.Module, found: Sequence[Group], wishes: Wishes) -> dict[str, str]:
    """The leaders of groups that reach what the user keeps, or what is frozen."""
    named, still = limits.kept(model, wishes), limits.frozen(model)
    asked: dict[str, str] = {}
    for group in found:
        for name in map(member, group):
            if name in named:
                asked.setdefault(leader(group), f"model.keep names {name}")
            elif name in still:
                asked.setdefault(leader(group), f"{name} is frozen")
    return asked


def _alone_in(norm: nn.GroupNorm, item: Any, group: Group) -> bool:
    """Whether all that a GroupNorm normalises is the group's, in its order: then as many go of each of its groups."""
    return list(item.idxs) == list(range(norm.num_channels)) == list(range(len(group[0].idxs)))


def _beyond(found: Sequence[Group], graph: Graph) -> dict[str, str]:
    """The leaders of groups that can't be right, whatever is cut.

    torch-pruning, led astray, names channels that a layer hasn't; or a GroupNorm's groups would lose different counts.
    """
    beyond: dict[str, str] = {}
    for group in found:
        for item in group:
            module, handler = item.dep.target.module, item.dep.handler
            if isinstance(module, nn.GroupNorm) and not _alone_in(module, item, group):
                beyond.setdefault(leader(group), f"{member(item)} normalises its channels with others")
            if not isinstance(module, ROOTS) or of_heads(group):
                continue
            count = graph.get_out_channels if graph.is_out_channel_pruning_fn(handler) else graph.get_in_channels
            if max(item.idxs, default=0) >= count(module):
                beyond.setdefault(leader(group), "torch-pruning loses track of its channels")
    return beyond


def _prime_below(width: int) -> int:
    return next(k for k in range(width - 1, 1, -1) if all(k % divisor for divisor in range(2, k)))


def _place(name: str) -> str:
    """A layer's name without the numbers of the blocks that it is in, which come before its last word."""
    parts = name.split(".")
    last = max((i for i, part in enumerate(parts) if not part.isdigit()), default=0)
    blocks = re.sub(r"\d+", "#", ".".join(parts[:last]))
    return f"{blocks}.{'.'.join(parts[last:])}" if "#" in blocks else re.sub(r"\d+", "#", name)


def _listed(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _share(sizes: dict[str, int], names: Iterable[str]) -> float:
    chosen = set(names)
    return round(sum(size for name, size in sizes.items() if name in chosen) / max(1, sum(sizes.values())), 4)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160] or 'no message'}"
