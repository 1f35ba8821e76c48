"""What every search strategy must do, whatever it is asked about: plain functions, no framework.

Run all of them with ``for check in CHECKS: check(strategy)``; a check that fails raises
ConformanceError and says what was expected.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from topsideas.search.oracle import Budget, BudgetSpent, Items, Oracle
from topsideas.testing.noisy_additive import NoisyAdditive
from topsideas.verdict import Verdict

Accepts = Callable[[Items], bool]


class ConformanceError(AssertionError):
    """Something does not behave as the tool relies on."""


class Strategy(Protocol):
    """A search: see :func:`topsideas.search.ranked.ranked_search`."""

    def __call__(self, oracle: Oracle, fixed: Items, ranking: Sequence[int], /) -> Items:
        """A set that passes and from which nothing can be dropped, ``fixed`` included."""
        ...


@dataclass(frozen=True, slots=True)
class Case:
    """A question with a known rule.

    Attributes:
        name: A name for messages.
        ranking: The items in the order in which they are handed over.
        accepts: The rule; accepts the whole ranking with ``fixed``.
        fixed: Items that must stay.
        answer: The one right answer without ``fixed``; None where there are several.
        margin: What a verdict tells besides; None for a judge that only says yes or no.
    """

    name: str
    ranking: tuple[int, ...]
    accepts: Accepts
    fixed: Items = frozenset()
    answer: Items | None = None
    margin: Callable[[Items], float] | None = None

    def judge(self, items: Items) -> Verdict:
        """The right verdict on a set."""
        return Verdict(self.accepts(items), None if self.margin is None else self.margin(items))


def require(condition: bool, message: str) -> None:
    """Raise ConformanceError unless ``condition`` holds."""
    if not condition:
        raise ConformanceError(message)


def oracle_of(accepts: Accepts, budget: Budget | None = None) -> Oracle:
    """An oracle that answers by a rule."""
    return Oracle(
        judge=lambda items: Verdict(passed=accepts(items), margin=None),
        budget=budget or Budget(),
    )


def needs(*needed: int) -> Accepts:
    """The rule that all of ``needed`` are kept."""
    return frozenset(needed).issubset


def adds_up(errors: Sequence[float], allowed: float) -> Accepts:
    """The rule that the errors of the items left out add up to no more than ``allowed``."""
    return lambda items: sum(e for i, e in enumerate(errors) if i not in items) <= allowed


def noisy(count: int, needed: Sequence[int], right: float, seed: int) -> list[int]:
    """A ranking with a share of the needed items first, the rest of them in the first quarter."""
    rng = random.Random(seed)
    others = [i for i in range(count) if i not in set(needed)]
    rng.shuffle(others)
    first = round(right * len(needed))
    ranking = [*needed[:first], *others]
    for item in needed[first:]:
        ranking.insert(rng.randrange(first, max(first + 1, count // 4)), item)
    return ranking


def needed_items(count: int, k: int, seed: int) -> list[int]:
    """``k`` of ``count`` items, in random order."""
    return random.Random(seed).sample(range(count), k)


def independent_cases() -> Iterator[Case]:
    """``k`` of ``count`` items are needed; the ranking is right, mostly right, or upside down."""
    for count in (50, 200, 500):
        for k in (1, 2, 5):
            needed = needed_items(count, k, seed=count + k)
            exact = noisy(count, needed, 1.0, seed=k)
            rankings = {
                "exact": exact,
                "80 %": noisy(count, needed, 0.8, seed=k),
                "reversed": exact[::-1],
            }
            for name, ranking in rankings.items():
                yield Case(
                    f"{k} of {count}, {name} ranking",
                    tuple(ranking),
                    needs(*needed),
                    answer=frozenset(needed),
                )


def edge_cases() -> Iterator[Case]:
    """Nothing is needed, everything is, one item, none at all, and items that must stay."""
    items = tuple(range(20))
    yield Case("nothing is needed", items, lambda _: True, answer=frozenset())
    yield Case("all are needed", items, needs(*items), answer=frozenset(items))
    yield Case("one item, needed", (7,), needs(7), answer=frozenset({7}))
    yield Case("one item, not needed", (7,), lambda _: True, answer=frozenset())
    yield Case("no items", (), lambda _: True, answer=frozenset())
    fixed = frozenset({100, 101})
    yield Case("fixed and needed", items, needs(100, 3), fixed, frozenset({3}))
    yield Case("fixed, not needed", items, needs(3, 17), fixed, frozenset({3, 17}))
    yield Case("fixed suffices", items, needs(101), fixed, frozenset())


def tangled_cases() -> Iterator[Case]:
    """Rules where items depend on each other, and where keeping more can be worse."""
    items = tuple(range(60))
    yield Case("a pair far apart in the ranking", items, needs(2, 55), answer=frozenset({2, 55}))
    yield Case("one of two pairs", items, lambda s: {1, 40} <= s or {20, 21} <= s)
    yield Case(
        "3 spoils unless 30 is kept too",
        items,
        lambda s: 10 in s and (3 not in s or 30 in s),
    )
    yield Case("an even number of the first ten", items, lambda s: sum(i < 10 for i in s) % 2 == 0)
    for seed in range(5):
        yield Case(f"a rule without reason, {seed}", items, _without_reason(len(items), seed))


def _without_reason(count: int, seed: int) -> Accepts:
    def accepts(items: Items) -> bool:
        digest = random.Random(f"{seed} {sorted(items)}").random()
        return len(items) == count or digest < 0.3

    return accepts


def additive_cases() -> Iterator[Case]:
    """Many small errors that add up; the ranking knows the errors exactly or roughly."""
    for seed in range(4):
        rng = random.Random(seed)
        errors = [rng.lognormvariate(0, 2) for _ in range(120)]
        largest_last = sorted(errors)
        allowed = sum(largest_last[:-6]) * 1.0001
        guessed = [e * rng.lognormvariate(0, 0.7) for e in errors]
        for name, key in (("exact", errors), ("rough", guessed)):
            ranking = sorted(range(len(errors)), key=lambda i, key=key: -key[i])  # type: ignore[misc]
            yield Case(f"sum of errors {seed}, {name}", tuple(ranking), adds_up(errors, allowed))


def margin_cases() -> Iterator[Case]:
    """Verdicts that tell by how much: far from the limit, near it, by chance, and misleading."""
    for count, k in ((30, 3), (60, 12), (200, 5)):
        needed = needed_items(count, k, seed=k)
        ranking = tuple(noisy(count, needed, 0.8, seed=k))
        missed = _missed(frozenset(needed))
        yield Case(
            f"{k} of {count}, each missed by far",
            ranking,
            needs(*needed),
            answer=frozenset(needed),
            margin=missed,
        )
    for seed in range(3):
        rule = NoisyAdditive.planted(50, 8, seed=seed)
        fixed = frozenset({60, 61})
        margin = partial(_margin_without, rule, fixed)
        yield _by_margin(f"noisy sum of errors {seed}", tuple(rule.ranking()), margin, fixed)
        chance = partial(_by_chance, 40, seed)
        yield _by_margin(f"margins without reason {seed}", tuple(range(40)), chance)


def _missed(needed: Items) -> Callable[[Items], float]:
    return lambda items: 100.0 * len(needed - items) or 0.5


def _margin_without(rule: NoisyAdditive, fixed: Items, items: Items) -> float:
    return rule.margin(items - fixed)


def _by_chance(count: int, seed: int, items: Items) -> float:
    drawn = random.Random(f"{seed} {sorted(items)}").choice([0.0, 0.7, 1.0, 1.3, 30.0, math.inf])
    return 0.0 if len(items) == count else drawn


def _by_margin(
    name: str,
    ranking: tuple[int, ...],
    margin: Callable[[Items], float],
    fixed: Items = frozenset(),
) -> Case:
    return Case(name, ranking, lambda items: margin(items) <= 1, fixed, margin=margin)


def all_cases() -> Iterator[Case]:
    """Every case."""
    yield from independent_cases()
    yield from edge_cases()
    yield from tangled_cases()
    yield from additive_cases()
    yield from margin_cases()


def answers_are_valid_and_minimal(strategy: Strategy) -> None:
    """The answer passes, was asked about, and no single item can be dropped from it."""
    for case in all_cases():
        oracle, found = _solve(strategy, case)
        _check_answer(case, oracle, found)
        if case.answer is not None:
            expected = case.answer | case.fixed
            require(found == expected, f"{case.name}: found {_show(found)}, not {_show(expected)}")


def _check_answer(case: Case, oracle: Oracle, found: Items) -> None:
    everything = case.fixed | set(case.ranking)
    require(case.fixed <= found, f"{case.name}: lost fixed items")
    require(found <= everything, f"{case.name}: made items up")
    require(case.accepts(found), f"{case.name}: {_show(found)} does not pass")
    require(found in {q.items for q in oracle.ledger}, f"{case.name}: the answer was not asked")
    for item in sorted(found - case.fixed):
        less = found - {item}
        require(not case.accepts(less), f"{case.name}: {item} can be dropped from {_show(found)}")
        known = oracle.known(less)
        require(known is not None and not known.passed, f"{case.name}: no witness for {item}")


def asks_only_what_it_may(strategy: Strategy) -> None:
    """Every question holds the fixed items and nothing unknown, and none is judged twice."""
    for case in all_cases():
        judged: list[Items] = []
        everything = case.fixed | set(case.ranking)

        def judge(items: Items, case: Case = case, judged: list[Items] = judged) -> Verdict:
            judged.append(items)
            return case.judge(items)

        strategy(_primed(Oracle(judge=judge), case), case.fixed, case.ranking)
        require(len(set(judged)) == len(judged), f"{case.name}: a set was judged twice")
        require(
            all(case.fixed <= items <= everything for items in judged),
            f"{case.name}: asked about other sets than choices of the ranking",
        )


def answers_are_repeatable(strategy: Strategy) -> None:
    """The same question gets the same answer by the same way."""
    for case in all_cases():
        first, second = (_solve(strategy, case) for _ in range(2))
        require(first[1] == second[1], f"{case.name}: two answers to one question")
        ways = [[q.items for q in oracle.ledger] for oracle, _ in (first, second)]
        require(ways[0] == ways[1], f"{case.name}: two ways to one answer")


def recalled_answers_are_free(strategy: Strategy) -> None:
    """A journal with all answers is enough: nothing is judged again."""
    for case in (*edge_cases(), *tangled_cases(), *margin_cases()):
        oracle, found = _solve(strategy, case)
        journal = {q.items: q.verdict for q in oracle.ledger}
        replay = Oracle(judge=_refuse, recall=journal.get)
        again = strategy(_primed(replay, case), case.fixed, case.ranking)
        require(again == found and replay.evaluations == 0, f"{case.name}: replay differs")


def budgets_are_kept(strategy: Strategy) -> None:
    """Out of evaluations at any point: BudgetSpent, with the best set so far valid."""
    for case in (*edge_cases(), *tangled_cases(), *additive_cases(), *margin_cases()):
        needed = _solve(strategy, case)[0].evaluations
        step = 1 if case.margin else max(1, needed // 12)
        for limit in range(1, needed + 1, step):
            _check_budget(strategy, case, Budget(evaluations=limit), limit, needed)


def _check_budget(strategy: Strategy, case: Case, budget: Budget, limit: int, needed: int) -> None:
    oracle = _primed(Oracle(judge=case.judge, budget=budget), case)
    try:
        strategy(oracle, case.fixed, case.ranking)
        finished = True
    except BudgetSpent:
        finished = False
    what = f"{case.name}, {limit} of {needed} evaluations"
    require(finished == (limit >= needed), f"{what}: finished is {finished}")
    require(oracle.evaluations <= limit, f"{what}: used {oracle.evaluations}")
    best = oracle.best
    require(best is not None and case.accepts(best), f"{what}: the best set is not valid")
    smallest = min(len(q.items) for q in oracle.ledger if q.verdict.passed)
    require(best is not None and len(best) == smallest, f"{what}: a smaller set was known")


def time_limits_are_kept(strategy: Strategy) -> None:
    """Out of time: BudgetSpent before another question is judged."""
    case = next(iter(additive_cases()))
    now = [0.0]

    def judge(items: Items) -> Verdict:
        now[0] += 1.0
        return Verdict(passed=case.accepts(items), margin=None)

    for limit in (2.0, 5.0, 9.0):
        now[0] = 0.0
        oracle = Oracle(judge=judge, budget=Budget(seconds=limit), clock=lambda: now[0])
        try:
            strategy(_primed(oracle, case), case.fixed, case.ranking)
        except BudgetSpent:
            require(oracle.seconds <= limit, f"used {oracle.seconds} s of {limit}")
            require(oracle.best is not None, "no best set")
        else:
            raise ConformanceError(f"{limit} s were enough for an endless question")


def flaky_answers_are_never_made_up(strategy: Strategy) -> None:
    """A judge that errs at random: the answer is still a set that was judged and passed."""
    for seed in range(10):
        for near in (False, True):
            rng = random.Random(seed)
            judge = partial(_near, rng) if near else partial(_errs, rng, needs(3, 17, 41))
            _check_flaky(strategy, f"flaky {seed}{', with margins' * near}", judge)


def _errs(rng: random.Random, right: Accepts, items: Items) -> Verdict:
    return Verdict(passed=right(items) != (rng.random() < 0.1), margin=None)


def _near(rng: random.Random, items: Items) -> Verdict:
    """Near the limit: each time another margin, and now and then none."""
    margin = rng.lognormvariate(0.5 - len(items) / 40, 0.3)
    return Verdict(passed=margin <= 1, margin=rng.choice([margin, margin, margin, None]))


def _check_flaky(strategy: Strategy, name: str, judge: Callable[[Items], Verdict]) -> None:
    everything = frozenset(range(50))
    oracle = Oracle(judge=judge, recall=_passing(everything))
    require(oracle.passes(everything), f"{name}: the case itself is wrong")
    found = strategy(oracle, frozenset(), range(50))
    verdict = oracle.known(found)
    require(verdict is not None and verdict.passed, f"{name}: unverified answer")
    for item in found:
        known = oracle.known(found - {item})
        require(known is not None and not known.passed, f"{name}: no witness for {item}")


def _passing(always: Items) -> Callable[[Items], Verdict | None]:
    return lambda items: Verdict(passed=True, margin=None) if items == always else None


def _solve(strategy: Strategy, case: Case) -> tuple[Oracle, Items]:
    oracle = _primed(Oracle(judge=case.judge), case)
    return oracle, strategy(oracle, case.fixed, case.ranking)


def _primed(oracle: Oracle, case: Case) -> Oracle:
    """The caller has asked about everything before a strategy runs."""
    everything = case.fixed | set(case.ranking)
    require(oracle.passes(everything), f"{case.name}: the case itself is wrong")
    return oracle


def _refuse(items: Items) -> Verdict:
    raise ConformanceError(f"judged {_show(items)} although the journal knew it")


def _show(items: Items) -> str:
    shown = sorted(items)
    return f"{shown[:12]}{' and more' if len(shown) > 12 else ''}"


CHECKS: tuple[Callable[[Strategy], None], ...] = (
    answers_are_valid_and_minimal,
    asks_only_what_it_may,
    answers_are_repeatable,
    recalled_answers_are_free,
    budgets_are_kept,
    time_limits_are_kept,
    flaky_answers_are_never_made_up,
)
