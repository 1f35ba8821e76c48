"""Why the ops of an answer stay in fp32, as far as that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from topsideas.calibration.explain import evidence_of, repairs_of
from topsideas.calibration.problem import Problem
from topsideas.calibration.progress import Progress
from topsideas.calibration.result import SearchResult
from topsideas.engines.base import Engine
from topsideas.errors import TopsideasError
from topsideas.graph.loading import Model
from topsideas.graph.rounding_nodes import MEANS
from topsideas.plan import PrecisionPlan
from topsideas.precision import Accumulation, Numerics
from topsideas.report.evidence import with_evidence
from topsideas.verdict import Verdict
from topsideas.workspace.workspace import Workspace

Json = dict[str, Any]

_SHOWN = 4


@dataclass(frozen=True)
class Explaining:
    """What explanations are made with.

    Attributes:
        problem: What was searched or compared.
        asked: ``auto``, ``none``, ``causes`` or ``repairs``.
        page: Whether the report is also written as a page.
        numerics: The rounding.
        open_engine: Opens the engine for a repaired model.
        place: Remembers what was measured.
        progress: Shown to the user.
        notes: Lines for the user; added to.
    """

    problem: Problem
    asked: str
    page: bool
    numerics: Numerics
    open_engine: Callable[[Model, Numerics], Engine]
    place: Workspace
    progress: Progress
    notes: list[str]

    def wanted(self, *, searched: bool) -> str:
        """What is asked for; where builds are dear, repairs are not tried unasked."""
        if self.asked != "auto":
            return self.asked
        if self.page and not self.problem.engine.capabilities().dear:
            return "repairs"
        return "causes" if searched or self.page else "none"


def explain(
    by: Explaining, plan: PrecisionPlan, worst: Verdict, found: SearchResult | None = None
) -> Callable[[Json], Json]:
    """Find out why the ops of a plan stay; an answer does not depend on it.

    Args:
        by: What to do it with.
        plan: The plan.
        worst: The verdict to explain.
        found: What auto mode found.

    Returns:
        Adds what was found to a report.
    """
    wanted = by.wanted(searched=found is not None)
    if wanted == "none" or (found is not None and found.stopped):
        return lambda report: report
    evidence: Json | None = None
    repairs: Json | None = None
    try:
        evidence = evidence_of(by.problem, plan, worst, found, by.numerics, by.progress)
        if evidence is None:
            by.notes.append("why ops must stay is unknown: no engine shows single ops")
        elif wanted == "repairs":
            repairs = repairs_of(
                by.problem, plan, evidence, by.open_engine, by.numerics, by.place, by.progress
            )
    except (TopsideasError, KeyboardInterrupt) as error:
        reason = str(error) or "interrupted"
        by.notes.append(f"why the ops must stay in fp32 is not told in full: {reason}")
    if evidence is None:
        return lambda report: report
    ops, told = by.problem.model.ops, evidence
    by.notes.extend(_overflowing_sums(by, plan, evidence))
    return lambda report: with_evidence(report, ops, told, repairs)


def _overflowing_sums(by: Explaining, plan: PrecisionPlan, evidence: Json) -> list[str]:
    """A line where an answer that is emulated hangs on sums that devices may hold low."""
    emulated = by.problem.engine.identity().evidence == "emulated"
    if not emulated or by.numerics.accumulation is not Accumulation.FP32:
        return []
    types = {op.id: op.type for op in by.problem.model.ops}
    low, limit = plan.low(by.problem.model.candidates), evidence["format"]["max"]
    sums = {op["id"]: op.get("inside", 0.0) for op in evidence["ops"] if op["id"] in low}
    over = [op for op in sums if types[op] in MEANS and sums[op] > limit]
    if not over:
        return []
    over.sort(key=lambda op: -sums[op])
    listed = ", ".join(f"{op} {types[op]} {sums[op]:.2g}" for op in over[:_SHOWN])
    more = f" and {len(over) - _SHOWN} more" if len(over) > _SHOWN else ""
    told = (
        f"sums inside low ops exceed {limit:g} ({listed}{more}): devices that hold them in "
        f"{by.numerics.precision.name}, as ONNX Runtime on CUDA does in ReduceMean, overflow "
        'there. Remedy: --compile_options \'{"accumulation": "low"}\' searches for such a device'
    )
    return [told]
