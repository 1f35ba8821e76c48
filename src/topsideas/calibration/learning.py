"""What builds teach about an engine: its habits, and the ops at which it goes its own way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from topsideas.calibration.adapting import Adapting
from topsideas.calibration.agreement import alike, differing_ops
from topsideas.calibration.disguise import Disguised
from topsideas.calibration.judge import Judge
from topsideas.calibration.proposal import Round, missed_most, ratio
from topsideas.calibration.references import References
from topsideas.calibration.room import GROSS, contradicted
from topsideas.calibration.settings import Settings
from topsideas.engines.base import Arrays, Engine, Readback
from topsideas.errors import EngineError
from topsideas.graph.loading import Model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Precision
from topsideas.search.oracle import Items
from topsideas.verdict import Verdict


@dataclass
class Learning:
    """The emulator as it must be to be like an engine.

    Args:
        model: The model.
        engine: The engine.
        precision: The low format.
        references: The samples.
        settings: The engine's rule.
        habits: Which habit the engine has.
        same_numbers: Whether op ids are those of the model's nodes on both.

    Attributes:
        marked: Ops that behave differently on the engine, each with how.
    """

    model: Model
    engine: Engine
    precision: Precision
    references: References
    settings: Settings
    habits: Adapting
    same_numbers: bool
    marked: dict[int, str] = field(default_factory=dict)
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
        self._seen[kept] = verdict
        self._take_best()
        marked = bool(rounds) and self.habits.current == before and self._looked_at(kept, verdict)
        while wrong := self._unexplained():
            if self._marks(wrong, kept, rounds):
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

    def _marks(self, wrong: Sequence[Items], kept: Items, rounds: Sequence[Round]) -> bool:
        """Find out why plans went wrong: from plans that did not, or from the last one's trace."""
        for plan in wrong:
            missing = missed_most(rounds, plan)
            if missing:
                self.marked |= dict.fromkeys(missing, "a plan that kept it did not go so wrong")
                return True
        return kept in wrong and self._looked_at(kept, self._seen[kept])

    def _looked_at(self, kept: Items, verdict: Verdict) -> bool:
        """Look at what the engine did for a plan; says whether anything new is known."""
        before = len(self.marked), self.emulator.to_json()
        sample = self.references.ids[0] if verdict.sample is None else verdict.sample
        feeds, plan = self.references.inputs(sample), PrecisionPlan(kept)
        try:
            self._read_back(plan, feeds)
            if self._engine_differs(kept, verdict):
                self._compare_traces(plan, feeds)
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

    def _engine_differs(self, kept: Items, verdict: Verdict) -> bool:
        """Whether other roundings do not explain the engine's margin."""
        apart = ratio(verdict.margin, self.emulated(kept).margin)
        traced = self.engine.capabilities().traces and self.same_numbers
        return traced and (apart is None or apart > GROSS)

    def _compare_traces(self, plan: PrecisionPlan, feeds: Arrays) -> None:
        found = differing_ops(self.model, self.emulator, self.engine, plan, feeds, self.precision)
        self.marked |= found | alike(self.model, plan, found)
