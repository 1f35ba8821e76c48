"""Random prices, in quarters, so that sums are exact and equal costs are equal."""

from __future__ import annotations

from itertools import combinations

from hypothesis import strategies as st

from topsideas.prices import Boundary, Items, Prices

QUARTERS = st.integers(0, 24).map(lambda n: n / 4)
DEBTS = st.integers(-8, 24).map(lambda n: n / 4)


def boundaries(items: range) -> st.SearchStrategy[Boundary]:
    ops = st.sampled_from(items)
    some = st.lists(ops, max_size=3, unique=True).map(tuple)
    return st.builds(Boundary, QUARTERS, st.none() | ops, some, some, st.booleans())


@st.composite
def prices(draw: st.DrawFn, most: int = 8, own: st.SearchStrategy[float] = DEBTS) -> Prices:
    """Prices of items 0, 1, 2, …; some are negative: an op may be faster in fp32."""
    items = range(draw(st.integers(1, most)))
    between = st.lists(boundaries(items), max_size=2 * len(items))
    return Prices({item: draw(own) for item in items}, draw(between))


@st.composite
def choices(draw: st.DrawFn, of: Prices) -> Items:
    return draw(st.frozensets(st.sampled_from(sorted(of.own))))


def supersets(items: Items, of: Prices) -> list[Items]:
    """Every set of priced items that holds ``items``, the smaller ones first."""
    others = sorted(of.own.keys() - items)
    return [items | {*c} for k in range(len(others) + 1) for c in combinations(others, k)]
