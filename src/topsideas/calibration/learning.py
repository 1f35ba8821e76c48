"""What builds teach about an engine: its habits, and the ops at which it goes its own way."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from topsideas.calibration.adapting import Adapting
from topsideas.calibration.disguise import Disguised
from topsideas.calibration.judge import Judge
from topsideas.calibration.own_errors import own_errors, worth_keeping
from topsideas.calibration.proposal import Round, missed_most, ratio
from topsideas.calibration.references import References
from topsideas.calibration.room import GROSS, contradicted
from topsideas.calibration.settings import Settings
from topsideas.engines.base import Engine, OpByOp, Readback
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
    _understood: set[Items] = field(default_factory=set)
    _traced: tuple[Items, str] | None = None
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
        return 1 / math.sqrt(1 - min(self.left / self.settings.bound, _MOST_LEFT) ** 2)

    def forget_readback(self) -> None:
        """What the engine was seen to run in another precision cannot be all of the truth."""
        self.emulator.forget()
        self._emulated.clear()

    def learn(
        self, kept: Items, verdict: Verdict, samples: Sequence[int], rounds: Sequence[Round]
    ) -> tuple[bool, bool]:
        """Learn from what the engine gave for a plan that failed.

        Args:
            kept: The plan.
            verdict: The engine's verdict on it.
            samples: Those on which the engine is worst, that first.
            rounds: The plans that were built besides the controls.

        Returns:
            Whether another habit explains it, and whether ops that behave differently were found.
        """
        before = self.habits.current
        try:
            self.habits.compare(kept, samples[0] if samples else None)
        except EngineError:  # a plan that the engine cannot run tells nothing
            return False, False
        self._seen[kept], self.left = verdict, None
        self._take_best()
        marked = self._looked_at(kept, verdict, samples, built=bool(rounds))
        while wrong := self._unexplained():
            if self._explained(wrong[0], rounds):
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

        But those without an op that was found to be why.
        """
        return [
            kept
            for kept, verdict in self._seen.items()
            if verdict.sample is not None
            and verdict.output is not None  # else it did not run
            and kept not in self._understood
            and contradicted(verdict, self._emulated_on(kept, verdict.sample))
        ]

    def _emulated_on(self, kept: Items, sample: int) -> Verdict:
        """The emulator's verdict on one sample, or on all if that is known."""
        if kept in self._emulated:
            return self._emulated[kept]
        judge = Judge(self.emulator, self.references, self.settings)
        executable = self.emulator.compile(PrecisionPlan(kept))
        return judge.judge_sample(executable, sample, self.settings.bound)

    def _explained(self, kept: Items, rounds: Sequence[Round]) -> bool:
        """Find an op that made a plan go wrong, in its trace or in what a better plan kept."""
        if self._traced != (kept, self.habits.current):
            with contextlib.suppress(EngineError):  # what it cannot show, others may
                self._find_own_errors(kept, [self._sample(self._seen[kept])])
        missing = missed_most(rounds, kept)
        if kept not in self._understood and missing:
            self.marked |= dict.fromkeys(missing, "a plan that kept it did not go so wrong")
            self._understood.add(kept)
        return kept in self._understood

    def _looked_at(
        self, kept: Items, verdict: Verdict, samples: Sequence[int], *, built: bool
    ) -> bool:
        """Look at what the engine did for a plan; says whether anything new is known."""
        before = len(self.marked), self.emulator.to_json()
        try:
            if built:
                self._read_back(PrecisionPlan(kept), self._sample(verdict))
            apart = ratio(verdict.margin, self.emulated(kept).margin)
            if apart is None or apart > _MORE:
                self._find_own_errors(kept, samples)
        except EngineError:  # an engine that cannot even show what it did: room is left instead
            return False
        return before != (len(self.marked), self.emulator.to_json())

    def _sample(self, verdict: Verdict) -> int:
        return self.references.ids[0] if verdict.sample is None else verdict.sample

    def _read_back(self, plan: PrecisionPlan, sample: int) -> None:
        """Ops that the engine ran in another precision are emulated in that from now on."""
        executable = self.engine.compile(plan)
        if not self.engine.capabilities().readable or not isinstance(executable, Readback):
            return
        feeds = self.references.inputs(sample)
        differing = frozenset(executable.differing(feeds)) & self.model.candidates
        self.emulator.learn(low=differing & plan.kept, fp32=differing - plan.kept)
        self._emulated.clear()

    def _find_own_errors(self, kept: Items, samples: Sequence[int]) -> None:
        """Mark the ops whose kernels err by more than their roundings, as far as that matters."""
        emulator, traces = self.habits.kernels(), self.engine.capabilities().traces
        if not (traces and self.same_numbers and isinstance(emulator, OpByOp)):
            return
        self._traced = kept, self.habits.current
        plan = PrecisionPlan(kept)
        low = self.emulator.meant(plan).low(self.model.candidates)
        executable, worst = self.engine.compile(plan), dict[int, float]()
        judge = Judge(self.engine, self.references, self.settings)
        for sample in samples:
            feeds = self.references.inputs(sample)
            margin = partial(judge.margin_of, sample=sample)
            found = own_errors(self.model, emulator, executable.trace(feeds), low, feeds, margin)
            worst |= {op: max(own, worst.get(op, 0.0)) for op, own in found.items()}
        # Where a function of the user's judges, only what is grossly wrong is told by margins.
        bound = self.settings.bound if self.settings.validator is None else GROSS
        marked, left = worth_keeping(self.model, worst, low, bound)
        least = (self._seen[kept].margin or 0.0) / GROSS
        if any(worst.get(op, 0.0) >= least for op in marked):
            self._understood.add(kept)
        if marked.keys() - self.marked.keys():
            self.marked |= marked
            self.left = left if left < _MOST_LEFT * bound else None
