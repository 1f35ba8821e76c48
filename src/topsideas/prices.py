"""What a plan costs: the work of the ops it keeps in fp32, and the casts between precisions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

Items = frozenset[int]


@dataclass(frozen=True, slots=True)
class Boundary:
    """A tensor that must be cast where its precision is not the one that a reader wants.

    There is one cast per tensor and type, which its readers share.

    Attributes:
        price: What a cast of it costs.
        source: The op that stores it, low unless it is kept; None if it is fp32 under every plan.
        low: Ops that want it low unless they are kept.
        wide: Ops that want it in fp32 if they are kept.
        outside: Something wants it in fp32 under every plan: an op that never runs low, or an
            output of the model.
    """

    price: float
    source: int | None
    low: tuple[int, ...] = ()
    wide: tuple[int, ...] = ()
    outside: bool = False

    @property
    def ops(self) -> Items:
        """The ops on which its casts depend."""
        source = () if self.source is None else (self.source,)
        return frozenset((*source, *self.low, *self.wide))

    def is_cast(self, kept: Items) -> bool:
        """Whether a plan needs a cast of the tensor."""
        if self.source is None or self.source in kept:
            return not kept.issuperset(self.low)
        return self.outside or not kept.isdisjoint(self.wide)


@dataclass(frozen=True)
class Prices:
    """What it costs to keep ops in fp32, over running every candidate op low.

    Attributes:
        own: For each candidate op, what it costs more in fp32 than low, without casts.
        boundaries: The tensors that casts may be needed for.
        floor: The cost of the whole model with every candidate low, casts included.
        unit: ``bytes`` of memory traffic, or ``seconds``.
        measured: Whether the engine measured it.
    """

    own: Mapping[int, float]
    boundaries: Sequence[Boundary] = ()
    floor: float = 0.0
    unit: str = "bytes"
    measured: bool = False

    @classmethod
    def uniform(cls, items: Iterable[int]) -> Prices:
        """Each op costs the same, and casts are free: the cost is the number of ops."""
        own = dict.fromkeys(items, 1.0)
        return cls(own, unit="ops")

    def cost(self, kept: Items) -> float:
        """What a plan costs more than the plan that keeps nothing; casts saved count too.

        Ids of ops that are no candidates cost nothing.
        """
        casts = (b.price * (b.is_cast(kept) - b.is_cast(_NONE)) for b in self._near(kept))
        return sum(self.own.get(op, 0.0) for op in sorted(kept)) + sum(casts)

    def shares(self, kept: Items) -> dict[int, float]:
        """The cost of a plan by op: its own, and a part of each cast that it brings or saves.

        The parts of a cast are equal, and the shares add up to the cost of the plan.
        """
        shares = {op: self.own.get(op, 0.0) for op in sorted(kept)}
        for boundary in self._near(kept):
            change = boundary.price * (boundary.is_cast(kept) - boundary.is_cast(_NONE))
            concerned = boundary.ops & kept
            for op in concerned:
                shares[op] += change / len(concerned)
        return shares

    def casts(self, kept: Items) -> int:
        """How many casts a plan needs."""
        return sum(boundary.is_cast(kept) for boundary in self.boundaries)

    def _near(self, kept: Items) -> list[Boundary]:
        """The boundaries that a plan may change, each once, in a fixed order."""
        found = {at for op in kept for at in self._places.get(op, ())}
        return [self.boundaries[at] for at in sorted(found)]

    @cached_property
    def _places(self) -> dict[int, list[int]]:
        places: dict[int, list[int]] = defaultdict(list)
        for at, boundary in enumerate(self.boundaries):
            for op in boundary.ops:
                places[op].append(at)
        return dict(places)


_NONE: Items = frozenset()
