"""Questions and their answers: a memo, a budget, a ledger, and the best answer so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from topsideas.search.objective import Cost, Objective
from topsideas.verdict import Verdict

Items = frozenset[int]


# Questions that a search asks at most per item of its answer, and some more.
_PER_ITEM, _MORE = 3, 25


def questions_for(size: int) -> int:
    """How many questions an answer of ``size`` items may take; optional ones end there."""
    return _PER_ITEM * size + _MORE


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
        recalled: It was answered from an earlier run's journal, or by a plan that computes the
            same.
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
        recall: Looks a set up in an earlier run's journal, or among those that come to the same.
        budget: What the search may use; recalled answers cost nothing.
        watch: Called after each new question.
        hint: Told of the set that will be asked about next if the present one fails.
        clock: Seconds; for tests.
        objective: What makes one set that passes better than another.
        cost: What a set costs; asked as rarely as the objective allows.
        bound: The largest margin that passes.

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
    hint: Callable[[Items], None] = lambda _: None
    clock: Callable[[], float] = time.monotonic
    objective: Objective = Objective.OPS
    cost: Cost = lambda items: float(len(items))
    bound: float = 1.0
    phase: str = ""
    ledger: list[Question] = field(default_factory=list)
    evaluations: int = 0
    expected: int = 0

    def __post_init__(self) -> None:
        self._memo: dict[Items, Verdict] = {}
        self._costs: dict[Items, float] = {}
        self._start = self.clock()

    @property
    def seconds(self) -> float:
        """Wall time since the search began."""
        return self.clock() - self._start

    @property
    def best(self) -> Items | None:
        """The best set known to pass, by the objective."""
        return self.objective.best(self.passing, self._cost_of)

    @property
    def passing(self) -> dict[Items, Verdict]:
        """The sets known to pass, with their verdicts."""
        return {items: verdict for items, verdict in self._memo.items() if verdict.passed}

    def verdicts(self) -> Iterable[tuple[Items, Verdict]]:
        """All sets that were asked about, with their verdicts."""
        return self._memo.items()

    def copy(self, judge: Callable[[Items], Verdict]) -> Oracle:
        """An oracle that knows what this one knows, and asks ``judge``, without a budget."""
        other = Oracle(
            judge,
            objective=self.objective,
            cost=self.cost,
            bound=self.bound,
            phase=self.phase,
            ledger=list(self.ledger),
        )
        other._memo, other._costs = dict(self._memo), self._costs
        return other

    def ask(self, items: Items, then: Items | None = None) -> Verdict:
        """Judge a set. Raises BudgetSpent if that would exceed the budget.

        Args:
            items: The set.
            then: The set that will be asked about if this one fails, if that is known: there may
                be a processor to spare for it.
        """
        known = self._memo.get(items)
        if known is not None:
            return known
        verdict = self.recall(items)
        recalled = verdict is not None
        if verdict is None:
            self._spend()
            if then is not None and then not in self._memo:
                self.hint(then)
            verdict = self.judge(items)
            self.evaluations += 1
        self._memo[items] = verdict
        self.ledger.append(Question(self.phase, items, verdict, self.seconds, recalled))
        self.watch(self)
        return verdict

    def known(self, items: Items) -> Verdict | None:
        """The verdict on a set if it was asked about before."""
        return self._memo.get(items)

    def passes(self, items: Items, then: Items | None = None) -> bool:
        """Whether a set passes; see :meth:`ask`. Raises BudgetSpent."""
        return self.ask(items, then).passed

    def refute(self, items: Items, verdict: Verdict) -> list[Items]:
        """Overrule an answer that did not stand up to verification, and doubt all that passed.

        Returns:
            The other sets that are doubted, the smallest first; they may be asked about again.
        """
        doubted = sorted(self.passing.keys() - {items}, key=lambda s: (len(s), sorted(s)))
        self._memo = {known: v for known, v in self._memo.items() if not v.passed}
        self._memo[items] = verdict
        self.ledger.append(Question("refuted", items, verdict, self.seconds, recalled=False))
        return doubted

    def _cost_of(self, items: Items) -> float:
        if items not in self._costs:
            self._costs[items] = self.cost(items)
        return self._costs[items]

    def _spend(self) -> None:
        limit = self.budget
        if limit.evaluations is not None and self.evaluations >= limit.evaluations:
            raise BudgetSpent(f"{limit.evaluations} evaluations used")
        if limit.seconds is not None and self.seconds >= limit.seconds:
            raise BudgetSpent(f"{limit.seconds:g} s used")
