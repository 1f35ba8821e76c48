"""The evidence in a report: what was measured at every op, and why each kept one stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from topsideas.graph.ops import Op
from topsideas.report.causes import ENGLISH, cause_words
from topsideas.report.repairs import described

Json = dict[str, Any]

_NOT_TRACED: Json = {"reads": [], "range": None, "all_low": None, "plan": None}


def with_evidence(
    report: Json, ops: Sequence[Op], evidence: Json, repairs: Json | None = None
) -> Json:
    """A report with its evidence.

    Args:
        report: What :func:`topsideas.report.document.document` made.
        ops: Every op of the model.
        evidence: What :func:`topsideas.calibration.explain.evidence_of` found.
        repairs: What :func:`topsideas.calibration.explain.repairs_of` found.
    """
    measured = {row["id"]: row for row in evidence["ops"]}
    causes = {row["id"]: row for row in evidence["causes"]}
    types = {op.id: op.type for op in ops}
    low = evidence["format"]["name"]
    kept = [
        op | {"cause": _cause(op["id"], causes.get(op["id"]), types, low)}
        for op in report["fp32_ops"]
    ]
    shown = {key: value for key, value in evidence.items() if key != "causes"}
    shown["ops"] = [_named(op) | (measured.get(op.id) or _NOT_TRACED) for op in ops]
    told = {} if repairs is None else {"repairs": described(repairs)}
    return report | {"fp32_ops": kept, "evidence": shown} | told


def _cause(op: int, cause: Json | None, types: dict[int, str], low: str) -> Json | None:
    if cause is None:
        return None
    words = {key: value for key, value in cause.items() if key != "id"}
    return words | {"text": cause_words(op, cause, types, low, ENGLISH)}


def _named(op: Op) -> Json:
    return {
        "id": op.id,
        "type": op.type,
        "name": op.name,
        "path": op.path,
        "candidate": op.candidate,
        "reason": op.reason,
    }
