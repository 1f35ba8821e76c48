"""Judges plans: runs them on samples and compares with the golden outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from threading import Event
from typing import Any

import numpy as np

from topsideas.calibration.references import References
from topsideas.calibration.settings import Settings, Validator
from topsideas.calibration.waiting import StillRunning, answered
from topsideas.engines.base import Blocks, Engine, Once, Runnable, SecondOpinion, Sharded
from topsideas.errors import EngineError, ValidatorError
from topsideas.plan import PrecisionPlan
from topsideas.stats.criteria import margin
from topsideas.verdict import Verdict

Arrays = dict[str, Any]

SECOND = "in a second execution"
FUSED = "on a target that fuses all low ops"


class Judge:
    """Says whether a plan is accurate enough on every sample.

    The sample that failed last is asked first next time, and the first failure ends the
    judgement: most plans that a search asks about fail, and mostly on the same sample. When room
    is asked for (a bound below 1), a plan must also hold to the full tolerance where low ops do
    not round between each other, since real targets fuse.

    Args:
        engine: Runs plans.
        references: The samples with their golden outputs.
        settings: The rule.

    Attributes:
        strict: A plan that passes must also pass in the engine's second execution.
        repeats: How often each sample is run: an engine that is not deterministic must pass
            each time.
    """

    def __init__(self, engine: Engine, references: References, settings: Settings) -> None:
        self._engine = engine
        self._references = references
        self._settings = settings
        self._order = list(references.ids)
        self.strict, self.repeats = False, 1
        self._ahead: tuple[frozenset[int], Future[Any]] | None = None
        self._spare = ThreadPoolExecutor(1)
        self._once: tuple[frozenset[int], Runnable] | None = None
        self._dropped = Event()

    def like(self, engine: Engine) -> Judge:
        """A judge of the same mind that asks another engine."""
        other = Judge(engine, self._references, self._settings)
        other._order, other.strict, other.repeats = list(self._order), self.strict, self.repeats
        return other

    @property
    def hardest(self) -> int:
        """The id of the sample that decided last."""
        return self._order[0]

    def first(self, count: int) -> list[int]:
        """The ids of so many samples, those that decided last first."""
        return self._order[:count]

    def expect(self, kept: frozenset[int]) -> None:
        """Run a plan on the hardest sample beside what is judged now: it may be asked about next.

        That pays where the engine remembers what it ran; a verdict does not depend on it.
        """
        if self._settings.threads > 1 and isinstance(self._engine, Blocks):
            executable = self._engine.compile(PrecisionPlan(kept))
            inputs = self._references.inputs(self.hardest)
            self._ahead = (kept, self._spare.submit(executable.run, inputs))

    def judge(self, kept: frozenset[int]) -> Verdict:
        """Judge a plan, stopping at the first failing sample."""
        if self._ahead is not None and self._ahead[0] == kept:
            wait([self._ahead[1]])
        verdict = self.judge_executable(self._engine.compile(PrecisionPlan(kept)))
        return self.other_verdict(kept) or verdict if verdict.passed else verdict

    def judge_control(self, kept: frozenset[int]) -> Verdict:
        """Judge a plan that is like no other of the search; see :meth:`judge`."""
        verdict = self.judge_executable(self.once(kept))
        return self.other_verdict(kept) or verdict if verdict.passed else verdict

    def once(self, kept: frozenset[int]) -> Runnable:
        """What runs a plan that is like no other: most engines share work between plans."""
        if self._once is None or self._once[0] != kept:
            executable = self._engine.compile(PrecisionPlan(kept))
            runner = executable.once() if isinstance(executable, Once) else executable
            self._once = (kept, runner)
        return self._once[1]

    def other_verdict(self, kept: frozenset[int]) -> Verdict | None:
        """The first other execution that fails, of those that are asked for."""
        executable = self._engine.compile(PrecisionPlan(kept))
        if not isinstance(executable, SecondOpinion):
            return None
        if self.strict:
            second = self.judge_executable(executable.second_opinion())
            if not second.passed:
                return replace(second, note=second.note or SECOND)
        if self._settings.bound < 1:
            fused = self.judge_executable(executable.fused(), bound=1.0)
            if not fused.passed:
                return replace(fused, note=fused.note or FUSED)
        return None

    def judge_executable(self, executable: Runnable, bound: float | None = None) -> Verdict:
        """Judge anything that runs, by the bound of the settings or another; see :meth:`judge`."""
        validator = self._settings.validator
        if validator is not None and validator.scope == "dataset":
            return self._judge_dataset(executable, validator)
        worst = Verdict(passed=True, margin=None if validator else 0.0, sample=self._order[0])
        bound = self._settings.bound if bound is None else bound
        for verdict in self._verdicts(executable, bound):
            if not verdict.passed:
                self._ask_first(verdict.sample)
                return verdict
            if (verdict.margin or 0.0) > (worst.margin or 0.0):
                worst = verdict
        return worst

    def full_margin(self, kept: frozenset[int]) -> Verdict:
        """Judge a plan on all samples and return the worst; finds the hardest sample too."""
        return self.verdicts(kept)[0]

    def verdicts(self, kept: frozenset[int], runner: Runnable | None = None) -> list[Verdict]:
        """Judge a plan on every sample; the worst comes first, and is asked first from now on.

        A rule for the whole data set gives one verdict.

        Args:
            kept: The plan.
            runner: Runs it, if not what the engine compiles.
        """
        executable = runner or self._engine.compile(PrecisionPlan(kept))
        validator = self._settings.validator
        if validator is not None and validator.scope == "dataset":
            return [self._judge_dataset(executable, validator)]
        bound, samples = self._settings.bound, sorted(self._order)
        if isinstance(executable, Sharded):
            found = list(self._sharded(executable, samples, bound, every=True))
        else:
            found = list(self._side_by_side(executable, samples, bound))
        found.sort(key=_badness, reverse=True)
        self._order = [v.sample for v in found if v.sample is not None]
        return found

    def resume(self, *verdicts: Verdict) -> None:
        """Ask samples in the order that these verdicts of an earlier run led to.

        A run that was killed then goes on as if it had not been: the same sample decides.

        Args:
            verdicts: On one plan, as :meth:`judge` or :meth:`verdicts` gave them.
        """
        for verdict in reversed(verdicts):
            if len(verdicts) > 1 or not verdict.passed:
                self._ask_first(verdict.sample)

    def margin_in(self, executable: Runnable, sample: int) -> float:
        """The margin of one sample in some execution; infinite where it fails to run."""
        return self.judge_sample(executable, sample, self._settings.bound).margin_or_worst

    def margin_of(self, outputs: Arrays, sample: int) -> float:
        """The margin of a sample's outputs by the criterion, whatever the validator would say."""
        return self._worst(outputs, self._references.golden(sample))[0]

    def _verdicts(self, executable: Runnable, bound: float) -> Iterator[Verdict]:
        """Verdicts in order; the first alone, the others side by side."""
        if isinstance(executable, Sharded):
            yield from self._sharded(executable, list(self._order), bound)
            return
        first, *rest = list(self._order)
        yield self.judge_sample(executable, first, bound)
        if self._settings.threads <= 1 or len(rest) <= 1:
            yield from (self.judge_sample(executable, i, bound) for i in rest)
            return
        yield from self._side_by_side(executable, rest, bound)

    def _side_by_side(
        self, executable: Runnable, samples: Sequence[int], bound: float
    ) -> Iterator[Verdict]:
        """Verdicts in the order of the samples; those not asked for are not waited for."""
        pool = ThreadPoolExecutor(self._settings.threads)
        try:
            yield from pool.map(lambda i: self.judge_sample(executable, i, bound), samples)
        finally:
            self._dropped.set()  # of a validator that hangs there is nothing to wait for
            pool.shutdown(wait=True, cancel_futures=True)
            self._dropped.clear()

    def _sharded(
        self, executable: Sharded, samples: Sequence[int], bound: float, *, every: bool = False
    ) -> Iterator[Verdict]:
        """Verdicts of workers, in order; the user's function is called here, in that order too."""
        if self._settings.validator is None:
            yield from executable.verdicts(samples, bound, every=every, repeats=self.repeats)
            return
        parts = (samples,) if every else (samples[:1], samples[1:])
        for part in parts:
            for sample, outputs in zip(part, executable.outputs(part), strict=True):
                yield self._worst_run(executable, sample, bound, outputs)

    def judge_sample(self, executable: Runnable, sample: int, bound: float) -> Verdict:
        """The worst verdict of as many runs as are asked for; the first failure ends them."""
        if isinstance(executable, Sharded):
            return next(self._sharded(executable, [sample], bound))
        return self._worst_run(executable, sample, bound, self._run(executable, sample))

    def _worst_run(
        self,
        executable: Runnable | Sharded,
        sample: int,
        bound: float,
        outputs: Arrays | EngineError,
    ) -> Verdict:
        worst = self._judge_run(outputs, sample, bound)
        for _ in range(self.repeats - 1):
            if worst.passed:
                again = self._judge_run(self._run(executable, sample), sample, bound)
                worst = max(worst, again, key=_badness)
        return worst

    def _run(self, executable: Runnable | Sharded, sample: int) -> Arrays | EngineError:
        if isinstance(executable, Sharded):
            return next(executable.outputs([sample]))
        try:
            return executable.run(self._references.inputs(sample))
        except EngineError as error:
            return error

    def _judge_run(self, outputs: Arrays | EngineError, sample: int, bound: float) -> Verdict:
        if isinstance(outputs, EngineError):
            return Verdict(passed=False, margin=math.inf, sample=sample, note=str(outputs))
        golden = self._references.golden(sample)
        if self._settings.validator is not None:
            reference, found = _listed(golden, golden), _listed(outputs, golden)
            passed = self._call(self._settings.validator, reference, found, f"sample {sample}")
            return Verdict(passed=passed, margin=None, sample=sample)
        worst, output = self._worst(outputs, golden)
        return Verdict(worst <= bound, worst, sample, output)

    def _worst(self, outputs: Arrays, golden: Arrays) -> tuple[float, str | None]:
        margins = {n: margin(outputs[n], r, self._settings.criterion) for n, r in golden.items()}
        name = max(margins, key=lambda n: margins[n], default=None)
        return (margins[name], name) if name is not None else (0.0, None)

    def _judge_dataset(self, executable: Runnable, validator: Validator) -> Verdict:
        for _ in range(self.repeats):
            verdict = self._judge_dataset_once(executable, validator)
            if not verdict.passed:
                break
        return verdict

    def _judge_dataset_once(self, executable: Runnable, validator: Validator) -> Verdict:
        golden = [self._references.golden(i) for i in self._references.ids]
        outputs: list[Arrays] = []
        for found in self._all_outputs(executable):
            if isinstance(found, EngineError):
                return Verdict(passed=False, margin=math.inf, note=str(found))
            outputs.append(found)
        listed = [_listed(o, g) for o, g in zip(outputs, golden, strict=True)]
        passed = self._call(validator, [_listed(g, g) for g in golden], listed, "the data set")
        return Verdict(passed=passed, margin=None)

    def _all_outputs(self, executable: Runnable) -> Iterator[Arrays | EngineError]:
        if isinstance(executable, Sharded):
            return executable.outputs(self._references.ids)
        return (self._run(executable, i) for i in self._references.ids)

    def _call(
        self, validator: Validator, reference: Sequence[Any], outputs: Sequence[Any], what: str
    ) -> bool:
        name = validator.name
        try:
            answer = answered(
                lambda: validator.function(reference, outputs), validator.seconds, self._dropped
            )
        except StillRunning as error:
            raise ValidatorError(
                f"{name} gave no answer on {what} within {validator.seconds:g} s; expected True "
                "or False. Remedy: find out where it hangs, or allow more with --val_timeout"
            ) from error
        except (Exception, SystemExit) as error:
            raise ValidatorError(
                f"{name} raised {type(error).__name__} on {what}: {error}"
            ) from error
        if not isinstance(answer, bool | np.bool_):
            raise ValidatorError(
                f"{name} returned {answer!r:.200} on {what}; expected True (acceptable) or False"
            )
        return bool(answer)

    def _ask_first(self, sample: int | None) -> None:
        if sample is not None:
            self._order.remove(sample)
            self._order.insert(0, sample)


def _badness(verdict: Verdict) -> tuple[bool, float]:
    return not verdict.passed, -math.inf if verdict.margin is None else verdict.margin


def _listed(arrays: Arrays, like: Arrays) -> list[Any]:
    """Copies in the model's output order: the user's function may work in place."""
    return [np.copy(arrays[name]) for name in like]
