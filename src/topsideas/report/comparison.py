"""What differs between two reports: of engine versions, of tolerances, of models."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

Json = dict[str, Any]

# What a run depends on: where it stands in a report, and under which keys.
_SETUP = {
    "model": ("sha256", "opset", "ops", "candidates"),
    "engine": (),  # all of it: other engines tell other things
    "options": (
        "precision", "overflow", "compile_options", "resource_mode", "rtol", "atol", "ntol",
        "cos_sim", "margin", "val_func", "val_scope", "holdout", "objective", "propose",
    ),
}  # fmt: skip
# Of a sample's outputs, and of an op: the figures that two runs are compared by.
_PAIR = "fp16_golden"
_STATISTICS = (
    "fp16_clip_ratio", "fp32_clip_ratio", "fp16_input_clip_ratio", "fp16_check_nan",
    "fp32_check_nan", "exceed_tol_count", "fp16_nan_count", "fp16_inf_count",
)  # fmt: skip
# A largest magnitude that changed by more than this factor is another range.
_RANGE = 2.0


def compare_reports(left: Json, right: Json) -> Json:
    """Both reports side by side, as strict JSON.

    Ops correspond by their ids where the model is the same, else by their names, as far as a
    name is borne by one op only.
    """
    same_model = left["model"]["sha256"] == right["model"]["sha256"]
    same_ids = same_model and _numbering(left) == _numbering(right)
    ops = _correspondence(left, right, same_ids=same_ids)
    return {
        "schema_version": 1,
        "same_model": same_model,
        "matched_by": "id" if same_ids else "name",
        "setup": list(_setup(left, right)),
        "verdict": {"left": _verdict(left), "right": _verdict(right)},
        "plan": _plan(left, right, ops),
        "margins": list(_margins(left, right)),
        "statistics": list(_statistics(left, right, ops)),
        "search": _search(left, right),
        "differs": _differs(left, right, ops),
    }


def _numbering(report: Json) -> Any:
    return report["engine"].get("numbering")


def _setup(left: Json, right: Json) -> Iterator[Json]:
    yield from _changed("", "topsideas_version", left, right)
    yield from _changed("", "mode", left, right)
    for part, keys in _SETUP.items():
        for key in keys or sorted({*left[part], *right[part]}):
            yield from _changed(part, key, left[part], right[part])
    yield from _changed("", "samples", left, right)


def _changed(part: str, key: str, left: Json, right: Json) -> Iterator[Json]:
    a, b = left.get(key), right.get(key)
    if a != b:
        yield {"what": f"{part}.{key}".strip("."), "left": a, "right": b}


def _verdict(report: Json) -> Json:
    return {
        "verdict": report["verdict"],
        "margin": report["margin"],
        "bound": report["options"]["margin"],
        "note": report["decided_by"]["note"],
        "size": len(report["fp32_nodes"]),
    }


_Pairs = dict[str, tuple[int | None, int | None]]


def _ops(report: Json) -> dict[int, Json]:
    """Every op that a report tells of."""
    found: dict[int, Json] = {}
    for sample in report["op_statistic"]:
        found |= {op["id"]: op for op in sample.values()}
    found |= {op["id"]: op for op in report["fp32_ops"]}
    return found | {op["id"]: op for op in report.get("evidence", {}).get("ops", ())}


def _correspondence(left: Json, right: Json, *, same_ids: bool) -> _Pairs:
    """Which op of the one is which of the other, under a key that both know."""
    sides = [_keys(_ops(report), same_ids=same_ids) for report in (left, right)]
    keys = dict.fromkeys([*sides[0], *sides[1]])
    return {key: (sides[0].get(key), sides[1].get(key)) for key in keys}


def _keys(ops: Mapping[int, Json], *, same_ids: bool) -> dict[str, int]:
    if same_ids:
        return {str(i): i for i in sorted(ops)}
    names = Counter(op["name"] for op in ops.values())
    return {
        op["name"] if op["name"] and names[op["name"]] == 1 else op["path"]: i
        for i, op in sorted(ops.items())
    }


def _plan(left: Json, right: Json, pairs: _Pairs) -> Json:
    kept = [{op["id"]: op for op in report["fp32_ops"]} for report in (left, right)]
    rows: dict[str, list[Json]] = {"both": [], "left": [], "right": []}
    for a, b in pairs.values():
        one, other = (kept[0].get(a) if a is not None else None), None
        other = kept[1].get(b) if b is not None else None
        if one or other:
            where = "both" if one and other else "left" if one else "right"
            rows[where].append(_kept(one, other))
    return rows


def _kept(left: Json | None, right: Json | None) -> Json:
    op = left or right or {}
    causes = [((side or {}).get("cause") or {}).get("cause") for side in (left, right)]
    return {
        "left_id": left["id"] if left else None,
        "right_id": right["id"] if right else None,
        "type": op["type"],
        "name": op["name"] or op["path"],
        "left_cause": causes[0],
        "right_cause": causes[1],
    }


def _margins(left: Json, right: Json) -> Iterator[Json]:
    """The margins of the outputs that both have, the largest change first."""
    sides = [_by_sample(report) for report in (left, right)]
    rows = [
        {"sample": key[0], "output": key[1], "left": margin, "right": sides[1][key]}
        for key, margin in sides[0].items()
        if key in sides[1] and sides[1][key] != margin
    ]
    yield from sorted(rows, key=lambda row: (-_distance(row), row["sample"], row["output"]))


def _by_sample(report: Json) -> dict[tuple[int, str], float | None]:
    samples = zip(report["samples"], report["model_outputs"], strict=True)
    return {
        (sample, name): pairs[_PAIR]["margin"]
        for sample, outputs in samples
        for name, pairs in outputs.items()
    }


def _distance(row: Json) -> float:
    left, right = (math.inf if row[side] is None else row[side] for side in ("left", "right"))
    return math.inf if math.isinf(left) != math.isinf(right) else abs(left - right)


def _statistics(left: Json, right: Json, pairs: _Pairs) -> Iterator[Json]:
    """What is counted at an op in the one and not in the other, and ranges that moved."""
    figures = [_figures(report) for report in (left, right)]
    described = [_ops(left), _ops(right)]
    for a, b in pairs.values():
        if a is None or b is None:
            continue
        one, other = figures[0].get(a, {}), figures[1].get(b, {})
        for key in sorted(one.keys() & other.keys()):
            if _is_another(key, one[key], other[key]):
                op = described[0][a]
                yield {
                    "left_id": a,
                    "right_id": b,
                    "type": op["type"],
                    "name": op["name"] or op["path"],
                    "what": key,
                    "left": one[key],
                    "right": other[key],
                }


def _figures(report: Json) -> dict[int, dict[str, float]]:
    """By op the largest of each figure, over samples and outputs."""
    found: dict[int, dict[str, float]] = {}
    for sample in report["op_statistic"]:
        for op in sample.values():
            row = found.setdefault(op["id"], {})
            for key in _STATISTICS:
                values = [v for part in (op, *op["outputs"]) if (v := part.get(key)) is not None]
                if values:
                    row[key] = max(row.get(key, 0.0), *map(float, values))
    for op in report.get("evidence", {}).get("ops", ()):
        if op["range"] is not None and op["range"]["most"] is not None:
            found.setdefault(op["id"], {})["largest"] = op["range"]["most"]
    return found


def _is_another(key: str, left: float, right: float) -> bool:
    if key == "largest":
        return max(left, right) > _RANGE * min(left, right)
    # A few elements more or less are noise; some or none are not.
    return bool(left) != bool(right)


def _search(left: Json, right: Json) -> Json | None:
    sides = [report.get("search") for report in (left, right)]
    if sides[0] is None or sides[1] is None:
        return None
    keys = ("evaluations", "seconds", "one_minimal", "stopped", "confirmed")
    return {key: {"left": sides[0][key], "right": sides[1][key]} for key in keys}


def _differs(left: Json, right: Json, pairs: _Pairs) -> list[str]:
    """What decides the exit code: ``verdict``, ``plan``, ``model``; empty if nothing does."""
    plan = _plan(left, right, pairs)
    found = ["verdict"] if left["verdict"] != right["verdict"] else []
    found += ["plan"] if plan["left"] or plan["right"] else []
    return found
