"""Cheapest search: from an answer with few items to one that costs little.

Few items are not always cheap ones: one large item may cost more than ten small ones, and where
neighbours differ casts are due. So the ranked search is repeated with two changes: the ranking
puts those items first that do most for their price, and each set is replaced by the cheapest one
that holds it (see :mod:`topsideas.search.closure`). What costs more than it is known to be needed
for is dropped from the result, one by one.

Guarantees, whatever the oracle is like: the set returned passes, costs no more than the one given,
and no single item of it can be dropped so that it costs less and still passes; each such drop was
asked about. Cost: about as many questions as the ranked search asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from topsideas.prices import Items, Prices
from topsideas.search.closure import Closure
from topsideas.search.objective import Objective
from topsideas.search.oracle import Oracle
from topsideas.search.ranked import ranked_search


def cheapen(
    oracle: Oracle,
    fixed: Items,
    kept: Items,
    ranking: Sequence[int],
    prices: Prices,
) -> Items:
    """The cheapest set found that passes, ``fixed`` included.

    Args:
        oracle: Answers questions.
        fixed: Items that are in every set.
        kept: A set that is known to pass, ``fixed`` included.
        ranking: The items to choose from, those most likely needed first. Any others with a
            price come in where that makes a set cheaper.
        prices: What sets cost.

    Raises:
        BudgetSpent: ``oracle.best`` then holds the best set so far.
    """
    oracle.phase = "cheapest"
    closure = Closure(prices)
    order = by_worth(ranking, kept, prices)
    found = [kept, closure.of(kept), *_searched(oracle, fixed, kept, order, closure)]
    # That search looks for few items, and may have passed cheaper sets on its way.
    found += [s for s in oracle.passing if fixed <= s]
    passing = [s for s in dict.fromkeys(found) if prices.cost(s) <= prices.cost(kept)]
    passing.sort(key=lambda s: Objective.COST.key(s, prices.cost))
    cheapest = next(s for s in passing if oracle.passes(s))
    return _without_needless(oracle, fixed, cheapest, prices)


def by_worth(ranking: Sequence[int], kept: Items, prices: Prices) -> list[int]:
    """The items of a ranking, those first that do most for what they cost beside ``kept``.

    What an item does is taken to fall as 1 over its place in the ranking. Measured on errors that
    add up, that gives answers as cheap as the exact errors do.
    """

    def worth(item: int) -> float:
        price = prices.cost(kept | {item}) - prices.cost(kept - {item})
        return 1 / (place[item] * price) if price > 0 else math.inf

    place = {item: at for at, item in enumerate(ranking, start=1)}
    return sorted(ranking, key=lambda item: (-worth(item), place[item]))


def _searched(
    oracle: Oracle, fixed: Items, kept: Items, order: Sequence[int], closure: Closure
) -> list[Items]:
    """The ranked search over closed sets; nothing if not even the largest passes."""

    def hint(core: Items) -> None:
        if oracle.known(closure.of(core)) is None:
            oracle.hint(closure.of(core))

    closed = Oracle(judge=lambda core: oracle.ask(closure.of(core)), hint=hint)
    if not closed.passes(fixed | frozenset(order)):
        return []
    return [closure.of(ranked_search(closed, fixed, order, len(kept - fixed)))]


def _without_needless(oracle: Oracle, fixed: Items, kept: Items, prices: Prices) -> Items:
    """Drop single items, those that save most first, until none can go and make it cheaper."""
    asked_all = False
    while not asked_all:
        saved = {i: prices.cost(kept) - prices.cost(kept - {i}) for i in kept - fixed}
        trials = sorted((i for i in saved if saved[i] > 0), key=lambda i: (-saved[i], i))
        asked_all = True
        for at, item in enumerate(trials):
            oracle.expected = len(trials) - at
            if oracle.passes(kept - {item}):
                kept, asked_all = kept - {item}, False
                break
    return kept
