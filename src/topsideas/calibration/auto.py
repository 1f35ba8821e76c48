"""Auto mode: finds the smallest set of fp32 ops it can, and proves each of them needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeVar

from topsideas.calibration.controls import refuse_baseline
from topsideas.calibration.curve import Curve, margin_curve
from topsideas.calibration.dispatch import Dispatcher
from topsideas.calibration.executions import CONFIRMED, Executions
from topsideas.calibration.felt import Felt
from topsideas.calibration.journal import Journal
from topsideas.calibration.judge import Judge
from topsideas.calibration.noise import Noise
from topsideas.calibration.ordering import Ordering
from topsideas.calibration.pricing import PlanCost, plan_cost
from topsideas.calibration.progress import Progress
from topsideas.calibration.references import References
from topsideas.calibration.result import SearchResult
from topsideas.calibration.runs import Runs
from topsideas.calibration.same import SamePlans
from topsideas.calibration.settings import Settings
from topsideas.engines.base import Engine, SecondOpinion
from topsideas.plan import PrecisionPlan
from topsideas.precision import Precision
from topsideas.prices import Prices
from topsideas.search.cheapest import cheapen
from topsideas.search.lookahead import Strategy
from topsideas.search.objective import Objective
from topsideas.search.oracle import BudgetSpent, Items, Oracle
from topsideas.search.pareto import nested
from topsideas.search.ranked import ranked_search, refined
from topsideas.verdict import Verdict

_Result = TypeVar("_Result")

# The part of a limited time after which ops are ordered by what is known of them: a rough order
# and time to ask lead to a smaller answer than a good order and none.
_MEASURING = 0.4


@dataclass
class AutoSearch:
    """One search.

    Args:
        engine: Runs plans.
        candidates: Ids of the ops that may run low.
        precision: The low format.
        references: The samples to search with.
        held: Samples that only check the answer.
        settings: The rule and the budget.
        journal: Remembers verdicts and measurements between runs.
        progress: Shown to the user.
        prices: Tells what plans cost; by default each op costs the same.
        dispatcher: Workers that run plans; they run in this process if None.

    Attributes:
        must: What is in every plan.
        runs: Where plans run.
    """

    engine: Engine
    candidates: frozenset[int]
    precision: Precision
    references: References
    held: References | None
    settings: Settings
    journal: Journal
    progress: Progress
    prices: Callable[[], Prices] | None = None
    dispatcher: Dispatcher | None = None

    def __post_init__(self) -> None:
        self.must = self.settings.must_keep & self.candidates
        self.runs = Runs(self.engine, self.must, self.references, self.dispatcher)
        self.judge = Judge(self.runs.engine, self.references, self.settings)
        self.oracle = Oracle(
            judge=self._judge_and_record,
            recall=self._recall,
            budget=self.settings.budget,
            watch=self.progress.asked,
            hint=self.runs.hint(self.judge),
            objective=self.settings.objective,
            cost=lambda items: self._prices.cost(items),
            bound=self.settings.bound,
        )
        self._felt = Felt(
            engine=self.runs.engine,
            candidates=self.candidates,
            references=self.references,
            judge=self.judge,
            journal=self.journal,
            criterion=self.settings.criterion,
            threads=self.settings.threads,
            check=self._check_time,
        )
        self._ordering = Ordering(
            engine=self.engine,
            candidates=self.candidates,
            must=self.must,
            trace=lambda: self.runs.overflowing(self.candidates, self.precision.max),
            references=self.references,
            settings=self.settings,
            journal=self.journal,
            progress=self.progress,
            follow=self._follow,
            verdicts=self._verdicts,
            felt=self._felt,
            hurry=self._is_late,
        )
        self._ranking: list[int] | None = None
        self._refuted = 0
        self._same = SamePlans(self.engine, fused=self.settings.bound < 1)
        self._noise = Noise(self.engine, self.judge, self.journal)
        self._executions = Executions(
            self.runs.engine, self.judge, self.journal, self.settings, self.candidates
        )

    def run(self) -> SearchResult:
        """Search.

        Raises:
            BaselineError: Even with every op in fp32 the golden outputs are missed.
            EngineError: The engine fails on the fp32 model, or is not deterministic.
        """
        try:
            answer = self._confirmed_answer()
            self.journal.record_answer(answer)
            return self._result(answer, "", self._curve(answer) if self.settings.pareto else None)
        except BudgetSpent as spent:
            stopped = f"budget: {spent}"
        except KeyboardInterrupt:
            stopped = "interrupted"
        best = self.oracle.best
        # If nothing passed yet, keeping everything is the one plan that can be expected to.
        return self._result(self.candidates if best is None else best, stopped)

    def _answer(self) -> Items:
        self.oracle.phase = "all low"
        # If that fails, as it mostly does, all fp32 is asked about next.
        controls = partial(_ask_all, [self.must, self.candidates])
        with self.foreseeing(controls):
            passed = self.oracle.passes(self.must)
        if not passed:
            return self.search()
        if self._noise.is_possible:
            self._check_deterministic()
            if self._noise.note and not (verdict := self._again(self.must)).passed:
                self.oracle.refute(self.must, verdict)
                return self.search()
        return self.must

    def _follow(self, strategy: Callable[[Oracle], _Result]) -> _Result:
        with self.foreseeing(strategy):
            return strategy(self.oracle)

    def foreseeing(self, strategy: Strategy) -> AbstractContextManager[None]:
        """While inside, workers run ahead what the strategy may ask about from now on."""
        return self.runs.foreseeing(self.oracle, strategy, self.judge, self._peek)

    def _peek(self, kept: Items) -> Verdict | None:
        strict = self.judge.strict
        known = self.journal.verdict(kept, strict=strict)
        return known or self._same.verdict(kept, strict=strict)

    def search(self) -> Items:
        """The answer, where keeping nothing but what must be kept fails. Raises BudgetSpent."""
        self.check_controls()
        if self._ranking is None:
            self._ranking = self._ordering.order()
        return self._by_objective(self._ranked(self._ranking))

    def _ranked(self, ranking: list[int]) -> Items:
        """The answer by the ranking; where another tolerance has one, from there on."""
        nearby = self.journal.nearby() & self.candidates - self.must
        if not nearby:
            start, errors = self._ordering.start, self._ordering.errors
            return self._follow(lambda o: ranked_search(o, self.must, ranking, start, errors))
        order = sorted(ranking, key=lambda op: op not in nearby)
        return self._follow(lambda o: ranked_search(o, self.must, order, len(nearby)))

    def _by_objective(self, kept: Items) -> Items:
        if not self._is_cost():
            return kept
        ranking = self._ranking or []
        return self._follow(lambda o: cheapen(o, self.must, kept, ranking, self._prices))

    def _is_cost(self) -> bool:
        return self.settings.objective is Objective.COST

    @cached_property
    def _prices(self) -> Prices:
        return self.prices() if self.prices else Prices.uniform(self.candidates)

    def _curve(self, answer: Items) -> Curve:
        """How the margin falls with size and cost, around the answer."""
        self.progress.phase("judging plans around the answer")
        wanted = nested(answer, self.must, self._order_of_curve())
        return margin_curve(self.oracle, self.full_verdict, self._prices.cost, [self.must], wanted)

    def _order_of_curve(self) -> list[int]:
        """The order in which plans around the answer keep ops."""
        return self._ranking or sorted(self.candidates)

    def check_controls(self) -> None:
        """All fp32 must pass, and the same question must get the same answer.

        Raises:
            BaselineError: Even with every op in fp32 the golden outputs are missed.
            EngineError: The engine fails on the fp32 model, or is not deterministic.
        """
        self._check_baseline()
        self._check_deterministic()

    def _check_baseline(self) -> None:
        """All-kept must pass; otherwise golden outputs and model disagree."""
        self.oracle.phase = "all fp32"
        verdict = self.oracle.ask(self.candidates)
        if not verdict.passed:
            refuse_baseline(verdict, self.settings, self.engine, self.candidates)

    def _check_deterministic(self) -> None:
        if self._noise.look(lambda: self.runs.differing_output(self.judge)):
            self._check_noisy_baseline()

    def _check_noisy_baseline(self) -> None:
        """All-kept must pass every time."""
        verdict = self._again(self.candidates)
        if not verdict.passed:
            refuse_baseline(verdict, self.settings, self.engine, self.candidates)

    def _again(self, kept: Items) -> Verdict:
        """The verdict by a stricter rule than the one that the oracle knows."""
        return self._recall(kept) or self._judge_and_record(kept)

    def _check_time(self) -> None:
        limit = self.settings.budget.seconds
        if limit is not None and self.oracle.seconds > limit:
            raise BudgetSpent(f"{limit:g} s used")

    def _is_late(self) -> bool:
        """Whether what may be spent on measuring is spent."""
        limit = self.settings.budget.seconds
        return limit is not None and self.oracle.seconds > _MEASURING * limit

    def _confirmed_answer(self) -> Items:
        """The answer, checked in a second, un-instrumented execution.

        An answer that fails there sits on the edge of the tolerance, and its neighbours most
        likely do too. Then both executions must agree to every plan that passes, and the search
        goes on from the smallest plan on its way that stands up to that.
        """
        kept = self._answer()
        if self.judge.strict:  # whatever passed did so in both
            return kept
        verdict = self._second_verdict(kept)
        if verdict.passed:
            return kept
        self._refuted = 1
        self.judge.strict = True
        if not isinstance(self.engine.compile(PrecisionPlan(kept)), SecondOpinion):
            self._noise.contradicted()
            self._check_noisy_baseline()
        doubted = self.oracle.refute(kept, verdict)
        if self._ranking is None:  # it was the plan that keeps nothing
            return self._answer()
        self.oracle.phase = "repair"
        # Those next to a refuted plan are likely refuted too, so the steps grow.
        for step in range(len(doubted).bit_length()):
            items = doubted[(1 << step) - 1]
            if self.oracle.passes(items):
                return self._by_objective(self._refined(items, self._ranking))
        return self._answer()

    def _refined(self, start: Items, ranking: list[int]) -> Items:
        return self._follow(lambda o: refined(o, self.must, ranking, start))

    def _second_verdict(self, kept: Items) -> Verdict:
        executable = self.runs.engine.compile(PrecisionPlan(kept))
        if not isinstance(executable, SecondOpinion):
            self.runs.forget(kept)  # it is to be run again, not to be remembered
            return self.judge.judge(kept)
        known = self.journal.recall(CONFIRMED, sorted(kept))
        if known is not None:
            return self._resumed(Verdict.from_json(known))[0]
        self.progress.phase("verifying the answer")
        verdict = self.judge.judge_executable(executable.second_opinion())
        self.journal.record(CONFIRMED, sorted(kept), verdict.to_json())
        return verdict

    def _recall(self, kept: Items) -> Verdict | None:
        self._executions.resume(kept)
        known = self._peek(kept)
        if known is not None:
            self._same.note(kept, known)
            self._resumed(known)
        return known

    def _resumed(self, *verdicts: Verdict) -> list[Verdict]:
        """Verdicts of an earlier run, after which this one goes on as that did."""
        self.judge.resume(*verdicts)
        return list(verdicts)

    def _judge_and_record(self, kept: Items) -> Verdict:
        verdict = self.judged(kept)
        if verdict.passed and kept not in (self.must, self.candidates):
            verdict = self._executions.compared(kept, verdict)
        self.journal.record_verdict(kept, verdict, strict=self.judge.strict)
        self._same.note(kept, verdict)
        return verdict

    def judged(self, kept: Items) -> Verdict:
        """The engine's verdict on a plan that no run has judged before."""
        if kept == self.candidates:
            return self.judge.judge_control(kept)
        if kept != self.must:
            return self.judge.judge(kept)
        # All samples, since those that fail are what the ranking looks at.
        verdict = self.full_verdict(kept)
        return self.judge.other_verdict(kept) or verdict if verdict.passed else verdict

    def full_verdict(self, kept: Items) -> Verdict:
        """The verdict on all samples, with the worst margin among them."""
        return self._verdicts(kept)[0]

    def _verdicts(self, kept: Items) -> list[Verdict]:
        """The verdicts on every sample, the worst first."""
        key = sorted(kept) if self.judge.repeats == 1 else [sorted(kept), self.judge.repeats]
        known = self.journal.recall("full", key)
        if known is not None:
            return self._resumed(*(Verdict.from_json(v) for v in known))
        runner = self.judge.once(kept) if kept == self.must else None
        verdicts = self.judge.verdicts(kept, runner)
        self.journal.record("full", key, [v.to_json() for v in verdicts])
        return verdicts

    def _result(self, final: Items, stopped: str, curve: Curve | None = None) -> SearchResult:
        seconds = self.oracle.seconds
        after = self.full_verdict(final)
        movable = final - self.must
        recalled = {op: self.oracle.known(final - {op}) for op in sorted(movable)}
        witnesses = {op: v for op, v in recalled.items() if v is not None and not v.passed}

        def price() -> PlanCost:
            return plan_cost(self._prices, final, self.candidates)

        proved = witnesses.keys() | (price().saving if self._is_cost() else frozenset())
        return SearchResult(
            plan=PrecisionPlan(final | self.settings.must_keep),
            before=self.full_verdict(self.must),
            after=after,
            one_minimal=not stopped and proved >= movable and after.passed,
            price=price,
            curve=curve,
            stopped=stopped,
            witnesses=witnesses,
            overflowing=self._ordering.overflowing,
            felt=self._felt.margins,
            ledger=tuple(self.oracle.ledger),
            evaluations=self.oracle.evaluations - (curve.evaluations if curve else 0),
            seconds=seconds,
            holdout=self._held_out(final),
            refuted=self._refuted,
            confirmed=not stopped or self.judge.strict,
            noise=self._noise.note,
            crew=self.runs.crew,
        )

    def _held_out(self, kept: Items) -> Verdict | None:
        if self.held is None:
            return None
        judge = Judge(self.runs.engine, self.held, self.settings)
        judge.repeats = self.judge.repeats
        return judge.full_margin(kept)


def _ask_all(plans: Sequence[Items], oracle: Oracle) -> None:
    for kept in plans:
        oracle.ask(kept)
