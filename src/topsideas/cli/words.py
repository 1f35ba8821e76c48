"""The command to run next, built from the one that was typed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any


def next_command(words: Sequence[str], target: str, report: dict[str, Any]) -> str:
    """What to try next, as a line to paste; empty if there is nothing left to do.

    Args:
        words: The command line as typed, without the program's name.
        target: ``gcu`` or ``onnx``.
        report: The report of this run.
    """
    if "deploy_model" in report["output_files"]:
        return ""
    kept = report["fp32_nodes"]
    rest = _without(
        words[2:], {"--fp32_nodes": True, "--mode": True, "--manual": False}, {"--clean"}
    )
    if report["verdict"] == "pass":
        return _line(target, rest, ["--manual", *_nodes(kept), "--finalize"])
    if report["mode"] == "auto":
        return _line(target, rest, ["--manual", *_nodes(kept), "--mode", "RAW"])
    overflowing = [i for i in overflowing_ops(report) if i not in kept]
    if overflowing:
        wanted = sorted({*kept, *overflowing})
        return _line(target, rest, ["--manual", *_nodes(wanted), "--mode", "CALC"])
    return _line(target, rest, _nodes(kept))


def overflowing_ops(report: dict[str, Any]) -> list[int]:
    """Ops that clipped what they wrote or read in the low run, on any sample."""
    found = set()
    for sample in report["op_statistic"]:
        for op in sample.values():
            written = any(output.get("fp16_clip_ratio") for output in op["outputs"])
            if written or op.get("fp16_input_clip_ratio"):
                found.add(op["id"])
    return sorted(found)


def _nodes(kept: Sequence[int]) -> list[str]:
    return ["--fp32_nodes", *map(str, kept)] if kept else []


def _without(words: Sequence[str], valued: dict[str, bool], plain: set[str]) -> list[str]:
    """``words`` less some flags and, where those take values, the values."""
    kept: list[str] = []
    dropping = False
    for word in words:
        if word.startswith("--"):
            flag, _, inline = word.partition("=")
            dropping = valued.get(flag, False) and not inline
            if flag not in valued and flag not in plain:
                kept.append(word)
        elif not dropping:
            kept.append(word)
    return kept


def _line(target: str, rest: Sequence[str], added: Sequence[str]) -> str:
    return shlex.join(["topsideas", target, "mix_precision", *rest, *added])
