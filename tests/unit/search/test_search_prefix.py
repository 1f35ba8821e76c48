"""The shortest prefix that passes, and items that a ranking overlooked."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topsideas.search.oracle import Items, Oracle
from topsideas.search.prefix import Prefix, decisive, passing_prefix, shortest_prefix
from topsideas.testing.noisy_additive import NoisyAdditive
from topsideas.verdict import Verdict

quick = settings(deadline=None, max_examples=60)
COUNT = 256


def _needs(needed: Items, *, margins: bool = True) -> Oracle:
    """Each needed item that is left out fails by its own margin, the worst of which decides."""

    def judge(items: Items) -> Verdict:
        missing = needed - items
        margin = max((2.0 + i / COUNT for i in missing), default=0.5)
        return Verdict(passed=not missing, margin=margin if margins else None)

    oracle = Oracle(judge=judge)
    oracle.ask(frozenset(range(COUNT)))  # what every search asks before it ranks
    return oracle


@quick
@given(
    st.sets(st.integers(0, COUNT - 1), min_size=1, max_size=8),
    st.integers(0, COUNT),
    st.booleans(),
)
def test_needed_items_are_found_wherever_they_stand(
    needed: set[int], start: int, margins: bool
) -> None:
    oracle = _needs(frozenset(needed), margins=margins)
    found = passing_prefix(oracle, frozenset(), range(COUNT), start)
    verdict = oracle.known(found.items)
    assert verdict is not None
    assert verdict.passed
    assert [*found.first, *found.others[: found.length]] == list(
        dict.fromkeys([*found.first, *found.others[: found.length]])
    )
    assert sorted([*found.first, *found.others]) == list(range(COUNT))
    assert len(found.items) <= max(needed) + 1
    # The gallop, and about log2 n questions for each item that moves.
    assert len(oracle.ledger) <= 2 * COUNT.bit_length() + 10 * (len(found.first) + 1)


def test_items_far_behind_do_not_drag_along_what_was_ranked_before_them() -> None:
    needed = frozenset({0, 1, 2, 150, 240})
    found = passing_prefix(_needs(needed), frozenset(), range(COUNT), 3)
    assert found.first == (240, 150)
    assert found.items == needed


def test_pairs_that_are_needed_together_are_found() -> None:
    """Any of two items repairs nothing without the other."""

    def judge(items: Items) -> Verdict:
        passed = {90, 200} <= items
        return Verdict(passed, 0.3 if passed else 7.0)

    found = passing_prefix(Oracle(judge=judge), frozenset(), range(COUNT), 1)
    assert found.items == {90, 200}


def test_near_the_limit_nothing_moves_for_long() -> None:
    """Where many small errors add up the last item of a prefix is needed by chance."""
    moved = 0
    for seed in range(8):
        planted = NoisyAdditive.planted(COUNT, 60, seed=seed)
        plain, moving = Oracle(judge=planted.judge), Oracle(judge=planted.judge)
        first = shortest_prefix(plain, frozenset(), planted.ranking(), 40)
        found = passing_prefix(moving, frozenset(), planted.ranking(), 40)
        moved += len(found.first)
        assert len(found.items) <= len(first.items)
        assert len(moving.ledger) <= len(plain.ledger) + 10 * (len(found.first) + 1)
    assert moved <= 8


Margins = Callable[[int], float | None]


@pytest.mark.parametrize(
    ("margins", "decides"),
    [
        ({3: 0.9, 2: 1.1, 1: 1.4}, False),  # as chance has it
        ({3: 0.5, 2: 1.1, 1: 1.4}, True),  # a leap
        ({3: 0.9, 2: 1.1, 1: 1.1}, True),  # the item before it changed nothing
        ({3: 0.9, 2: math.inf, 1: math.inf}, True),
        ({3: None, 2: None, 1: None}, True),  # a validator: nothing speaks against it
        ({3: 0.9, 1: 1.1}, False),  # it was not asked about
    ],
)
def test_when_the_last_item_decides(margins: dict[int, float | None], decides: bool) -> None:
    oracle = Oracle(judge=lambda items: Verdict(len(items) == 3, margins[len(items)], 5))
    for length in margins:
        oracle.ask(frozenset(range(length)))
    verdict = decisive(oracle, frozenset(), Prefix((), list(range(9)), 3))
    assert (verdict is not None) == decides
    assert verdict is None or verdict.sample == 5


@pytest.mark.parametrize("seed", range(5))
def test_an_oracle_without_reason_gets_a_set_that_it_passed(seed: int) -> None:
    def judge(items: Items) -> Verdict:
        if len(items) == COUNT:
            return Verdict(True, 0.1)
        margin = random.Random(f"{seed} {sorted(items)}").choice([0.4, 0.9, 1.2, 5, math.inf])
        return Verdict(passed=margin <= 1, margin=margin)

    oracle = Oracle(judge=judge)
    found = passing_prefix(oracle, frozenset(), range(COUNT), 1)
    verdict = oracle.known(found.items)
    assert verdict is not None
    assert verdict.passed
