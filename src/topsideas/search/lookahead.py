"""Which questions a search may ask next: it is run ahead on answers that are assumed.

A strategy is a function of the answers it gets, so running it again on the answers known so far
leads to the question it asks now. Assumed answers to that one and to those that follow lead
further: a tree of questions, each with the probability that the search comes by. Its most likely
questions are found best first. That works for every strategy, and none of them has to know.

What that is worth with w workers, where each question takes the same time: of a bisection whose
answers nobody can guess, log2(w + 1) levels at once. Of a sweep in which each answer is guessed
right with probability q, (1 - q^w) / (1 - q) questions. Assumed margins are guesses: where the
next question depends on them, not only on who passed, it may be guessed wrong.
"""

from __future__ import annotations

import contextlib
import heapq
import statistics
from collections.abc import Callable, Iterator
from itertools import chain, count
from typing import NamedTuple

from topsideas.search.oracle import Items, Oracle
from topsideas.verdict import Verdict

Strategy = Callable[[Oracle], object]

# How often questions of a phase pass before any was asked: so many passed, so many failed.
_PRIORS = {"certify": (0.3, 6.0), "swap": (0.3, 6.0), "draw": (1.0, 4.0)}
_EVEN = (1.0, 1.0)
# A set is taken to pass if a part of it does, and to fail if it is part of one that fails.
_MONOTONE = 0.97
# So many questions are guessed in one run of a strategy.
_LONGEST = 32
# Less likely questions are not looked for.
_FLOOR = 1e-3
# Assumed margins, in shares of the bound, where none was seen.
_PASSING, _FAILING = 0.9, 2.0


class _Enough(BaseException):
    """Ends a run on assumed answers; no error, and nothing a strategy may catch."""


class Guess(NamedTuple):
    """A set that is not known, and how likely the search comes to ask about it."""

    likelihood: float
    items: Items


class Lookahead:
    """The questions of one strategy, from what the oracle knows now on.

    Args:
        oracle: Whom the strategy asks.
        strategy: It is called again and again on copies of the oracle.
        found: A verdict that is known though it was not asked for yet.
    """

    def __init__(
        self,
        oracle: Oracle,
        strategy: Strategy,
        found: Callable[[Items], Verdict | None] = lambda _: None,
    ) -> None:
        self._oracle, self._strategy, self._found = oracle, strategy, found
        self._start = oracle.copy(_unasked)

    def knows(self, items: Items) -> bool:
        """Whether a set needs no guess."""
        return (self._oracle.known(items) or self._found(items)) is not None

    def walks(self) -> Iterator[list[Guess]]:
        """Guesses, the likeliest first, as many together as one run of the strategy gives.

        The oracle must not be asked while this is iterated.
        """
        answers, branches = _Answers(self._oracle), _Branches()
        branches.push(1.0, {})
        seen: set[Items] = set()
        while branches:
            walk = self._walk(answers, branches, *branches.pop())
            yield [guess for guess in walk if guess.items not in seen]
            seen.update(guess.items for guess in walk)

    def questions(self) -> Iterator[Guess]:
        """The guesses of :meth:`walks`, one by one."""
        return chain.from_iterable(self.walks())

    def _walk(
        self,
        answers: _Answers,
        branches: _Branches,
        likelihood: float,
        assumed: dict[Items, Verdict],
    ) -> list[Guess]:
        """Follow the likeliest answers until another branch is likelier."""
        asked: list[Guess] = []

        def judge(items: Items) -> Verdict:
            nonlocal likelihood
            known = self._oracle.known(items) or assumed.get(items) or self._found(items)
            if known is not None:
                return known
            if asked and (likelihood < branches.best or len(asked) == _LONGEST):
                branches.push(likelihood, assumed)
                raise _Enough
            asked.append(Guess(likelihood, items))
            passes = answers.chance(copy.phase, items)
            likely = passes >= 0.5
            other = {**assumed, items: answers.verdict(copy.phase, passed=not likely)}
            branches.push(likelihood * min(passes, 1 - passes), other)
            assumed[items] = answers.verdict(copy.phase, passed=likely)
            likelihood *= max(passes, 1 - passes)
            if likelihood < _FLOOR:
                raise _Enough
            return assumed[items]

        copy = self._start.copy(judge)
        with contextlib.suppress(_Enough):
            self._strategy(copy)
        return asked


class _Branches:
    """Runs to continue, the likeliest first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, dict[Items, Verdict]]] = []
        self._number = count()

    def __bool__(self) -> bool:
        return bool(self._heap)

    @property
    def best(self) -> float:
        """The largest likelihood; 0 if there is none."""
        return -self._heap[0][0] if self._heap else 0.0

    def push(self, likelihood: float, assumed: dict[Items, Verdict]) -> None:
        """Add a run, unless it is too unlikely."""
        if likelihood >= _FLOOR:
            heapq.heappush(self._heap, (-likelihood, next(self._number), dict(assumed)))

    def pop(self) -> tuple[float, dict[Items, Verdict]]:
        """Take the likeliest."""
        likelihood, _, assumed = heapq.heappop(self._heap)
        return -likelihood, assumed


class _Answers:
    """Guesses answers by those to earlier questions."""

    def __init__(self, oracle: Oracle) -> None:
        self._bound = oracle.bound
        known = list(oracle.verdicts())
        self._passing = [items for items, v in known if v.passed]
        self._failing = [items for items, v in known if not v.passed]
        self._seen: dict[tuple[str, bool], list[Verdict]] = {}
        for question in oracle.ledger:
            key = question.phase, question.verdict.passed
            self._seen.setdefault(key, []).append(question.verdict)

    def chance(self, phase: str, items: Items) -> float:
        """The probability that a set passes."""
        if any(items <= failing for failing in self._failing):
            return 1 - _MONOTONE
        if any(passing <= items for passing in self._passing):
            return _MONOTONE
        passed, failed = _PRIORS.get(phase, _EVEN)
        passed += len(self._seen.get((phase, True), ()))
        failed += len(self._seen.get((phase, False), ()))
        return passed / (passed + failed)

    def verdict(self, phase: str, *, passed: bool) -> Verdict:
        """An answer, with a margin as they mostly were."""
        seen = self._seen.get((phase, passed), ())
        margins = [v.margin for v in seen if v.margin is not None]
        if margins:
            return Verdict(passed, statistics.median(margins))
        return Verdict(passed, (_PASSING if passed else _FAILING) * self._bound)


def _unasked(items: Items) -> Verdict:
    raise AssertionError("a snapshot is never asked")
