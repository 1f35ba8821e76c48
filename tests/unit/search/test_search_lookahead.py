"""What is foreseen: the next question first, then what may follow, the likeliest first."""

from __future__ import annotations

from itertools import islice

import pytest

from topsideas.search.lookahead import Lookahead
from topsideas.search.oracle import Items, Oracle
from topsideas.search.ranked import ranked_search
from topsideas.testing.search_conformance import Case, additive_cases, margin_cases, needs
from topsideas.verdict import Verdict


def _bisect(oracle: Oracle) -> int:
    """The least of 0 to 15 whose prefix passes."""
    low, high = -1, 15
    while high - low > 1:
        middle = (low + high) // 2
        if oracle.passes(frozenset(range(middle))):
            high = middle
        else:
            low = middle
    return high


def _unsure(judge: object = None) -> Oracle:
    return Oracle(judge=lambda _: Verdict(passed=False, margin=2.0))


def test_of_a_bisection_both_halves_are_foreseen_level_by_level() -> None:
    found = list(islice(Lookahead(_unsure(), _bisect).questions(), 7))
    assert len(found[0][1]) == 7
    assert {len(items) for _, items in found[1:3]} == {3, 11}
    assert {len(items) for _, items in found[3:]} == {1, 5, 9, 13}
    assert [likelihood for likelihood, _ in found] == [1.0, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]


def test_of_a_sweep_that_mostly_fails_the_next_ones_are_foreseen() -> None:
    def sweep(oracle: Oracle) -> None:
        oracle.phase = "certify"
        for item in range(20):
            oracle.ask(frozenset({item}))

    found = list(islice(Lookahead(_unsure(), sweep).questions(), 5))
    assert [set(items) for _, items in found] == [{0}, {1}, {2}, {3}, {4}]
    likelihoods = [likelihood for likelihood, _ in found]
    assert likelihoods == sorted(likelihoods, reverse=True)


def test_answers_that_are_there_are_not_foreseen() -> None:
    known = {frozenset(range(7)): Verdict(passed=True, margin=0.5)}
    found = list(islice(Lookahead(_unsure(), _bisect, known.get).questions(), 3))
    assert {len(items) for _, items in found} == {3, 1, 5}


def test_a_set_within_one_that_fails_is_taken_to_fail() -> None:
    oracle = _unsure()
    oracle.ask(frozenset(range(11)))
    found = list(islice(Lookahead(oracle, _bisect).questions(), 2))
    assert [len(items) for _, items in found] == [7, 13]
    assert found[1][0] > 0.9


def test_an_end_that_is_certain_is_the_end() -> None:
    found = list(Lookahead(_unsure(), lambda oracle: oracle.ask(frozenset({1}))).questions())
    assert found == [(1.0, {1})]


@pytest.mark.parametrize("case", [*additive_cases(), *margin_cases()], ids=lambda c: c.name)
def test_the_next_question_is_always_foreseen_first_and_nothing_changes(case: Case) -> None:
    foreseen: list[Items] = []
    asked: list[Items] = []

    def judge(items: Items) -> Verdict:
        foreseen.append(next(lookahead.questions())[1])
        asked.append(items)
        return case.judge(items)

    def strategy(oracle: Oracle) -> Items:
        return ranked_search(oracle, case.fixed, case.ranking)

    oracle = Oracle(judge=judge, recall=_everything(case))
    assert oracle.passes(case.fixed.union(case.ranking))
    lookahead = Lookahead(oracle, strategy)
    found = strategy(oracle)
    alone = Oracle(judge=case.judge, recall=_everything(case))
    alone.passes(case.fixed.union(case.ranking))
    assert foreseen == asked
    assert found == strategy(alone)
    assert [q.items for q in oracle.ledger] == [q.items for q in alone.ledger]


def _everything(case: Case) -> object:
    full = case.fixed.union(case.ranking)
    return lambda items: case.judge(items) if items == full else None


def test_a_good_share_of_a_search_is_foreseen_in_time() -> None:
    """With 15 guesses after each question, at least three of four questions were guessed."""
    needed = frozenset({3, 8, 17, 30, 31})
    guessed: set[Items] = set()
    asked: list[Items] = []

    def judge(items: Items) -> Verdict:
        asked.append(items)
        lucky.append(items in guessed)
        guessed.update(i for _, i in islice(lookahead.questions(), 16))
        missing = len(needed - items)
        return Verdict(missing == 0, 50.0 * missing or 0.5)

    lucky: list[bool] = []
    oracle = Oracle(judge=judge)
    lookahead = Lookahead(oracle, lambda o: ranked_search(o, frozenset(), range(200), 5))
    assert ranked_search(oracle, frozenset(), range(200), 5) == needed
    assert sum(lucky) >= 0.75 * len(asked)
    assert needs(*needed)(needed)
