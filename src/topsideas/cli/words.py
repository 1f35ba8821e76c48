"""The command to run next, built from the one that was typed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

_ABOUT_SEARCH = {"--max_evaluations": True, "--time_limit": True}
_CHOSEN_ANEW = {"--fp32_nodes": True, "--mode": True, "--manual": False, "--clean": False}
_WORKERS = {"--ray_address": True, "--workers": True, "--worker_resources": True}
_OF_A_SEARCH = {"--objective": True, "--pareto": False, **_WORKERS}

# More ids than this are passed by naming the report.
_MAX_IDS = 20


def next_step(words: Sequence[str], target: str, report: dict[str, Any]) -> tuple[str, str]:
    """What to try next: a line to paste, and why; both empty if there is nothing left to do.

    Args:
        words: The command line as typed, without the program's name.
        target: ``gcu`` or ``onnx``.
        report: The report of this run.
    """
    if (report.get("search") or {}).get("stopped"):
        same = _without(words[2:], _ABOUT_SEARCH | {"--clean": False})
        return _line(target, same), "to search on from where this run stopped"
    rest = _without(words[2:], _CHOSEN_ANEW)
    kept = _nodes(report["fp32_nodes"], report["options"].get("output_json"))
    if report["verdict"] == "pass":
        if "deploy_model" in report["output_files"]:
            return "", ""
        line = _line(target, _without(rest, _OF_A_SEARCH), "--manual", *kept, "--finalize")
        return line, "to write the model to deploy"
    rest = _without(rest, {"--finalize": False})
    if report["mode"] == "auto":
        rest = _without(rest, _OF_A_SEARCH)
        raw = _line(target, rest, "--manual", *kept, "--mode", "RAW")
        return raw, "to see where the answer is off"
    return _next_manual(target, rest, report)


def _next_manual(target: str, rest: list[str], report: dict[str, Any]) -> tuple[str, str]:
    chosen = report["fp32_nodes"]
    overflowing = [i for i in overflowing_ops(report) if i not in chosen]
    if overflowing:
        wanted = [str(i) for i in sorted({*chosen, *overflowing})]
        line = _line(target, rest, "--manual", "--fp32_nodes", *wanted, "--mode", "CALC")
        return line, "to keep what overflows in fp32"
    kept = _nodes(chosen, None)
    if report["op_statistic"] and report["options"]["mode"] == "CALC":
        line = _line(target, rest, "--manual", *kept, "--mode", "RAW")
        return line, "nothing overflows: to compare element by element"
    return _line(target, rest, *kept), "to let the search find the ops"


def overflowing_ops(report: dict[str, Any]) -> list[int]:
    """Ops that clipped what they wrote or read in the low run, on any sample."""
    found = set()
    for sample in report["op_statistic"]:
        for op in sample.values():
            written = any(output.get("fp16_clip_ratio") for output in op["outputs"])
            if written or op.get("fp16_input_clip_ratio"):
                found.add(op["id"])
    return sorted(found)


def _nodes(kept: Sequence[int], report: str | None) -> list[str]:
    if report is not None and len(kept) > _MAX_IDS:
        return ["--fp32_nodes", f"@{report}"]
    return ["--fp32_nodes", *map(str, kept)] if kept else []


def _without(words: Sequence[str], dropped: dict[str, bool]) -> list[str]:
    """``words`` less the flags in ``dropped``; those that map to True lose their values too."""
    kept: list[str] = []
    dropping = False
    for word in words:
        if word.startswith("--"):
            flag, _, inline = word.partition("=")
            dropping = dropped.get(flag, False) and not inline
            if flag not in dropped:
                kept.append(word)
        elif not dropping:
            kept.append(word)
    return kept


def _line(target: str, rest: Sequence[str], *added: str) -> str:
    return shlex.join(["topsideas", target, "mix_precision", *rest, *added])
