"""Whether an engine's two executions give different verdicts: then both must pass."""

from __future__ import annotations

from dataclasses import dataclass

from topsideas.calibration.controls import refuse_baseline
from topsideas.calibration.journal import Journal
from topsideas.calibration.judge import Judge
from topsideas.calibration.settings import Settings
from topsideas.engines.base import Engine, Runnable, SecondOpinion
from topsideas.plan import PrecisionPlan
from topsideas.verdict import Verdict

Items = frozenset[int]

CONFIRMED = "confirm"
"""Under this, with a plan, the journal keeps the second execution's verdict on all samples."""

# Margins are alike if they differ by no more than this part; far below the bound less matters.
# Measured on models whose executions differ: 2 to 60 % on the first plan that passes; on others
# they are equal, or differ by 0.3 %.
_ALIKE, _FAR_BELOW = 0.01, 0.1
# A plan this near to the bound has shown enough.
_NEAR = 0.5
# So many samples are looked at.
_SAMPLES = 8


@dataclass
class Executions:
    """Compares two executions of plans that pass, until one near the bound was alike.

    Where sums that differ in their last bits are rounded differently and all that follows with
    them, a plan that passes in one execution may fail in the other, and the smaller the plan the
    more likely.

    Args:
        engine: Runs plans, perhaps in two ways.
        judge: Is made strict where they differ.
        journal: Remembers what was found.
        settings: The rule.
        candidates: The plan that keeps everything, which must pass in both.
    """

    engine: Engine
    judge: Judge
    journal: Journal
    settings: Settings
    candidates: Items

    def __post_init__(self) -> None:
        self._differ = self.journal.recall("differ", None)  # of an earlier run
        self._done = bool(self.journal.recall("compared", None) or self._differ)

    def resume(self, kept: Items) -> None:
        """From a plan on that was found to differ in an earlier run, both count."""
        if self._differ == sorted(kept):
            self.judge.strict = True

    def compared(self, kept: Items, verdict: Verdict) -> Verdict:
        """The verdict on a plan that passes, by both executions if they turn out to differ."""
        if self._done or verdict.margin is None:
            return verdict
        executable = self.engine.compile(PrecisionPlan(kept))
        if not isinstance(executable, SecondOpinion):
            self._done = True
            return verdict
        if not self._differs(kept, executable, executable.second_opinion()):
            self._done = verdict.margin >= _NEAR * self.settings.bound
            if self._done:
                self.journal.record("compared", None, value=True)
            return verdict
        self._done = self.judge.strict = True
        baseline = self.judge.other_verdict(self.candidates)
        if baseline is not None:
            refuse_baseline(baseline, self.settings, self.engine, self.candidates)
        self.journal.record("differ", None, sorted(kept))
        return self.judge.other_verdict(kept) or verdict

    def _differs(self, kept: Items, one: Runnable, other: Runnable) -> bool:
        least = _FAR_BELOW * self.settings.bound
        samples, seen = self.judge.first(_SAMPLES + 1), []
        for sample in samples[:_SAMPLES]:
            verdict = self.judge.judge_sample(other, sample, self.settings.bound)
            margins = [self.judge.margin_in(one, sample), verdict.margin_or_worst]
            if not max(margins) - min(margins) <= _ALIKE * max(least, *margins):
                return True
            seen.append(verdict)
        if len(seen) == len(samples):  # all there are: if this is the answer, it is verified
            worst = max(seen, key=lambda verdict: verdict.margin_or_worst)
            self.journal.record(CONFIRMED, sorted(kept), worst.to_json())
        return False
