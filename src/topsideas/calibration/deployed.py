"""What an engine tells of a plan once it is built: what it really did, and how long it takes."""

from __future__ import annotations

from topsideas.calibration.problem import Problem
from topsideas.engines.base import Doubts, Latency, Readback, finalized
from topsideas.errors import EngineError
from topsideas.plan import PrecisionPlan
from topsideas.verdict import Verdict

_SHOWN = 8
_REPEATS = 20


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
        doubts = executable.doubts(feeds) if isinstance(executable, Doubts) else []
        latency = _latency_line(problem, plan)
    except EngineError as error:  # the run itself failed: its verdict says so
        return [f"no read-back from {engine.identity().name}: {error}"]
    notes = [*getattr(executable, "notes", ()), *doubts]
    if differing:
        listed = [f"{op} ran in {what}" for op, what in list(differing.items())[:_SHOWN]]
        more = f", and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        notes.append(f"{engine.identity().name} differs from the plan: {', '.join(listed)}{more}")
    return notes + latency


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
    found = []
    for name, kept in plans.items():
        executable = problem.engine.compile(PrecisionPlan(kept))
        if not isinstance(executable, Latency):
            return []
        seconds = executable.latency(feeds, _REPEATS)
        if seconds is None:
            return []
        found.append(f"{name} {1e3 * seconds:.3g} ms")
    device = problem.engine.identity().device
    return [f"latency on {device}, median of {_REPEATS}: {', '.join(found)}"]
