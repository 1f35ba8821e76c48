from __future__ import annotations

import pytest

from topsideas.search.oracle import Oracle
from topsideas.search.ranked import ranked_search, shrink
from topsideas.testing.search_conformance import needs, oracle_of


def _asked(oracle: Oracle) -> list[list[int]]:
    return [sorted(q.items) for q in oracle.ledger]


def test_a_right_ranking_is_galloped_then_certified() -> None:
    oracle = oracle_of(needs(0, 1, 2))
    assert ranked_search(oracle, frozenset(), range(10)) == {0, 1, 2}
    assert _asked(oracle) == [[0], [0, 1], [0, 1, 2, 3], [0, 1, 2], [0, 2], [1, 2]]


def test_the_search_can_start_at_a_known_length() -> None:
    oracle = oracle_of(needs(0, 1, 2))
    assert ranked_search(oracle, frozenset(), range(10), start=3) == {0, 1, 2}
    assert _asked(oracle)[0] == [0, 1, 2]


@pytest.mark.parametrize("start", [-1, 0, 1, 10, 99])
def test_any_start_is_taken(start: int) -> None:
    assert ranked_search(oracle_of(needs(7)), frozenset(), range(10), start=start) == {7}


def test_phases_are_named() -> None:
    oracle = oracle_of(needs(4, 9))
    ranked_search(oracle, frozenset(), range(12))
    assert {q.phase for q in oracle.ledger} == {"prefix", "shrink", "certify"}


def test_a_drop_that_helps_another_drop_is_followed_up() -> None:
    """3 can go only after 1 went: the certificate starts anew after each drop."""
    oracle = oracle_of(lambda s: 5 in s and not (1 in s and 3 not in s))
    assert shrink(oracle, frozenset(), [3, 1, 5]) == {5}


def test_long_runs_are_dropped_in_few_questions() -> None:
    oracle = oracle_of(needs(0))
    assert shrink(oracle, frozenset(), range(4096)) == {0}
    assert len(oracle.ledger) < 25
