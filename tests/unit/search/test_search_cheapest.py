"""Answers that cost little: against what is guaranteed, and against trying every set."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pricing import QUARTERS, choices, prices

from topsideas.prices import Boundary, Items, Prices
from topsideas.search.cheapest import by_worth, cheapen
from topsideas.search.objective import Objective
from topsideas.search.oracle import Budget, BudgetSpent, Oracle
from topsideas.search.ranked import ranked_search
from topsideas.testing.search_conformance import Accepts, adds_up, needs, oracle_of

quick = settings(deadline=None, max_examples=40)
RULES: dict[str, Callable[[int, Items], Accepts]] = {
    "given items are needed": lambda _, kept: needs(*sorted(kept)),
    "a sum of errors": lambda seed, kept: _sum_of_errors(seed, kept),
    "no reason": lambda seed, kept: lambda s: s == kept or _chance(f"{seed}{sorted(s)}") < 0.4,
}


def _chance(seed: str) -> float:
    return random.Random(seed).random()


def _sum_of_errors(seed: int, kept: Items) -> Accepts:
    rng = random.Random(seed)
    errors = [rng.lognormvariate(0, 1) for _ in range(8)]
    return adds_up(errors, sum(e for i, e in enumerate(errors) if i not in kept))


@pytest.mark.parametrize("rule", RULES)
@quick
@given(of=prices(most=8), data=st.data(), seed=st.integers(0, 99))
def test_what_is_found_passes_costs_no_more_and_lacks_nothing_needless(
    rule: str, of: Prices, data: st.DataObject, seed: int
) -> None:
    kept = data.draw(choices(of))
    fixed = frozenset(i for i in kept if i % 3 == 0)
    ranking = data.draw(st.permutations(sorted(of.own.keys() - fixed)))
    oracle = oracle_of(RULES[rule](seed, kept))
    found = cheapen(oracle, fixed, kept, ranking, of)
    assert fixed <= found <= of.own.keys()
    asked = {q.items: q.verdict.passed for q in oracle.ledger}
    assert asked[found]
    assert of.cost(found) <= of.cost(kept)
    for item in found - fixed:
        less = found - {item}
        assert of.cost(less) >= of.cost(found) or asked[less] is False
    assert len(oracle.ledger) <= 3 * len(of.own) + 25


def _casts(rng: random.Random, count: int) -> list[Boundary]:
    """A chain with casts between neighbours."""
    return [
        Boundary(rng.randrange(1, 40) / 4, at, low=(at + 1,), wide=(at + 1,))
        for at in range(count - 1)
    ]


def _planted(seed: int, count: int, allowed: float) -> tuple[Accepts, list[int], Prices]:
    rng = random.Random(seed)
    errors = [rng.lognormvariate(0, 1.5) for _ in range(count)]
    own = {at: rng.randrange(1, 60) / 4 for at in range(count)}
    ranking = sorted(range(count), key=lambda i: -errors[i])
    return adds_up(errors, sum(errors) * allowed), ranking, Prices(own, _casts(rng, count))


def test_it_comes_close_to_the_cheapest_of_all_sets() -> None:
    """30 chains of 9 ops: at most a tenth dearer in all, and cheaper than the fewest ops."""
    found = fewest = best = 0.0
    for seed in range(30):
        accepts, ranking, of = _planted(seed, 9, 0.3)
        oracle = oracle_of(accepts)
        kept = ranked_search(oracle, frozenset(), ranking)
        found += of.cost(cheapen(oracle, frozenset(), kept, ranking, of))
        fewest += of.cost(kept)
        sets = (frozenset(c) for k in range(10) for c in combinations(range(9), k))
        best += min(of.cost(s) for s in sets if accepts(s))
    assert best <= found <= 1.1 * best
    assert found < fewest


@pytest.mark.parametrize("count", [20, 60])
def test_questions_are_about_as_many_as_the_ranked_search_asks(count: int) -> None:
    for seed in range(6):
        accepts, ranking, of = _planted(seed, count, 0.3)
        oracle = oracle_of(accepts)
        kept = ranked_search(oracle, frozenset(), ranking)
        before = oracle.evaluations
        cheapen(oracle, frozenset(), kept, ranking, of)
        assert oracle.evaluations - before <= 2 * before + 25


def test_uniform_prices_leave_nothing_to_gain_from_a_smallest_answer() -> None:
    oracle = oracle_of(needs(2, 5))
    found = cheapen(oracle, frozenset(), frozenset({2, 5}), range(8), Prices.uniform(range(8)))
    assert found == {2, 5}


def test_a_cheaper_set_that_passed_on_the_way_is_not_forgotten() -> None:
    """The search for few items goes on from {1, 2} to {0}, which is dearer."""
    of = Prices({0: 100.0, 1: 1.0, 2: 1.0})
    oracle = oracle_of(lambda s: 0 in s or {1, 2} <= s)
    assert cheapen(oracle, frozenset(), frozenset({0}), [0, 1, 2], of) == {1, 2}


def test_out_of_budget_at_any_point_the_best_set_is_in_the_oracle() -> None:
    accepts, ranking, of = _planted(3, 9, 0.3)
    everything = frozenset(range(9))
    free = oracle_of(accepts)
    cheapen(free, frozenset(), everything, ranking, of)
    for limit in range(1, free.evaluations):
        oracle = Oracle(
            free.judge, budget=Budget(evaluations=limit), objective=Objective.COST, cost=of.cost
        )
        with pytest.raises(BudgetSpent):
            cheapen(oracle, frozenset(), everything, ranking, of)
        assert oracle.evaluations == limit
        passed = [q.items for q in oracle.ledger if q.verdict.passed]
        assert oracle.best == (min(passed, key=of.cost) if passed else None)


@quick
@given(st.lists(QUARTERS, min_size=1, max_size=9), st.data())
def test_worth_orders_all_items_and_keeps_the_order_of_equals(
    own: list[float], data: st.DataObject
) -> None:
    of = Prices(dict(enumerate(own)))
    ranking = data.draw(st.permutations(range(len(own))))
    order = by_worth(ranking, frozenset(), of)
    assert sorted(order) == sorted(ranking)
    free = [i for i in ranking if own[i] == 0]
    assert order[: len(free)] == free
    dearest = [i for i in order if own[i] == max(own)]
    assert dearest == [i for i in ranking if own[i] == max(own)]
