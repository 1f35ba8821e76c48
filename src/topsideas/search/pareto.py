"""Which sets are worth a look: those that nothing else beats in both of two respects."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from topsideas.search.oracle import Items
from topsideas.verdict import Verdict

# Sizes at which a curve is sampled, as parts of the answer's.
_PARTS = (0, 1 / 4, 1 / 2, 3 / 4, 1, 3 / 2, 2)


@dataclass(frozen=True, slots=True)
class Point:
    """A set that was judged on all samples.

    Attributes:
        items: The set.
        cost: What it costs.
        verdict: Whether it passes, and by how much.
    """

    items: Items
    cost: float
    verdict: Verdict

    @property
    def badness(self) -> float:
        """The margin; where a rule gives none, whether it fails."""
        if self.verdict.margin is not None:
            return self.verdict.margin
        return 0.0 if self.verdict.passed else math.inf


def undominated(points: Iterable[Point]) -> list[Point]:
    """The points of the fronts (margin, cost) and (margin, size), by size and cost.

    Where two are equal in both respects, the first one by size, cost and ids stays.
    """
    ordered = in_order(points)
    by_cost = sorted(ordered, key=lambda p: (p.cost, p.badness))
    by_size = sorted(ordered, key=lambda p: (len(p.items), p.badness))
    front = {p.items for line in (by_cost, by_size) for p in _improving(line)}
    return [p for p in ordered if p.items in front]


def in_order(points: Iterable[Point]) -> list[Point]:
    """Points by size, cost and ids."""
    return sorted(points, key=lambda p: (len(p.items), p.cost, sorted(p.items)))


def _improving(line: Iterable[Point]) -> Iterable[Point]:
    """Those that are better than all before them."""
    best: float | None = None
    for point in line:
        if best is None or point.badness < best:
            best = point.badness
            yield point


def nested(answer: Items, fixed: Items, ranking: Sequence[int]) -> list[Items]:
    """A few sets of a chain that goes through the answer, from ``fixed`` to twice its size.

    Args:
        answer: The answer, ``fixed`` included.
        fixed: Items that are in every set.
        ranking: All items, those most likely needed first: the first to stay in smaller sets,
            and the first to come in.
    """
    inside = [i for i in ranking if i in answer - fixed]
    rest = sorted(answer - fixed - set(inside))
    chain = inside + rest + [i for i in ranking if i not in answer]
    size = len(inside) + len(rest)
    lengths = sorted({min(len(chain), round(part * size)) for part in _PARTS})
    return [fixed | set(chain[:length]) for length in lengths]
