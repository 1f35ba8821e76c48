from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topsideas.prices import Items, Prices
from topsideas.search.objective import Objective

quick = settings(deadline=None, max_examples=60)
SETS = st.frozensets(st.integers(0, 7))
PRICES = st.fixed_dictionaries(dict.fromkeys(range(8), st.integers(-1, 2).map(float))).map(Prices)
each_objective = pytest.mark.parametrize("objective", Objective)


@each_objective
@quick
@given(prices=PRICES, a=SETS, b=SETS)
def test_of_two_different_sets_one_is_better(
    objective: Objective, prices: Prices, a: Items, b: Items
) -> None:
    first, second = objective.key(a, prices.cost), objective.key(b, prices.cost)
    assert (first < second, first == second, first > second).count(True) == 1
    assert (first == second) == (a == b)


@each_objective
@quick
@given(prices=PRICES, sets=st.lists(SETS, min_size=1, max_size=6), seed=st.integers(0, 9))
def test_the_best_comes_first_whatever_the_order_of_the_sets(
    objective: Objective, prices: Prices, sets: list[Items], seed: int
) -> None:
    best = objective.best(sets, prices.cost)
    assert best == min(sets, key=lambda s: objective.key(s, prices.cost))
    random.Random(seed).shuffle(sets)
    assert objective.best(sets, prices.cost) == best


def test_what_counts_first_second_and_last() -> None:
    prices = Prices({0: 9.0, 1: 1.0, 2: 1.0, 3: 2.0})
    sets = [frozenset(s) for s in ({0}, {1, 2}, {1, 3}, {3}, {2, 1, 3})]

    def ordered(objective: Objective) -> list[list[int]]:
        return [sorted(s) for s in sorted(sets, key=lambda s: objective.key(s, prices.cost))]

    assert ordered(Objective.OPS) == [[3], [0], [1, 2], [1, 3], [1, 2, 3]]
    assert ordered(Objective.COST) == [[3], [1, 2], [1, 3], [1, 2, 3], [0]]


@each_objective
def test_of_nothing_nothing_is_best(objective: Objective) -> None:
    assert objective.best([], lambda _: 0.0) is None


def test_no_cost_is_asked_where_the_size_decides() -> None:
    def cost(_: Items) -> float:
        raise AssertionError("not needed")

    sets = [frozenset({1}), frozenset({1, 2}), frozenset({2, 3})]
    assert Objective.OPS.best(sets, cost) == {1}
