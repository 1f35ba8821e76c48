"""What a better answer is: a total order on sets that pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum

Items = frozenset[int]
Cost = Callable[[Items], float]


class Objective(Enum):
    """What an answer should have little of.

    Attributes:
        OPS: The fewest items; of equals the cheapest, then the one with the smallest ids.
        COST: The cheapest; of equals the one with the fewest items, then the smallest ids.
    """

    OPS = "ops"
    COST = "cost"

    def key(self, items: Items, cost: Cost) -> tuple[float, float, list[int]]:
        """Orders sets, the better ones first."""
        size, price = len(items), cost(items)
        return (
            (size, price, sorted(items)) if self is Objective.OPS else (price, size, sorted(items))
        )

    def best(self, sets: Iterable[Items], cost: Cost) -> Items | None:
        """The best of ``sets``; asks for as few costs as it can."""
        left = list(sets)
        if self is Objective.OPS:
            fewest = min(map(len, left), default=0)
            left = [s for s in left if len(s) == fewest]
            if len(left) == 1:
                return left[0]
        return min(left, key=lambda s: self.key(s, cost), default=None)
