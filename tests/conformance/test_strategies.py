"""Every search strategy against the shipped suite, and the suite against wrong strategies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest

from topsideas.search.oracle import Items, Oracle
from topsideas.search.ranked import ranked_search, refined
from topsideas.testing.search_conformance import CHECKS, ConformanceError, Strategy, all_cases


def _predicting(error: Callable[[int], float]) -> Strategy:
    """The ranked search with predicted errors, which may be worth nothing."""

    def strategy(oracle: Oracle, fixed: Items, ranking: Sequence[int]) -> Items:
        errors = [error(length) for length in range(len(ranking) + 1)]
        return ranked_search(oracle, fixed, ranking, errors=errors)

    return strategy


STRATEGIES: dict[str, Strategy] = {
    "ranked": ranked_search,
    "predicting a fall": _predicting(lambda length: 1.1**-length),
    "predicting nothing": _predicting(lambda length: 1.0),
    "predicting infinity": _predicting(lambda length: math.inf),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_strategy(strategy: Strategy, check: Callable[[Strategy], None]) -> None:
    check(strategy)


def test_the_suite_has_cases_of_every_kind() -> None:
    cases = list(all_cases())
    assert len({case.name for case in cases}) == len(cases) > 40
    assert all(case.accepts(case.fixed | set(case.ranking)) for case in cases)


def _everything(oracle: Oracle, fixed: Items, ranking: Sequence[int]) -> Items:
    return fixed | set(ranking)


def _shortest_prefix(oracle: Oracle, fixed: Items, ranking: Sequence[int]) -> Items:
    """Passes, but nothing is dropped from inside."""
    for length in range(len(ranking) + 1):
        if oracle.passes(fixed | set(ranking[:length])):
            break
    return fixed | set(ranking[:length])


def _one_pass(oracle: Oracle, fixed: Items, ranking: Sequence[int]) -> Items:
    """Drops each item once: minimal only where more items never hurt."""
    kept = fixed | set(ranking)
    for item in reversed(ranking):
        if oracle.passes(kept - {item}):
            kept -= {item}
    return kept


def _forgets_fixed(oracle: Oracle, fixed: Items, ranking: Sequence[int]) -> Items:
    everything = [*fixed, *ranking]
    return refined(oracle, frozenset(), everything, frozenset(everything))


def _unverified(oracle: Oracle, fixed: Items, ranking: Sequence[int]) -> Items:
    """Trusts that what each item needs alone adds up."""
    everything = fixed | set(ranking)
    return fixed | {i for i in ranking if not oracle.passes(everything - {i})}


def _asks_again(oracle: Oracle, fixed: Items, ranking: Sequence[int]) -> Items:
    oracle.judge(fixed)
    oracle.judge(fixed)
    return ranked_search(oracle, fixed, ranking)


def _outspends(oracle: Oracle, fixed: Items, ranking: Sequence[int]) -> Items:
    """Ignores the budget by asking the judge behind the oracle's back."""
    free = Oracle(judge=oracle.judge)
    return ranked_search(free, fixed, ranking)


@pytest.mark.parametrize(
    "wrong",
    [
        _everything,
        _shortest_prefix,
        _one_pass,
        _forgets_fixed,
        _unverified,
        _asks_again,
        _outspends,
    ],
)
def test_the_suite_finds_wrong_strategies(wrong: Strategy) -> None:
    assert any(_refusal(check, wrong) for check in CHECKS)


def _refusal(check: Callable[[Strategy], None], strategy: Strategy) -> str:
    try:
        check(strategy)
    except ConformanceError as error:
        return str(error)
    return ""
