"""How small the answers are, and how few questions they take."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from topsideas.search.oracle import Items
from topsideas.search.ranked import ranked_search
from topsideas.testing.search_conformance import (
    Accepts,
    adds_up,
    needed_items,
    needs,
    noisy,
    oracle_of,
)


def _optimum(count: int, accepts: Accepts) -> int:
    """The size of the smallest accepted set, by trying them all."""
    for size in range(count + 1):
        if any(accepts(frozenset(c)) for c in combinations(range(count), size)):
            return size
    raise AssertionError("not even the whole set is accepted")


def _additive(count: int, seed: int, spread: float) -> tuple[list[float], float]:
    """Errors of very different size, and how much of their sum is allowed."""
    rng = random.Random(seed)
    errors = [rng.lognormvariate(0, spread) for _ in range(count)]
    return errors, sum(errors) * rng.uniform(0.02, 0.6)


def _search(ranking: list[int], accepts: Accepts) -> tuple[Items, int]:
    oracle = oracle_of(accepts)
    found = ranked_search(oracle, frozenset(), ranking)
    return found, oracle.evaluations


@pytest.mark.parametrize("count", [1, 2, 5, 9, 12])
def test_a_right_ranking_gives_the_smallest_answer(count: int) -> None:
    for seed in range(20):
        errors, allowed = _additive(count, seed, 1.5)
        accepts = adds_up(errors, allowed)
        found, _ = _search(sorted(range(count), key=lambda i: -errors[i]), accepts)
        assert len(found) == _optimum(count, accepts)


def test_a_rough_ranking_costs_little_size() -> None:
    """Errors known within a factor of about two: the answer is at most a fifth larger."""
    found_in_all = best_in_all = 0
    for seed in range(60):
        errors, allowed = _additive(12, seed, 1.5)
        rng = random.Random(seed)
        guessed = [e * rng.lognormvariate(0, 0.7) for e in errors]
        accepts = adds_up(errors, allowed)
        found, _ = _search(sorted(range(12), key=lambda i: -guessed[i]), accepts)
        best = _optimum(12, accepts)
        assert len(found) <= best + 2
        found_in_all += len(found)
        best_in_all += best
    assert found_in_all <= 1.2 * best_in_all


def test_a_random_ranking_is_still_valid_and_the_order_is_what_makes_it_small() -> None:
    ordered = shuffled = 0
    for seed in range(20):
        errors, allowed = _additive(12, seed, 2.0)
        accepts = adds_up(errors, allowed)
        ranking = list(range(12))
        random.Random(seed).shuffle(ranking)
        found, _ = _search(ranking, accepts)
        assert accepts(found)
        shuffled += len(found)
        ordered += len(_search(sorted(range(12), key=lambda i: -errors[i]), accepts)[0])
    assert ordered < shuffled


@pytest.mark.parametrize("right", [1.0, 0.8], ids=["exact ranking", "80 % ranking"])
@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("count", [200, 1000])
def test_questions_stay_within_the_budget(count: int, k: int, right: float) -> None:
    """At most 3 questions per kept item and 25 besides, the worst of 40 draws."""
    for seed in range(40):
        needed = needed_items(count, k, seed)
        found, questions = _search(noisy(count, needed, right, seed), needs(*needed))
        assert found == frozenset(needed)
        assert questions <= 3 * k + 25


@pytest.mark.parametrize(("k", "most"), [(1, 2), (5, 26), (20, 55), (100, 162)])
def test_a_right_ranking_needs_hardly_more_questions_than_the_certificate(
    k: int, most: int
) -> None:
    """And windows, a third of k, swaps, of which there are at most 16, and one move."""
    for count in (200, 1000, 5000):
        needed = needed_items(count, k, seed=count)
        _, questions = _search(noisy(count, needed, 1.0, seed=0), needs(*needed))
        assert questions <= most


def test_a_rough_ranking_of_many_small_errors_stays_within_the_budget() -> None:
    for seed in range(15):
        rng = random.Random(seed)
        errors = [rng.lognormvariate(0, 2) for _ in range(300)]
        accepts = adds_up(errors, sum(sorted(errors)[:-15]) * 1.0001)
        guessed = [e * rng.lognormvariate(0, 0.7) for e in errors]
        found, questions = _search(sorted(range(300), key=lambda i: -guessed[i]), accepts)
        assert len(found) <= 15 * 1.5
        assert questions <= 3 * len(found) + 25
