from __future__ import annotations

import pytest

from topsideas.search.oracle import Oracle
from topsideas.search.ranked import ranked_search, refined
from topsideas.testing.search_conformance import needs, oracle_of


def _asked(oracle: Oracle) -> list[list[int]]:
    return [sorted(q.items) for q in oracle.ledger]


def test_a_right_ranking_is_galloped_then_certified() -> None:
    oracle = oracle_of(needs(0, 1, 2))
    assert ranked_search(oracle, frozenset(), range(10)) == {0, 1, 2}
    asked = [[0], [0, 1], [0, 1, 2, 3], [0, 1, 2], [0, 2], [1, 2]]
    assert [sorted(q.items) for q in oracle.ledger if q.phase != "swap"] == asked


def test_the_search_can_start_at_a_known_length() -> None:
    oracle = oracle_of(needs(0, 1, 2))
    assert ranked_search(oracle, frozenset(), range(10), start=3) == {0, 1, 2}
    assert _asked(oracle)[0] == [0, 1, 2]


@pytest.mark.parametrize("start", [-1, 0, 1, 10, 99])
def test_any_start_is_taken(start: int) -> None:
    assert ranked_search(oracle_of(needs(7)), frozenset(), range(10), start=start) == {7}


def test_phases_are_named() -> None:
    oracle = oracle_of(needs(25, 30))
    ranked_search(oracle, frozenset(), range(40))
    assert {q.phase for q in oracle.ledger} == {"prefix", "shrink", "certify", "swap"}


def test_a_drop_that_helps_another_drop_is_followed_up() -> None:
    """3 can go only after 1 went: the certificate starts anew after each drop."""
    oracle = oracle_of(lambda s: 5 in s and not (1 in s and 3 not in s))
    assert refined(oracle, frozenset(), [5, 1, 3], frozenset({1, 3, 5})) == {5}


def test_long_runs_are_dropped_in_few_questions() -> None:
    """A ranking that puts what is needed both first and last: the prefix is all of it."""
    oracle = oracle_of(needs(0, 4095))
    assert ranked_search(oracle, frozenset(), range(4096), start=4096) == {0, 4095}
    assert len(oracle.ledger) < 50


def test_a_swap_finds_what_no_single_drop_can() -> None:
    """{1, 2} is 1-minimal, {0} is smaller, and the ranking puts it last."""
    oracle = oracle_of(lambda s: 0 in s or {1, 2} <= s)
    assert ranked_search(oracle, frozenset(), [1, 2, 0]) == {0}
    assert "swap" in {q.phase for q in oracle.ledger}


def test_swaps_are_bounded() -> None:
    oracle = oracle_of(needs(*range(30)))
    ranked_search(oracle, frozenset(), range(200))
    assert sum(q.phase == "swap" for q in oracle.ledger) <= 16
    assert len(oracle.ledger) <= 3 * 30 + 25


def test_the_next_question_is_announced() -> None:
    """Every hint of a shrinking search that fails comes true, but for the last of a phase."""
    hints: list[frozenset[int]] = []
    oracle = oracle_of(needs(*range(8)))
    oracle.hint = hints.append
    refined(oracle, frozenset(), range(8), frozenset(range(8)))
    asked = {q.items for q in oracle.ledger}
    assert hints
    assert set(hints) <= asked
