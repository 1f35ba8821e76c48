from __future__ import annotations

import pytest

from topsideas.search.oracle import Budget, BudgetSpent, Items, Oracle
from topsideas.verdict import Verdict

PASS, FAIL = Verdict(passed=True, margin=0.5), Verdict(passed=False, margin=2.0)


def _needs(*needed: int) -> Oracle:
    return Oracle(judge=lambda items: PASS if items.issuperset(needed) else FAIL)


def test_a_set_is_judged_once() -> None:
    asked: list[Items] = []

    def judge(items: Items) -> Verdict:
        asked.append(items)
        return PASS

    oracle = Oracle(judge=judge)
    assert oracle.passes(frozenset({1, 2}))
    assert oracle.passes(frozenset([2, 1, 1]))
    assert asked == [frozenset({1, 2})]
    assert oracle.evaluations == len(oracle.ledger) == 1


def test_the_ledger_tells_phase_time_and_verdict_in_order() -> None:
    times = iter([10.0, 11.0, 13.5])
    oracle = Oracle(judge=lambda s: PASS if s else FAIL, clock=lambda: next(times))
    oracle.phase = "first"
    oracle.ask(frozenset())
    oracle.phase = "second"
    oracle.ask(frozenset({1}))
    assert [(q.phase, q.items, q.verdict, q.seconds, q.recalled) for q in oracle.ledger] == [
        ("first", frozenset(), FAIL, 1.0, False),
        ("second", frozenset({1}), PASS, 3.5, False),
    ]


def test_recalled_verdicts_cost_nothing() -> None:
    oracle = Oracle(
        judge=lambda _: FAIL,
        recall={frozenset({1}): PASS}.get,
        budget=Budget(evaluations=1),
    )
    assert oracle.passes(frozenset({1}))
    assert not oracle.passes(frozenset({2}))
    assert oracle.evaluations == 1
    assert [q.recalled for q in oracle.ledger] == [True, False]
    with pytest.raises(BudgetSpent, match="1 evaluations used"):
        oracle.ask(frozenset({3}))
    assert oracle.known(frozenset({3})) is None


def test_time_ends_a_search_before_the_next_question() -> None:
    now = 0.0
    oracle = Oracle(judge=lambda _: PASS, budget=Budget(seconds=2), clock=lambda: now)
    oracle.ask(frozenset())
    now = 2.0
    assert oracle.passes(frozenset())  # known: free
    with pytest.raises(BudgetSpent, match="2 s used"):
        oracle.ask(frozenset({1}))


def test_best_is_the_smallest_then_the_earliest() -> None:
    oracle = _needs(5)
    assert oracle.best is None
    for items in ({1}, {5, 9, 2}, {5, 8}, {5, 7}):
        oracle.ask(frozenset(items))
    assert oracle.best == {5, 7}


def test_a_refuted_answer_puts_all_that_passed_in_doubt() -> None:
    oracle = _needs(5)
    oracle.ask(frozenset({5}))
    oracle.ask(frozenset({5, 6}))
    oracle.refute(frozenset({5}), FAIL)
    assert oracle.best is None
    assert [q.phase for q in oracle.ledger][-1] == "refuted"
    assert not oracle.passes(frozenset({5}))
    assert oracle.evaluations == 2
    assert oracle.passes(frozenset({5, 6}))
    assert oracle.evaluations == 3


def test_each_new_question_is_watched() -> None:
    seen: list[int] = []
    oracle = Oracle(judge=lambda _: PASS, watch=lambda o: seen.append(o.evaluations))
    for items in ({1}, {2}, {1}):
        oracle.ask(frozenset(items))
    assert seen == [1, 2]


def test_an_interrupt_in_the_judge_leaves_the_oracle_usable() -> None:
    def judge(items: Items) -> Verdict:
        if 3 in items:
            raise KeyboardInterrupt
        return PASS

    oracle = Oracle(judge=judge)
    oracle.ask(frozenset({1}))
    with pytest.raises(KeyboardInterrupt):
        oracle.ask(frozenset({3}))
    assert oracle.best == {1}
    assert oracle.evaluations == 1
