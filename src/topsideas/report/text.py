"""How numbers and names are written for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# Sums of products of equal vectors differ from 1 by this much.
_NOISE = 1e-9


def number(value: float | None, missing: str = "-") -> str:
    """Four significant digits; ``missing`` for None."""
    return missing if value is None else f"{value:.4g}"


def margin_of(comparison: Mapping[str, Any]) -> str:
    """The margin of two outputs, or why there is none: integers are equal or they are not."""
    strange = comparison["nan_count"] + comparison["inf_count"] > 0
    return number(comparison["margin"], "not finite" if strange else "not equal")


def share(value: float) -> str:
    """A share as a percentage that never rounds something to nothing."""
    if value == 0:
        return "0"
    if value < 1e-4:
        return "<0.01 %"
    return f"{100 * value:.0f} %" if value >= 0.1 else f"{100 * value:.2g} %"


def similarity(value: float | None) -> str:
    """A cosine with as many nines as it has, up to six: 1 means 1."""
    if value is None or value < 0.99 or 1 - value < _NOISE:
        return number(value)
    digits = min(6, 2 - math.floor(math.log10(1 - value)))
    return f"{math.floor(value * 10**digits) / 10**digits:.{digits}f}"


def change(part: float, whole: float) -> str:
    """``part`` of ``whole`` as a percentage, with its sign."""
    if not whole:
        return number(part)
    sign = "-" if part < 0 else "+"
    return "0" if part == 0 else f"{sign}{share(abs(part) / whole)}"


def count(part: int, whole: int) -> str:
    """``12 of 400``."""
    return f"{part} of {whole}"


def printable(text: str) -> str:
    """Names come from files: control characters must not reach the terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def ops_in_fp32(count: int) -> str:
    """A plan's size in words."""
    return f"{count} op{'' if count == 1 else 's'} in fp32"
