"""Propose on the emulator, verify on an engine where a build is dear.

The emulator is searched, its answer is built once, and all samples judge it. Where the engine
disagrees, its trace tells which ops behave differently, and these are kept; otherwise the engine's
margin over the emulator's tells how much room the emulator must leave. A few builds are all that
is spent: what is left of them proves or shrinks the answer on the engine itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from topsideas.calibration.adapting import Adapting
from topsideas.calibration.auto import AutoSearch
from topsideas.calibration.habits import Habit
from topsideas.calibration.journal import Journal
from topsideas.calibration.learning import Learning
from topsideas.calibration.proposal import Proposal, Round
from topsideas.calibration.result import SearchResult
from topsideas.calibration.room import first_room, wider_room
from topsideas.calibration.settings import Settings
from topsideas.engines.base import Engine
from topsideas.errors import BaselineError
from topsideas.graph.loading import Model
from topsideas.search.oracle import Budget, BudgetSpent, Items
from topsideas.stats.criteria import Tolerance
from topsideas.verdict import Verdict

# Plans that are minimal on the emulator owe part of their margin to its own roundings, which an
# engine does not repeat: so much room is left where the two are unlike.
_SELECTED = 0.1
# An answer that uses less of the bound than this may have a smaller one beside it.
_SLACK = 0.93
# What room is aimed at when an answer is made smaller.
_AIM = 0.97
# Samples, the worst first, on which it is looked at what the engine's kernels add.
_LOOKED_AT = 3
# Where margins tell nothing, a plan grows by this part of it, and by twice that the next time.
_GROW = 4


@dataclass
class ProposedSearch(AutoSearch):
    """A search on one engine with the plans of another.

    Args:
        model: The model.
        proposers: Opens the engine that is searched, the emulator, with a habit.
        proposer_journal: Remembers what it said.
        same_numbers: Whether op ids are those of the model's nodes on both engines.
    """

    model: Model = field(kw_only=True)
    proposers: Callable[[Habit], Engine] = field(kw_only=True)
    proposer_journal: Journal = field(kw_only=True)
    same_numbers: bool = field(kw_only=True, default=True)

    def __post_init__(self) -> None:
        self._asked = self.settings
        # Evaluations are the emulator's; the engine's builds have a bound of their own.
        self.settings = replace(self._asked, budget=Budget(None, self._asked.budget.seconds))
        super().__post_init__()
        self._rounds: list[Round] = []
        self._habits = Adapting(
            self.model,
            self.engine,
            self.references,
            self.proposers,
            same_numbers=self.same_numbers,
        )
        self._learned = Learning(
            self.model,
            self.engine,
            self.references,
            self.settings,
            self._habits,
            self.same_numbers,
        )
        self._evaluations = 0
        self._examined: set[Items] = set()
        self._last: SearchResult | None = None

    def run(self) -> SearchResult:
        """Search; see :meth:`AutoSearch.run`."""
        found = super().run()
        last = self._last
        proposal = Proposal(
            proposer=self._learned.emulator.identity(),
            habit=self._habits.current,
            unlike=self._habits.unlike,
            all_low=self._learned.emulated(self.must),
            rounds=tuple(self._rounds),
            marked=dict(self._learned.marked),
            evaluations=self._evaluations,
            minimal=last is not None and last.one_minimal and last.plan.kept == found.plan.kept,
        )
        return replace(
            found,
            proposal=proposal,
            evaluations=found.evaluations + self._evaluations,
            overflowing=last.overflowing if last is not None else frozenset(),
            felt=last.felt if last is not None else {},
        )

    def search(self) -> Items:
        """See :meth:`AutoSearch.search`."""
        self.check_controls()
        self._learn(self.must)
        best = self._first_passing()
        return self._proved(best) if self._affordable(best) else self._smaller(best)

    @property
    def _left(self) -> int:
        return self._asked.max_builds - len(self._rounds)

    # --- until a plan passes -------------------------------------------------------------------

    def _first_passing(self) -> Items:
        """The first plan that passes on the engine. Raises BudgetSpent."""
        apart = self._learned.needed(self.must, self.oracle.ask(self.must))
        room = first_room(apart, self._selected())
        why, failures = "emulated", 0
        while True:
            bound = self.settings.bound / room
            found = self._build(why, bound, self._searched(bound))
            if found.verdict.passed:
                return found.kept
            if found.kept in self._examined:  # the same plan again: nothing new can be learned
                return self._grown(found.kept)
            self._examined.add(found.kept)
            # By another habit the plan that failed has another margin: only that is left as room.
            adapted, marked = self._learn(found.kept)
            needed = self._learned.needed(found.kept, found.verdict)
            room = self._selected() if adapted else room
            new = adapted or marked
            wider = wider_room(room, needed, self._selected(), failures, self._left, new=new)
            if wider is None:
                return self._grown(found.kept)
            why = "adapted" if adapted else "marked" if marked else "tighter"
            room, failures = wider, failures + 1

    def _grown(self, kept: Items) -> Items:
        """A plan that passes, by keeping more and more of what is felt most on the emulator."""
        felt = self._felt_there()
        waiting = [op for op in self._order_of_curve() if op not in kept]
        more = max(1, len(kept) // _GROW)
        while waiting:
            if self._left == 1 and not felt:
                more = max(more, len(waiting) // 2)
            kept, waiting = kept | set(waiting[:more]), waiting[more:]
            found = self._build("grown", None, kept)
            if found.verdict.passed:
                return kept
            more *= 2
        return self.candidates

    def _order_of_curve(self) -> list[int]:
        """What is felt most on the emulator comes first."""
        felt = self._felt_there()
        return sorted(self.candidates, key=lambda op: (-felt.get(op, 0.0), op))

    def _felt_there(self) -> Mapping[int, float]:
        return self._last.felt if self._last is not None else {}

    # --- once one passes -----------------------------------------------------------------------

    def _affordable(self, best: Items) -> bool:
        """Whether each op of the answer can be asked about on the engine itself."""
        movable = best - self.must
        unknown = [op for op in movable if self.oracle.known(best - {op}) is None]
        return len(unknown) <= self._left

    def _proved(self, best: Items) -> Items:
        """The answer without what the engine does not need: 1-minimal there, builds permitting."""
        for op in sorted(best - self.must, key=lambda i: (self._missed_by(i), -i)):
            without = best - {op}
            if self.oracle.known(without) is None and self._left <= 0:
                break
            known = self.oracle.known(without)
            passed = known.passed if known else self._build("proof", None, without).verdict.passed
            if passed:
                return self._proved(without)
        return best

    def _missed_by(self, op: int) -> float:
        """The emulator's margin without an op; infinite where its search did not ask."""
        witness = self._last.witnesses.get(op) if self._last is not None else None
        return math.inf if witness is None else witness.margin_or_worst

    def _smaller(self, best: Items) -> Items:
        """Smaller answers, as long as the last one that passed had room to spare."""
        while self._left > 0:
            last = next((r for r in reversed(self._rounds) if r.kept == best), None)
            if last is None:
                break
            margin, emulated = last.verdict.margin, last.emulated.margin
            if margin is None or not emulated or margin > _SLACK * self.settings.bound:
                break
            bound = emulated * _AIM * self.settings.bound / max(margin, 1e-6)
            failed = [r.bound for r in self._rounds if r.bound and not r.verdict.passed]
            if failed and bound >= min(failed):
                bound = math.sqrt(min(failed) * emulated)
            kept = self._searched(bound)
            if len(kept) >= len(best) or self.oracle.known(kept) is not None:
                break
            if self._build("smaller", bound, kept).verdict.passed:
                best = kept
        last = next((r for r in self._rounds if r.kept == best), None)
        roomy = last is not None and (last.verdict.margin or 0.0) < _SLACK * self.settings.bound
        return self._proved(best) if roomy or self._affordable(best) else best

    # --- building and emulating ----------------------------------------------------------------

    def _build(self, why: str, bound: float | None, kept: Items) -> Round:
        """Ask the engine about a plan. Raises BudgetSpent."""
        known = self.oracle.known(kept)
        if known is None and self._left <= 0:
            raise BudgetSpent(f"{self._asked.max_builds} builds used")
        self.oracle.phase = f"build {len(self._rounds) + 1}: {why}"
        verdict = known or self.oracle.ask(kept)
        found = Round(why, bound, kept, self._learned.emulated(kept), verdict)
        if known is None:
            self._rounds.append(found)
        return found

    def judged(self, kept: Items) -> Verdict:
        """All samples, since the worst margin is what the emulator's is compared with."""
        return super().judged(kept) if kept == self.candidates else self.full_verdict(kept)

    def _searched(self, bound: float) -> Items:
        """The emulator's answer by a bound. Raises BudgetSpent, KeyboardInterrupt."""
        settings = self._proposing(bound)
        plain = self._habits.current == self._habits.plain
        habit = {} if plain else {"habit": self._habit_key()}
        journal = self.proposer_journal.of(
            {**habit, **self._learned.emulator.to_json()}, settings.judging()
        )
        self.progress.phase(f"searching on the emulator, margin {bound:.3g}")
        search = AutoSearch(
            self._learned.emulator,
            self.candidates,
            self.precision,
            self.references,
            None,
            settings,
            journal,
            self.progress,
            self.prices,
        )
        try:
            found = search.run()
        except BaselineError:
            if self._learned.emulator.to_json():
                self._learned.forget_readback()
                return self._searched(bound)
            return self.candidates  # so little room that fp32 itself has none
        self._last = found
        self._evaluations += found.evaluations
        if found.stopped == "interrupted":
            raise KeyboardInterrupt
        if found.stopped and not found.after.passed:
            raise BudgetSpent(found.stopped.removeprefix("budget: "))
        return (found.plan.kept & self.candidates) | self.must

    def _habit_key(self) -> Any:
        """What the habit does to this model."""
        habit = self._habits.habit
        ops = habit.applied(self.model).ops
        slots = [[op.id, sorted(op.slots.inputs), sorted(op.slots.outputs)] for op in ops]
        return [dict(habit.options), slots]

    def _proposing(self, bound: float) -> Settings:
        """Settings for the emulator. Room above the tolerance widens the tolerance itself."""
        must = self._asked.must_keep | self._learned.marked.keys()
        left = self._asked.budget
        seconds = None if left.seconds is None else max(left.seconds - self.oracle.seconds, 1e-3)
        evaluations = None
        if left.evaluations is not None:
            evaluations = max(left.evaluations - self._evaluations, 0)
        changed = replace(
            self._asked,
            must_keep=frozenset(must),
            pareto=False,
            budget=Budget(evaluations, seconds),
        )
        if self._asked.validator is not None:
            return changed
        rule = self._asked.criterion
        if bound > 1 and isinstance(rule, Tolerance):
            wider = replace(rule, rtol=rule.rtol * bound, atol=rule.atol * bound)
            return replace(changed, criterion=wider, bound=1.0)
        return replace(changed, bound=min(bound, 1.0))

    def _selected(self) -> float:
        """Room for the emulator's luck: none where it repeats the engine's roundings."""
        return 1.0 + _SELECTED * min(1.0, self._habits.unlike)

    def _learn(self, kept: Items) -> tuple[bool, bool]:
        """Learn from a plan that failed; see :meth:`Learning.learn`."""
        self.progress.phase("comparing the engine's outputs with emulated ones")
        verdict = self.oracle.ask(kept)
        return self._learned.learn(kept, verdict, self.judge.first(_LOOKED_AT), self._rounds)
