"""Draws, whatever the oracle is like and whatever the predictions are worth."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topsideas.search.draws import MarginFit, drawn, smaller_by_draws
from topsideas.search.oracle import Budget, BudgetSpent, Items, Oracle
from topsideas.testing.noisy_additive import NoisyAdditive
from topsideas.verdict import Verdict

quick = settings(deadline=None, max_examples=60)
ERRORS = st.lists(st.floats(0, 1e6), min_size=2, max_size=30).map(lambda e: sorted(e)[::-1])
MARGINS = st.none() | st.sampled_from([0.0, math.inf, math.nan]) | st.floats(1e-3, 1e5)
SEEN = st.lists(st.tuples(st.integers(0, 99), MARGINS), max_size=12)


def _fitted(errors: list[float], seen: list[tuple[int, float | None]]) -> MarginFit:
    fit = MarginFit(errors)
    for length, margin in seen:
        verdict = Verdict(passed=margin is not None and margin <= 1, margin=margin)
        fit.see(length % len(errors), verdict)
    return fit


@quick
@given(ERRORS, SEEN)
def test_chances_are_probabilities_and_fall_with_fewer_items(
    errors: list[float], seen: list[tuple[int, float | None]]
) -> None:
    chances = _fitted(errors, seen).chances()
    assert chances.shape == (len(errors),)
    assert ((chances >= 0) & (chances <= 1)).all()
    assert (np.diff(chances) >= -1e-12).all()


@quick
@given(ERRORS, SEEN)
def test_margins_that_are_no_numbers_tell_nothing(
    errors: list[float], seen: list[tuple[int, float | None]]
) -> None:
    """None, NaN and 0 count for nothing; infinity only says that it is far."""
    silent = [(at, m) for at, m in seen if m is not None and m > 0]
    assert _fitted(errors, seen).chances().tolist() == _fitted(errors, silent).chances().tolist()
    far = [(at, 1e9 if m == math.inf else m) for at, m in silent]
    assert _fitted(errors, silent).chances().tolist() == _fitted(errors, far).chances().tolist()


def test_without_margins_nothing_has_a_chance() -> None:
    assert MarginFit([4.0, 2.0, 1.0]).chances().tolist() == [0, 0, 0]


def test_what_fails_by_far_is_not_expected_to_pass_and_what_passes_easily_is() -> None:
    errors = [16.0, 8.0, 4.0, 2.0, 1.0]
    high = _fitted(errors, [(1, 50.0), (2, 25.0)]).chances()
    low = _fitted(errors, [(1, 0.2), (2, 0.1)]).chances()
    assert high[0] < 0.01
    assert low[4] > 0.99
    near = _fitted(errors, [(1, 4.0), (2, 2.0), (3, 1.0), (4, 0.5)]).chances()
    assert near[3] == pytest.approx(0.5, abs=0.05)
    assert near[1] < 0.05 < 0.95 < near[4]


@quick
@given(st.lists(st.integers(), unique=True, max_size=40), st.data(), st.integers(0, 99))
def test_so_many_different_items_of_the_ranking_are_drawn(
    ranking: list[int], data: st.DataObject, seed: int
) -> None:
    length = data.draw(st.integers(0, len(ranking)))
    found = drawn(ranking, length, random.Random(seed))
    assert len(found) == len(set(found)) == length
    assert set(found) <= set(ranking)
    assert found == drawn(ranking, length, random.Random(seed))


def test_items_are_drawn_from_about_the_beginning() -> None:
    rng = random.Random(0)
    draws = [drawn(range(400), 100, rng) for _ in range(50)]
    assert len({frozenset(d) for d in draws}) == 50
    assert all(set(range(60)) <= set(d) <= set(range(140)) for d in draws)


Judge = Callable[[Items], Verdict]
COUNT = 40
FIXED: Items = frozenset({100, 101})
PREDICTED = [math.inf, *(2.0**-at for at in range(COUNT))]


def _noisy(seed: int) -> Judge:
    planted = NoisyAdditive.planted(COUNT, 12, seed=seed)
    return lambda items: planted.judge(items - FIXED)


def _without_reason(seed: int) -> Judge:
    def judge(items: Items) -> Verdict:
        margin = random.Random(f"{seed} {sorted(items)}").choice([0.0, 0.4, 0.9, 1.2, 5, math.inf])
        return Verdict(passed=margin <= 1, margin=margin)

    return judge


def _flaky(seed: int) -> Judge:
    rng = random.Random(seed)

    def judge(items: Items) -> Verdict:
        margin = rng.lognormvariate(0, 0.3)
        return Verdict(passed=margin <= 1, margin=rng.choice([margin, margin, None, math.nan]))

    return judge


JUDGES: dict[str, Callable[[int], Judge]] = {
    "noisy": _noisy,
    "no reason": _without_reason,
    "flaky": _flaky,
    "no margins": lambda _: lambda items: Verdict(len(items) > 15, None),
    "always just fails": lambda _: lambda _: Verdict(False, 1.01),
    "always fails by far": lambda _: lambda _: Verdict(False, math.inf),
    "always just passes": lambda _: lambda _: Verdict(True, 1.0),
    "always exact": lambda _: lambda _: Verdict(True, 0.0),
    "margins that are no numbers": lambda _: lambda _: Verdict(False, math.nan),
}
PREDICTIONS: dict[str, list[float]] = {
    "falling": PREDICTED,
    "equal": [1.0] * (COUNT + 1),
    "nothing": [0.0] * (COUNT + 1),
    "infinite": [math.inf] * (COUNT + 1),
}


def _asked(judge: Judge, size: int) -> Oracle:
    """As after a prefix was found: everything, some prefixes, and the set that passed."""
    given = FIXED | set(range(size))
    recall = {given: Verdict(True, 0.95)}.get
    oracle = Oracle(judge=judge, recall=recall)
    for length in (COUNT, size // 2, 3 * size // 4, size):
        oracle.ask(FIXED | set(range(length)))
    return oracle


@pytest.mark.parametrize("errors", PREDICTIONS.values(), ids=PREDICTIONS)
@pytest.mark.parametrize("judge", JUDGES.values(), ids=JUDGES)
def test_a_set_is_drawn_only_if_it_was_asked_and_passed(
    judge: Callable[[int], Judge], errors: list[float]
) -> None:
    for seed in range(3):
        for size in (1, 2, 5, 20, COUNT):
            oracle = _asked(judge(seed), size)
            start = FIXED | set(range(size))
            found = smaller_by_draws(oracle, FIXED, range(COUNT), start, errors)
            known = oracle.known(found)
            assert known is not None
            assert known.passed
            assert FIXED <= found <= FIXED | set(range(COUNT))
            assert found == start or len(found) < len(start)
            assert len(oracle.ledger) <= 3 * len(start) + 25


@pytest.mark.parametrize("name", ["no margins", "margins that are no numbers"])
def test_without_margins_nothing_is_asked(name: str) -> None:
    oracle = Oracle(JUDGES[name](0), recall={FIXED | set(range(20)): Verdict(True, None)}.get)
    start = FIXED | set(range(20))
    oracle.ask(start)
    assert smaller_by_draws(oracle, FIXED, range(COUNT), start, PREDICTED) == start
    assert len(oracle.ledger) == 1


@pytest.mark.parametrize("name", ["noisy", "no reason"])
def test_draws_are_repeatable(name: str) -> None:
    ways = []
    for _ in range(2):
        oracle = _asked(JUDGES[name](1), 20)
        start = FIXED | set(range(20))
        found = smaller_by_draws(oracle, FIXED, range(COUNT), start, PREDICTED)
        ways.append((found, [q.items for q in oracle.ledger]))
    assert ways[0] == ways[1]
    assert len(ways[0][1]) > 4


def test_what_is_much_too_large_is_made_much_smaller() -> None:
    """12 items would do half the time, 30 are given: draws come close on each of 10 models."""
    for seed in range(10):
        planted = NoisyAdditive.planted(COUNT, 12, seed=seed)
        ranking = planted.ranking()
        oracle = Oracle(judge=planted.judge)
        start = frozenset(ranking[:30])
        for length in (30, 15, 22):
            oracle.ask(frozenset(ranking[:length]))
        if oracle.passes(start):
            errors = planted.errors(ranking)
            found = smaller_by_draws(oracle, frozenset(), ranking, start, errors)
            assert len(found) <= 13


def test_out_of_budget_the_smallest_set_that_passed_is_in_the_oracle() -> None:
    for limit in range(4, 16):
        oracle = _asked(_noisy(0), 30)
        oracle.budget = Budget(evaluations=limit)
        start = FIXED | set(range(30))
        try:
            found = smaller_by_draws(oracle, FIXED, range(COUNT), start, PREDICTED)
        except BudgetSpent:
            assert oracle.evaluations == limit
        else:
            assert oracle.best == found
        passed = [q.items for q in oracle.ledger if q.verdict.passed]
        assert oracle.best is not None
        assert len(oracle.best) == min(map(len, passed))
