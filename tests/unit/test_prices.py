"""What plans cost, against counting casts one by one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topsideas.prices import Boundary, Items, Prices

quick = settings(deadline=None, max_examples=40)
OPS = range(6)
NONE: Items = frozenset()
# In quarters, so that sums are exact; 77 is an op that is no candidate.
QUARTERS = st.integers(0, 40).map(lambda n: n / 4)
SOME = st.lists(st.sampled_from(OPS), max_size=3, unique=True).map(tuple)
BOUNDARIES = st.builds(
    Boundary, QUARTERS, st.none() | st.sampled_from(OPS), SOME, SOME, st.booleans()
)
OWN = st.integers(-20, 40).map(lambda n: n / 4)
PRICES = st.builds(
    Prices, st.fixed_dictionaries(dict.fromkeys(OPS, OWN)), st.lists(BOUNDARIES, max_size=10)
)
PLANS = st.frozensets(st.sampled_from([*OPS, 77]))


def _casts_due(boundary: Boundary, kept: Items) -> int:
    """One if the tensor's precision is not the one that some reader wants, from the definition."""
    stored_low = boundary.source is not None and boundary.source not in kept
    want_low = any(op not in kept for op in boundary.low)
    want_wide = boundary.outside or any(op in kept for op in boundary.wide)
    return int(want_wide if stored_low else want_low)


@quick
@given(PRICES, PLANS)
def test_the_cost_is_that_of_the_ops_and_of_the_casts(prices: Prices, kept: Items) -> None:
    own = sum(prices.own[op] for op in kept - {77})
    casts = sum(b.price * (_casts_due(b, kept) - _casts_due(b, NONE)) for b in prices.boundaries)
    assert prices.cost(kept) == own + casts


@quick
@given(PRICES, PLANS)
def test_casts_are_counted(prices: Prices, kept: Items) -> None:
    assert prices.casts(kept) == sum(_casts_due(b, kept) for b in prices.boundaries)


@quick
@given(PRICES, PLANS)
def test_shares_are_those_of_the_kept_ops_and_add_up_to_the_cost(
    prices: Prices, kept: Items
) -> None:
    shares = prices.shares(kept)
    assert shares.keys() == kept
    assert sum(shares.values()) == pytest.approx(prices.cost(kept), abs=1e-9)
    assert shares.get(77, 0.0) == 0.0


@quick
@given(PRICES)
def test_the_plan_that_keeps_nothing_is_what_is_compared_with(prices: Prices) -> None:
    assert prices.cost(NONE) == 0
    assert prices.shares(NONE) == {}


@quick
@given(PRICES, st.integers(0, 9).map(lambda n: n / 4), PLANS)
def test_a_dearer_op_makes_dearer_the_plans_that_keep_it_and_no_others(
    prices: Prices, more: float, kept: Items
) -> None:
    dearer = Prices({**prices.own, 0: prices.own[0] + more}, prices.boundaries)
    assert dearer.cost(kept) - prices.cost(kept) == (more if 0 in kept else 0)


@quick
@given(st.frozensets(st.integers(0, 99)), st.frozensets(st.integers(0, 99)))
def test_uniform_prices_count_the_ops(items: Items, kept: Items) -> None:
    prices = Prices.uniform(items)
    assert prices.cost(kept) == len(kept & items)
    assert prices.casts(kept) == 0
    assert prices.unit == "ops"
    assert not prices.measured


def test_readers_share_one_cast() -> None:
    prices = Prices(dict.fromkeys(range(3), 1.0), [Boundary(10.0, 0, low=(1, 2))])
    assert [prices.casts(frozenset(s)) for s in ((), (0,), (0, 1), (0, 1, 2))] == [0, 1, 1, 0]
    assert prices.cost(frozenset({0})) == 11
    assert prices.cost(frozenset({0, 1, 2})) == 3


def test_what_is_saved_and_shared_is_told_by_op() -> None:
    prices = Prices({0: 1.0, 1: 2.0}, [Boundary(6.0, None, low=(0, 1))])
    assert prices.casts(NONE) == 1
    assert prices.shares(frozenset({0})) == {0: 1.0}
    assert prices.shares(frozenset({0, 1})) == {0: -2.0, 1: -1.0}


def test_a_tensor_that_leaves_the_model_is_cast_unless_it_is_kept() -> None:
    prices = Prices({0: 1.0}, [Boundary(4.0, 0, outside=True)])
    assert (prices.casts(NONE), prices.casts(frozenset({0}))) == (1, 0)
    assert prices.cost(frozenset({0})) == -3
