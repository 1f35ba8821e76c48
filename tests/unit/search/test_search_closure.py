"""Closures against all supersets of small sets."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from pricing import choices, prices, supersets

from topsideas.prices import Boundary, Prices
from topsideas.search.closure import Closure

quick = settings(deadline=None, max_examples=40)


@quick
@given(prices(), st.data())
def test_a_closure_is_the_cheapest_superset_and_of_equals_the_smallest(
    of: Prices, data: st.DataObject
) -> None:
    items = data.draw(choices(of))
    found = Closure(of).of(items)
    best = min(supersets(items, of), key=lambda s: (of.cost(s), len(s)))
    assert items <= found <= of.own.keys()
    assert (of.cost(found), len(found)) == (of.cost(best), len(best))
    ties = [s for s in supersets(items, of) if of.cost(s) == of.cost(best)]
    assert all(found <= s for s in ties)


@quick
@given(prices(), st.data())
def test_closures_are_closed_and_in_order(of: Prices, data: st.DataObject) -> None:
    larger = data.draw(choices(of))
    smaller = data.draw(st.frozensets(st.sampled_from(sorted(larger)))) if larger else larger
    closure = Closure(of)
    inner, outer = closure.of(smaller), closure.of(larger)
    assert inner <= outer
    assert of.cost(inner) <= of.cost(outer)
    assert closure.of(inner) == inner
    assert closure.of(outer) == outer


def test_an_op_between_two_kept_ones_is_kept_where_casts_cost_more() -> None:
    def chain(cast: float) -> Prices:
        between = [Boundary(cast, at, low=(at + 1,), wide=(at + 1,)) for at in range(4)]
        return Prices(dict.fromkeys(range(5), 1.0), between)

    assert Closure(chain(1.0)).of(frozenset({1, 3})) == {1, 2, 3}
    assert Closure(chain(0.25)).of(frozenset({1, 3})) == {1, 3}
    assert Closure(chain(0.5)).of(frozenset({1, 3})) == {1, 3}  # a tie: the fewest items
    assert Closure(chain(9.0)).of(frozenset()) == frozenset()


def test_an_op_that_fp32_makes_cheaper_comes_in() -> None:
    of = Prices({0: 1.0, 1: -2.0, 2: 0.0})
    assert Closure(of).of(frozenset({0})) == {0, 1}
    assert Closure(of).of(frozenset()) == {1}


def test_without_casts_nothing_is_added() -> None:
    assert Closure(Prices.uniform(range(4))).of(frozenset({2})) == {2}


def test_ops_without_a_price_are_in_closures_and_cost_nothing() -> None:
    of = Prices({0: 1.0, 1: 1.0}, [Boundary(4.0, None, low=(0, 1))])
    closure = Closure(of)
    assert closure.of(frozenset({77})) >= {77}
    # Both readers kept: no cast of the fp32 tensor is left, which saves more than two ops cost.
    assert closure.of(frozenset({77})) == {77, 0, 1}
