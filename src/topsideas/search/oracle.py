"""Questions and their answers: a memo, a budget, a ledger, and the best answer so far."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from topsideas.verdict import Verdict

Items = frozenset[int]


class BudgetSpent(Exception):  # noqa: N818 - it ends a search, it is no error
    """The budget does not allow another evaluation. Not an error: the best answer is returned."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a search may use.

    Attributes:
        evaluations: Most evaluations; None for no bound.
        seconds: Most wall time; None for no bound.
    """

    evaluations: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One line of the ledger.

    Attributes:
        phase: What the search was doing.
        items: The set asked about.
        verdict: The answer.
        seconds: When it was known, since the search began.
        recalled: It was answered from an earlier run's journal.
    """

    phase: str
    items: Items
    verdict: Verdict
    seconds: float
    recalled: bool


@dataclass
class Oracle:
    """Answers whether a set passes, asking the judge at most once per set.

    Args:
        judge: Judges a set; the expensive part.
        recall: Looks a set up in an earlier run's journal.
        budget: What the search may use; recalled answers cost nothing.
        watch: Called after each new question.
        clock: Seconds; for tests.

    Attributes:
        phase: What the search is doing now.
        ledger: Every question, in order.
        evaluations: How many sets were judged in this run.
        expected: The strategy's guess of how many questions are still to come.
    """

    judge: Callable[[Items], Verdict]
    recall: Callable[[Items], Verdict | None] = lambda _: None
    budget: Budget = field(default_factory=Budget)
    watch: Callable[[Oracle], None] = lambda _: None
    clock: Callable[[], float] = time.monotonic
    phase: str = ""
    ledger: list[Question] = field(default_factory=list)
    evaluations: int = 0
    expected: int = 0

    def __post_init__(self) -> None:
        self._memo: dict[Items, Verdict] = {}
        self._start = self.clock()

    @property
    def seconds(self) -> float:
        """Wall time since the search began."""
        return self.clock() - self._start

    @property
    def best(self) -> Items | None:
        """The smallest set known to pass; of equals the one with the smallest ids."""
        passing = [s for s, v in self._memo.items() if v.passed]
        return min(passing, key=lambda s: (len(s), sorted(s)), default=None)

    def ask(self, items: Items) -> Verdict:
        """Judge a set. Raises BudgetSpent if that would exceed the budget."""
        known = self._memo.get(items)
        if known is not None:
            return known
        verdict = self.recall(items)
        recalled = verdict is not None
        if verdict is None:
            self._spend()
            verdict = self.judge(items)
            self.evaluations += 1
        self._memo[items] = verdict
        self.ledger.append(Question(self.phase, items, verdict, self.seconds, recalled))
        self.watch(self)
        return verdict

    def known(self, items: Items) -> Verdict | None:
        """The verdict on a set if it was asked about before."""
        return self._memo.get(items)

    def passes(self, items: Items) -> bool:
        """Whether a set passes. Raises BudgetSpent."""
        return self.ask(items).passed

    def refute(self, items: Items, verdict: Verdict) -> None:
        """Overrule an answer that did not stand up to verification, and doubt all that passed."""
        self._memo = {known: v for known, v in self._memo.items() if not v.passed}
        self._memo[items] = verdict
        self.ledger.append(Question("refuted", items, verdict, self.seconds, recalled=False))

    def _spend(self) -> None:
        limit = self.budget
        if limit.evaluations is not None and self.evaluations >= limit.evaluations:
            raise BudgetSpent(f"{limit.evaluations} evaluations used")
        if limit.seconds is not None and self.seconds >= limit.seconds:
            raise BudgetSpent(f"{limit.seconds:g} s used")
