"""The JSON report: section 5 of the specification, with the added keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import topsideas
from topsideas.calibration.curve import Curve
from topsideas.calibration.manual import SampleStatistics
from topsideas.calibration.pricing import PlanCost
from topsideas.calibration.proposal import Proposal
from topsideas.calibration.result import SearchResult
from topsideas.engines.base import Identity
from topsideas.graph.loading import Model
from topsideas.graph.ops import Op
from topsideas.stats.criteria import Comparison, finite
from topsideas.verdict import Verdict

SCHEMA_VERSION = 1

Json = dict[str, Any]


def document(
    *,
    mode: str,
    model: Model,
    plan_ids: Sequence[int],
    asked: Collection[int],
    verdict: Verdict,
    identity: Identity,
    options: Mapping[str, Any],
    statistics: Sequence[SampleStatistics],
    shown_ops: Collection[int],
    output_files: Mapping[str, str],
    notes: Sequence[str],
    search: SearchResult | None = None,
) -> Json:
    """Everything a run has to say, as strict JSON.

    Args:
        mode: ``auto`` or ``manual``.
        model: The model.
        plan_ids: The ops kept in fp32.
        asked: Those among them that the user asked for.
        verdict: The verdict on the plan.
        identity: The engine.
        options: What the run was asked for.
        statistics: Per sample; without ops when statistics were off.
        shown_ops: Ids that pass the filters.
        output_files: Files written, by role.
        notes: Lines the user should read.
        search: What auto mode found.
    """
    ops = {op.id: op for op in model.ops}
    result = {
        "schema_version": SCHEMA_VERSION,
        "topsideas_version": topsideas.__version__,
        "mode": mode,
        "verdict": "pass" if verdict.passed else "fail",
        **_verdict_fields(verdict),
        "fp32_nodes": sorted(plan_ids),
        "fp32_ops": [_op(ops[i], i in asked, search) for i in sorted(plan_ids)],
        "engine": identity.to_json(),
        "model": _model(model),
        "options": dict(options),
        "notes": list(notes),
        "output_files": dict(output_files),
        "model_outputs": [_outputs(s, options["margin"]) for s in statistics],
        "op_statistic": [_ops(s, ops, shown_ops) for s in statistics if s.ops],
        "samples": [s.sample for s in statistics],
    }
    return result | (_found(search, ops) if search is not None else {})


def _found(search: SearchResult, ops: Mapping[int, Op]) -> Json:
    found = {"cost": _cost(search.cost), "search": _search(search, ops)}
    return found | ({"pareto": _pareto(search.curve)} if search.curve is not None else {})


def _cost(cost: PlanCost) -> Json:
    return {
        "answer": cost.answer,
        "all_low": 0.0,
        "all_fp32": cost.all_fp32,
        "base": cost.floor,
        "unit": cost.unit,
        "measured": cost.measured,
    }


def _pareto(curve: Curve) -> list[Json]:
    return [
        {
            "size": len(point.items),
            "cost": point.cost,
            "margin": finite(point.verdict.margin),
            "passed": point.verdict.passed,
            "ops": sorted(point.items),
        }
        for point in curve.points
    ]


def _verdict_fields(verdict: Verdict) -> Json:
    fields = verdict.to_json()
    decided = {"sample": fields["sample"], "output": fields["output"], "note": fields["note"]}
    return {"margin": fields["margin"], "decided_by": decided}


def _op(op: Op, asked: bool, search: SearchResult | None) -> Json:
    described = {"id": op.id, "path": op.path, "name": op.name, "type": op.type, "asked": asked}
    if search is None:
        return described
    witness = search.witnesses.get(op.id)
    return described | {
        "overflows": op.id in search.overflowing,
        "felt_margin": finite(search.felt.get(op.id)),
        "witness": witness.to_json() if witness is not None else None,
        "cost": search.cost.shares.get(op.id, 0.0),
        "saves": op.id in search.cost.saving,
    }


def _model(model: Model) -> Json:
    return {
        "path": str(model.path) if model.path is not None else None,
        "sha256": model.digest,
        "opset": model.opset,
        "ops": len(model.ops),
        "candidates": len(model.candidates),
        "functions_inlined": model.inlined,
        "inputs": [str(v.name) for v in model.inputs()],
        "outputs": [str(v.name) for v in model.graph.outputs],
    }


def _ops(sample: SampleStatistics, ops: Mapping[int, Op], shown: Collection[int]) -> Json:
    return {
        str(op): {"id": op, "type": ops[op].type, "name": ops[op].name, "path": ops[op].path}
        | fields
        for op, fields in sorted(sample.ops.items())
        if op in shown
    }


def _outputs(sample: SampleStatistics, bound: float) -> Json:
    return {
        name: {pair: _comparison(c, bound) for pair, c in comparisons.items()}
        for name, comparisons in sample.outputs.items()
    }


def _comparison(comparison: Comparison, bound: float) -> Json:
    return {
        "result": "pass" if comparison.margin <= bound else "fail",
        "margin": finite(comparison.margin),
        "element_count": comparison.element_count,
        "exceed_tol_count": comparison.exceed_tol_count,
        "nan_count": comparison.nan_count,
        "inf_count": comparison.inf_count,
        "cos_sim_value": comparison.cos_sim_value,
        "norm_rel": comparison.norm_rel,
        "max_abs_err": comparison.max_abs_err,
        "max_rel_err": comparison.max_rel_err,
    }


def _search(search: SearchResult, ops: Mapping[int, Op]) -> Json:
    return {
        "evaluations": search.evaluations,
        "seconds": round(search.seconds, 3),
        "one_minimal": search.one_minimal,
        "stopped": search.stopped,
        "before": search.before.to_json(),
        "after": search.after.to_json(),
        "holdout": search.holdout.to_json() if search.holdout is not None else None,
        "refuted": search.refuted,
        "confirmed": search.confirmed,
        "pareto_evaluations": search.curve.evaluations if search.curve is not None else 0,
        "pareto_stopped": search.curve.stopped if search.curve is not None else "",
        "proposal": _proposal(search.proposal, ops) if search.proposal is not None else None,
        "overflowing": sorted(search.overflowing),
        "witnesses": [
            {"id": i, "name": ops[i].name, "type": ops[i].type, "path": ops[i].path, **w.to_json()}
            for i, w in sorted(search.witnesses.items())
        ],
        "trace": [
            {
                "phase": q.phase,
                "size": len(q.items),
                "passed": q.verdict.passed,
                "margin": finite(q.verdict.margin),
                "seconds": round(q.seconds, 3),
                "recalled": q.recalled,
            }
            for q in search.ledger
        ],
    }


def _proposal(proposal: Proposal, ops: Mapping[int, Op]) -> Json:
    return {
        "proposer": proposal.proposer.to_json(),
        "builds": proposal.builds,
        "evaluations": proposal.evaluations,
        "minimal": proposal.minimal,
        "habit": proposal.habit,
        "unlike": finite(proposal.unlike),
        "all_low": proposal.all_low.to_json(),
        "rounds": [
            {
                "why": r.why,
                "bound": r.bound,
                "size": len(r.kept),
                "emulated_margin": finite(r.emulated.margin),
                "margin": finite(r.verdict.margin),
                "ratio": r.ratio,
                "passed": r.verdict.passed,
                "note": r.verdict.note,
                "ops": sorted(r.kept),
            }
            for r in proposal.rounds
        ],
        "marked": [
            {"id": i, "name": ops[i].name, "type": ops[i].type, "how": how}
            for i, how in sorted(proposal.marked.items())
        ],
    }
