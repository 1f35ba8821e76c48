"""What an engine tells of a plan once it is built: what it really did, and how long it takes."""

from __future__ import annotations

from dataclasses import replace

from topsideas.calibration.problem import Problem
from topsideas.engines.base import Arrays, Doubts, Latency, Readback, finalized
from topsideas.errors import EngineError
from topsideas.plan import PrecisionPlan
from topsideas.verdict import Verdict

_SHOWN = 8
# How often latency is measured, unless the runs of a plan would take longer than these seconds.
_REPEATS, _PATIENCE = 20, 3.0


def readback_notes(problem: Problem, plan: PrecisionPlan) -> list[str]:
    """Lines on where the engine differs from the plan, and what the plan costs in time.

    Where the engine cannot tell, nothing is said.
    """
    engine = problem.engine
    sample = problem.references.ids[0]
    feeds = problem.references.inputs(sample)
    executable = engine.compile(plan)
    try:
        differing = executable.differing(feeds) if isinstance(executable, Readback) else {}
        doubts = _doubts(problem, plan, feeds)
        latency = _latency_line(problem, plan)
    except EngineError as error:  # the run itself failed: its verdict says so
        return [f"no read-back from {engine.identity().name}: {error}"]
    notes = [*getattr(executable, "notes", ()), *doubts]
    if differing:
        listed = [f"{op} ran in {what}" for op, what in list(differing.items())[:_SHOWN]]
        more = f", and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        notes.append(f"{engine.identity().name} differs from the plan: {', '.join(listed)}{more}")
    return notes + latency


def _doubts(problem: Problem, plan: PrecisionPlan, feeds: Arrays) -> list[str]:
    """What looks wrong; where all ops are in fp32, which no mixed build is, with all but one."""
    candidates = problem.model.candidates
    whole = len(candidates) > 1 and not plan.low(candidates)
    asked = PrecisionPlan(candidates - {min(candidates)}) if whole else plan
    executable = problem.engine.compile(asked)
    found = executable.doubts(feeds) if isinstance(executable, Doubts) else []
    where = f"with all ops but {min(candidates)} in fp32 " if whole else ""
    return [where + line for line in found]


def honoured(problem: Problem, plan: PrecisionPlan, verdict: Verdict) -> Verdict:
    """The verdict on a plan, which fails where no sample shows that the engine follows it.

    That all outputs pass is then no evidence for the plan. Raises SampleError.
    """
    executable = problem.engine.compile(plan)
    if not verdict.passed or not isinstance(executable, Doubts):
        return verdict
    for sample in problem.references.ids:
        try:
            doubts = executable.doubts(problem.references.inputs(sample))
        except EngineError:  # the build that it is compared with fails: this one is another
            return verdict
        if not doubts:
            return verdict
    return replace(verdict, passed=False, note=doubts[0])


def deployed_verdict(problem: Problem, plan: PrecisionPlan, verdict: Verdict) -> Verdict:
    """The verdict on the build for deployment, where that is another build.

    Without what makes builds comparable op by op a compiler fuses more, so that a plan which
    passed may fail. Raises ValidatorError.
    """
    if not problem.engine.capabilities().finalizes:
        return verdict
    return problem.judged(finalized(problem.engine, plan))


def _latency_line(problem: Problem, plan: PrecisionPlan) -> list[str]:
    """Measured medians of fp32, all low and the plan."""
    candidates = problem.model.candidates
    plans = {"fp32": candidates, "all low": frozenset[int](), "this plan": plan.kept & candidates}
    feeds = problem.references.inputs(problem.references.ids[0])
    found, repeats = [], 0
    for name, kept in plans.items():
        executable = problem.engine.compile(PrecisionPlan(kept))
        if not isinstance(executable, Latency):
            return []
        repeats = repeats or _repeats(executable.latency(feeds, 1))
        seconds = executable.latency(feeds, repeats)
        if seconds is None:
            return []
        found.append(f"{name} {1e3 * seconds:.3g} ms")
    device = problem.engine.identity().device
    return [f"latency on {device}, median of {repeats}: {', '.join(found)}"]


def _repeats(seconds: float | None) -> int:
    """How often a run that takes so long is repeated."""
    return max(1, min(_REPEATS, int(_PATIENCE / seconds))) if seconds else _REPEATS
