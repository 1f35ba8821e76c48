"""The cheapest set that holds given items.

Where a cast costs more than an op, keeping the op between two kept ones is cheaper than casting on
both sides of it. Which items to add, of all 2^n choices, is a minimum cut: the cost is a sum of
terms in which items pay for differing from their neighbours (submodular, see V. Kolmogorov and
R. Zabih, "What energy functions can be minimized via graph cuts?", 2004). So the answer is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from topsideas.prices import Boundary, Items, Prices
from topsideas.search.mincut import UNCUT, Network


class Closure:
    """Finds the cheapest superset of a set; of equals the one with the fewest items.

    Supersets are closed in order: of two sets, the closure of the larger holds that of the
    smaller and costs as much or more.

    Args:
        prices: What sets cost.
    """

    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self._known: dict[Items, Items] = {}
        # Without boundaries nothing is gained by adding, unless an item has a negative price.
        self._is_trivial = not prices.boundaries and min(prices.own.values(), default=0.0) >= 0

    def of(self, items: Items) -> Items:
        """The cheapest superset of ``items``."""
        if self._is_trivial:
            return items
        if items not in self._known:
            self._known[items] = items | self._cut(items)
        return self._known[items]

    def _cut(self, items: Items) -> Items:
        network = Network()
        nodes = {item: network.node() for item in self._prices.own}
        for item, price in self._prices.own.items():
            network.edge(nodes[item], network.sink, price)
            network.edge(network.source, nodes[item], UNCUT if item in items else -price)
        for boundary in self._prices.boundaries:
            _add_narrowing(network, nodes, boundary)
            _add_widening(network, nodes, boundary)
        side = network.source_side()
        return frozenset(item for item, node in nodes.items() if node in side)


def _add_narrowing(network: Network, nodes: Mapping[int, int], boundary: Boundary) -> None:
    """The price is due if the tensor is stored in fp32 and not all its low readers are kept."""
    if not boundary.low:
        return
    source = network.source if boundary.source is None else nodes[boundary.source]
    network.edge(source, all_kept := network.node(), boundary.price)
    for reader in boundary.low:
        network.edge(all_kept, nodes[reader], UNCUT)


def _add_widening(network: Network, nodes: Mapping[int, int], boundary: Boundary) -> None:
    """The price is due if the tensor is stored low and something reads it in fp32."""
    if boundary.source is None:
        return
    due = partial(network.edge, head=nodes[boundary.source], capacity=boundary.price)
    if boundary.outside:
        due(network.source)
    elif boundary.wide:
        due(any_kept := network.node())
        for reader in boundary.wide:
            network.edge(nodes[reader], any_kept, UNCUT)
