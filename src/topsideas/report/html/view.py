"""What the page shows, gathered from a report: small, by column, with words in both languages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from topsideas.report.causes import LANGUAGES, cause_name, cause_words
from topsideas.report.repairs import repair_words
from topsideas.report.text import printable

Json = dict[str, Any]

# Digits that a chart and a table can show.
_DIGITS = 4


def view(report: Json) -> Json:
    """What the page is made from. Text that would turn or hide other text is shown as escapes.

    Args:
        report: A report, as :func:`topsideas.report.reading.read_whole` returned it.
    """
    shown: Json = _readable(_gathered(report))
    return shown


def _readable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(key): _readable(inner) for key, inner in value.items()}
    return [_readable(inner) for inner in value] if isinstance(value, list) else value


def _gathered(report: Json) -> Json:
    evidence = report.get("evidence")
    ops = _ops(report, evidence)
    types = {op["id"]: op["type"] for op in ops}
    return {
        "verdict": report["verdict"],
        "mode": report["mode"],
        "margin": report["margin"],
        "decided": report["decided_by"],
        "next": {"command": report["next_command"], "reason": report["next_reason"]},
        "notes": report["notes"],
        "version": report["topsideas_version"],
        "engine": report["engine"],
        "model": report["model"],
        "files": report["output_files"],
        "options": report["options"],
        "cost": report.get("cost"),
        "search": _search(report.get("search")),
        "pareto": report.get("pareto"),
        "format": evidence["format"] if evidence else None,
        "traced": _traced(evidence),
        "kept": [_kept(op, types, evidence) for op in report["fp32_ops"]],
        "ops": _columns(ops),
        "margins": _margins(report, evidence),
        "repairs": _repairs(report.get("repairs")),
    }


def _traced(evidence: Json | None) -> Json | None:
    if evidence is None:
        return None
    return {key: evidence[key] for key in ("sample", "samples", "engine")}


def _repairs(repairs: Json | None) -> Json | None:
    if repairs is None:
        return None
    found = [repair | {"text": repair_words()[repair["kind"]]} for repair in repairs["found"]]
    return {"tried": repairs["tried"], "found": found}


def _search(search: Json | None) -> Json | None:
    if search is None:
        return None
    columns = ("phase", "size", "passed", "margin", "seconds", "recalled")
    shown = ("evaluations", "seconds", "one_minimal", "stopped", "confirmed", "before", "holdout")
    trace = {name: [_short(q[name]) for q in search["trace"]] for name in columns}
    return {key: search[key] for key in shown} | {"trace": trace}


def _kept(op: Json, types: Mapping[int, str], evidence: Json | None) -> Json:
    shown = {key: value for key, value in op.items() if key != "cause"}
    cause = op.get("cause")
    if cause is None or evidence is None:
        return shown | {"cause": None}
    low = evidence["format"]["name"]
    return shown | {
        "cause": {
            "kind": cause["cause"],
            "born": cause["born"]["op"],
            "shows": cause["shows"]["op"] if cause["shows"] else None,
            "name": {lang: cause_name(cause["cause"], lang) for lang in LANGUAGES},
            "text": {lang: cause_words(op["id"], cause, types, low, lang) for lang in LANGUAGES},
        }
    }


def _ops(report: Json, evidence: Json | None) -> list[Json]:
    """A row per op: of the evidence, else of the statistics, else of the kept ops."""
    statistics = _statistics(report["op_statistic"])
    kept = {op["id"]: op for op in report["fp32_ops"]}
    known = {op["id"]: op for op in (evidence["ops"] if evidence else ())}
    rows = []
    for number in sorted({*statistics, *kept, *known}):
        described = known.get(number) or statistics.get(number) or kept[number]
        marks = statistics.get(number, {}).get("marks", 0)
        rows.append(_row(described, marks, kept.get(number)))
    return rows


def _row(op: Json, marks: int, kept: Json | None) -> Json:
    spread, low, plan = (op.get(key) or {} for key in ("range", "all_low", "plan"))
    over = _OVERFLOW if spread.get("over") else 0
    broken = _BROKEN if low.get("broken") else 0
    return {
        "id": op["id"],
        "type": op["type"],
        "name": op["name"],
        "path": op["path"],
        "state": 2 if kept is not None else int(op.get("candidate", True)),
        "reason": op.get("reason", ""),
        "marks": marks | over | broken,
        "felt": _short((kept or {}).get("felt_margin")),
        "reads": op.get("reads", []),
        **{key: _short(spread.get(key)) for key in _OF_RANGE},
        "low_error": _short(low.get("error")),
        "low_broken": low.get("broken"),
        "plan_error": _short(plan.get("error")),
        "plan_broken": plan.get("broken"),
    }


_OF_RANGE = ("most", "high", "middle", "low", "least", "zero", "over", "subnormal", "vanishing")

# Bits of ``marks``.
_OVERFLOW, _BROKEN = 1, 2


def _statistics(samples: list[Json]) -> dict[int, Json]:
    """Each op with its marks over all samples."""
    found: dict[int, Json] = {}
    for sample in samples:
        for op in sample.values():
            row = found.setdefault(op["id"], op | {"marks": 0})
            row["marks"] |= _marks(op)
    return found


def _marks(op: Json) -> int:
    outputs = op["outputs"]
    over = any(o.get("fp16_clip_ratio") or o.get("fp32_clip_ratio") for o in outputs)
    over = over or bool(op.get("fp16_input_clip_ratio"))
    broken = any(
        o.get("fp16_check_nan") or o.get("fp16_nan_count") or o.get("fp16_inf_count")
        for o in outputs
    )
    return _OVERFLOW * over | _BROKEN * broken


def _columns(rows: list[Json]) -> Json:
    """By column; operators and reasons, which repeat, as an index into a list."""
    columns = {key: [row[key] for row in rows] for key in (rows[0] if rows else ())}
    for key in ("type", "reason"):
        names = sorted(set(columns.get(key, ())))
        place = {name: index for index, name in enumerate(names)}
        columns[f"{key}s"] = names
        columns[key] = [place[name] for name in columns.get(key, ())]
    return columns


def _margins(report: Json, evidence: Json | None) -> Json:
    """Per sample and output the margins of the plan, of fp32 and of all low."""
    rows: Json = {"sample": [], "output": [], "plan": [], "fp32": [], "low": [], "passed": []}
    low = evidence["all_low_margins"] if evidence else [{}] * len(report["samples"])
    outputs = sorted({name for sample in report["model_outputs"] for name in sample})
    samples = zip(report["samples"], report["model_outputs"], low, strict=False)
    for number, comparisons, margins in samples:
        for name, pairs in comparisons.items():
            rows["sample"].append(number)
            rows["output"].append(outputs.index(name))
            rows["plan"].append(_short(pairs["fp16_golden"]["margin"]))
            rows["fp32"].append(_short(pairs["fp32_golden"]["margin"]))
            rows["passed"].append(pairs["fp16_golden"]["result"] == "pass")
            rows["low"].append(_short(margins[name]) if name in margins else -1)
    return rows | {"outputs": outputs}


def _short(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
