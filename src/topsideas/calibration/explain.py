"""From an answer to its evidence: what is traced, on which samples, and what is remembered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topsideas.calibration.artefacts import Place
from topsideas.calibration.evidence import EvidenceRun, Subject
from topsideas.calibration.problem import Problem
from topsideas.calibration.progress import Progress
from topsideas.calibration.repairs import Opener, RepairSearch
from topsideas.calibration.result import SearchResult
from topsideas.engines.base import OwnOps
from topsideas.graph.wiring import reads_from, rounded_inputs
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics
from topsideas.verdict import Verdict

Json = dict[str, Any]


def evidence_of(
    problem: Problem,
    plan: PrecisionPlan,
    worst: Verdict,
    found: SearchResult | None,
    numerics: Numerics,
    progress: Progress,
) -> Json | None:
    """The evidence for a plan, as strict JSON; None where no engine shows what single ops do.

    Args:
        problem: What the plan is for.
        plan: The ops kept in fp32.
        worst: A verdict that names the hardest sample.
        found: The search that found the plan, if one did.
        numerics: The low format.
        progress: Shown to the user.

    Raises:
        EngineError: A run fails.
    """
    subject = _subject(problem, numerics)
    if not subject.engine.capabilities().traces:
        return None
    hardest = worst.sample if worst.sample is not None else problem.references.ids[0]
    needed = _needed(plan, problem, found.witnesses if found is not None else {}, hardest)
    key = [plan.ids, hardest, list(needed.items()), subject.engine.identity().to_json()]
    known: Json | None = problem.journal.recall("evidence", key)
    if known is None:
        known = EvidenceRun(subject, progress).run(plan, hardest, needed)
        problem.journal.record("evidence", key, known)
    return known


def repairs_of(
    problem: Problem,
    plan: PrecisionPlan,
    evidence: Json,
    opener: Opener,
    numerics: Numerics,
    place: Place,
    progress: Progress,
) -> Json | None:
    """Verified repairs that are cheaper than fp32; None where ops are not those of the model.

    Args:
        problem: What the plan is for.
        plan: The ops kept in fp32.
        evidence: What :func:`evidence_of` found.
        opener: Opens the engine that judges, for another model and low format.
        numerics: The low format.
        place: Where repaired models are written.
        progress: Shown to the user.

    Raises:
        ValidatorError: The user's rule fails.
    """
    if isinstance(problem.engine, OwnOps):
        return None
    key = [plan.ids, evidence["sample"]]
    known: Json | None = problem.journal.recall("repairs", key)
    if known is None or not _are_there(known):
        known = RepairSearch(problem, plan, evidence, opener, numerics, place, progress).run()
        problem.journal.record("repairs", key, known)
    return known


def _are_there(repairs: Json) -> bool:
    """Whether the models that were written are where they were."""
    paths = [repair["model"] for repair in repairs["found"] if repair["model"] is not None]
    return all(Path(path).is_file() for path in paths)


def _subject(problem: Problem, numerics: Numerics) -> Subject:
    model, engine = problem.model, problem.engine
    own = isinstance(engine, OwnOps)  # its numbers mean nothing in the model's graph
    slots = {op.id: op.slots for op in model.ops if op.candidate}
    return Subject(
        engine=problem.proposer.engine if problem.proposer is not None else engine,
        measured=engine.identity().evidence == "measured",
        candidates=model.candidates,
        must=problem.settings.must_keep & model.candidates,
        references=problem.references,
        criterion=problem.settings.criterion,
        numerics=numerics,
        types={op.id: op.type for op in model.ops},
        reads={} if own else reads_from(model.graph_model),
        sources={} if own else rounded_inputs(model.graph_model, slots),
    )


def _needed(
    plan: PrecisionPlan, problem: Problem, witnesses: Mapping[int, Verdict], hardest: int
) -> dict[int, int]:
    """For each kept op a sample that fails without it, the ops that are needed most first."""
    kept = sorted(plan.kept & problem.model.candidates, key=lambda op: (-_need(witnesses, op), op))
    samples = {op: w.sample for op, w in witnesses.items() if w.sample is not None}
    return {op: samples.get(op, hardest) for op in kept}


def _need(witnesses: Mapping[int, Verdict], op: int) -> float:
    margin = witnesses[op].margin if op in witnesses else 0.0
    return float("inf") if margin is None else margin
