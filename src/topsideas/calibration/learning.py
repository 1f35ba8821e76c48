"""What builds teach about an engine: its habits, and the ops at which it goes its own way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from topsideas.calibration.adapting import Adapting
from topsideas.calibration.disguise import Disguised
from topsideas.calibration.judge import Judge
from topsideas.calibration.own_errors import own_errors, worth_keeping
from topsideas.calibration.proposal import Round, missed_most, ratio
from topsideas.calibration.references import References
from topsideas.calibration.room import contradicted
from topsideas.calibration.settings import Settings
from topsideas.engines.base import Arrays, Engine, OpByOp, Readback
from topsideas.errors import EngineError
from topsideas.graph.loading import Model
from topsideas.plan import PrecisionPlan
from topsideas.search.oracle import Items
from topsideas.verdict import Verdict

# A margin that is more than so many times the emulated one has other reasons than roundings that
# fall out otherwise.
_MORE = 1.25
# If own errors take more of the bound than this, there is no room for any rounding.
_MOST_LEFT = 0.9


@dataclass
class Learning:
    """The emulator as it must be to be like an engine.

    Args:
        model: The model.
        engine: The engine.
        references: The samples.
        settings: The engine's rule.
        habits: Which habit the engine has.
        same_numbers: Whether op ids are those of the model's nodes on both.

    Attributes:
        marked: Ops that behave differently on the engine, each with how.
        left: What other ops' own errors add on a sample where some were marked, as a margin.
    """

    model: Model
    engine: Engine
    references: References
    settings: Settings
    habits: Adapting
    same_numbers: bool
    marked: dict[int, str] = field(default_factory=dict)
    left: float | None = None
    _seen: dict[Items, Verdict] = field(default_factory=dict)
    _emulated: dict[Items, Verdict] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.emulator = Disguised(self.habits.emulator())

    def emulated(self, kept: Items) -> Verdict:
        """The emulator's verdict on a plan by the engine's rule, over all samples."""
        if kept not in self._emulated:
            judge = Judge(self.emulator, self.references, self.settings)
            self._emulated[kept] = judge.full_margin(kept)
        return self._emulated[kept]

    def needed(self, kept: Items, verdict: Verdict) -> float | None:
        """How much room the emulator's plans need, by a plan that failed.

        Where ops were marked, so much that the roundings pass beside the own errors of the rest;
        else the engine's margin over the emulated one, None if that tells nothing.
        """
        if self.left is None:
            return ratio(verdict.margin, self.emulated(kept).margin)
        part = min(self.left / self.settings.bound, _MOST_LEFT)
        return 1 / math.sqrt(1 - part**2)

    def forget_readback(self) -> None:
        """What the engine was seen to run in another precision cannot be all of the truth."""
        self.emulator.forget()
        self._emulated.clear()

    def learn(
        self, kept: Items, verdict: Verdict, hardest: int | None, rounds: Sequence[Round]
    ) -> tuple[bool, bool]:
        """Learn from what the engine gave for a plan that failed.

        Args:
            kept: The plan.
            verdict: The engine's verdict on it.
            hardest: A sample that is looked at first.
            rounds: The plans that were built besides the controls.

        Returns:
            Whether another habit explains it, and whether ops that behave differently were found.
        """
        before = self.habits.current
        try:
            self.habits.compare(kept, hardest)
        except EngineError:  # a plan that the engine cannot run tells nothing
            return False, False
        self._seen[kept], self.left = verdict, None
        self._take_best()
        marked = self._looked_at(kept, verdict, built=bool(rounds))
        while wrong := self._unexplained():
            missing = next(filter(None, (missed_most(rounds, plan) for plan in wrong)), ())
            self.marked |= dict.fromkeys(missing, "a plan that kept it did not go so wrong")
            if missing:
                marked = True
            elif self.habits.current == self.habits.plain:
                break
            else:
                self.habits.drop()
                self._take_best()
        return self.habits.current != before, marked

    def _take_best(self) -> None:
        if self.habits.choose():
            self.emulator = Disguised(self.habits.emulator())
            self._emulated.clear()

    def _unexplained(self) -> list[Items]:
        """Plans on which the engine goes grossly wrong where the emulator sees nothing.

        A plan without an op that is marked is explained by that.
        """
        return [
            kept
            for kept, verdict in self._seen.items()
            if verdict.sample is not None
            and verdict.output is not None  # else it did not run
            and not self.marked.keys() - kept
            and contradicted(verdict, self._emulated_on(kept, verdict.sample))
        ]

    def _emulated_on(self, kept: Items, sample: int) -> Verdict:
        """The emulator's verdict on one sample, or on all if that is known."""
        if kept in self._emulated:
            return self._emulated[kept]
        judge = Judge(self.emulator, self.references, self.settings)
        executable = self.emulator.compile(PrecisionPlan(kept))
        return judge.judge_sample(executable, sample, self.settings.bound)

    def _looked_at(self, kept: Items, verdict: Verdict, *, built: bool) -> bool:
        """Look at what the engine did for a plan; says whether anything new is known."""
        before = len(self.marked), self.emulator.to_json()
        sample = self.references.ids[0] if verdict.sample is None else verdict.sample
        feeds, plan = self.references.inputs(sample), PrecisionPlan(kept)
        try:
            if built:
                self._read_back(plan, feeds)
            apart = ratio(verdict.margin, self.emulated(kept).margin)
            if apart is None or apart > _MORE:
                self._find_own_errors(plan, sample)
        except EngineError:  # an engine that cannot even show what it did: room is left instead
            return False
        return before != (len(self.marked), self.emulator.to_json())

    def _read_back(self, plan: PrecisionPlan, feeds: Arrays) -> None:
        """Ops that the engine ran in another precision are emulated in that from now on."""
        executable = self.engine.compile(plan)
        if not self.engine.capabilities().readable or not isinstance(executable, Readback):
            return
        differing = frozenset(executable.differing(feeds)) & self.model.candidates
        self.emulator.learn(low=differing & plan.kept, fp32=differing - plan.kept)
        self._emulated.clear()

    def _find_own_errors(self, plan: PrecisionPlan, sample: int) -> None:
        """Mark the ops whose kernels err by more than their roundings, as far as that matters."""
        emulator, traces = self.habits.kernels(), self.engine.capabilities().traces
        if not (traces and self.same_numbers and isinstance(emulator, OpByOp)):
            return
        feeds = self.references.inputs(sample)
        records = self.engine.compile(plan).trace(feeds)
        low = self.emulator.meant(plan).low(self.model.candidates)
        judge = Judge(self.engine, self.references, self.settings)
        errors = own_errors(
            self.model, emulator, records, low, feeds, lambda found: judge.margin_of(found, sample)
        )
        marked, left = worth_keeping(self.model, errors, low, self.settings.bound)
        if marked:
            self.marked |= marked
            self.left = left
