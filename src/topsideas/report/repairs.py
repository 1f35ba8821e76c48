"""Repairs that were verified, in words."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from topsideas.report.text import change, number, ops_in_fp32

Json = dict[str, Any]


@cache
def repair_words() -> dict[str, dict[str, str]]:
    """By kind and language what is done."""
    text = files("topsideas.report").joinpath("repairs.json").read_text(encoding="utf-8")
    words: dict[str, dict[str, str]] = json.loads(text)
    return words


def described(repairs: Json) -> Json:
    """The repairs of a run with a sentence each."""
    return {
        "tried": repairs["tried"],
        "found": [r | {"text": repair_words()[r["kind"]]["en"]} for r in repairs["found"]],
    }


def repair_lines(report: Json) -> list[str]:
    """A line per repair; one that says so where none passed; none where none was sought."""
    repairs = report.get("repairs")
    if repairs is None:
        return []
    if not repairs["found"]:
        tried = repairs["tried"]
        return [f"none: {tried} tried, none passed every sample at a lower cost"] if tried else []
    return [_line(repair) for repair in repairs["found"]]


def _line(repair: Json) -> str:
    ops = ", ".join(map(str, repair["frees"][:8])) + (", ..." if len(repair["frees"]) > 8 else "")
    # A validator tells no margin.
    margin = repair["verdict"]["margin"]
    passed = "passes" if margin is None else f"margin {number(margin)}"
    where = f": {repair['model']}" if repair["model"] is not None else ""
    return (
        f"op {ops}: {repair['text']} ({'; '.join(repair['changes'])}): {passed} on every sample, "
        f"{ops_in_fp32(repair['size'])} left, cost {change(repair['cost'], 1.0)}{where}"
    )
