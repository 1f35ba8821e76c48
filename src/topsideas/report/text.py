"""How numbers and names are written for people."""

from __future__ import annotations


def number(value: float | None, missing: str = "-") -> str:
    """Four significant digits; ``missing`` for None."""
    return missing if value is None else f"{value:.4g}"


def share(value: float) -> str:
    """A share as a percentage that never rounds something to nothing."""
    if value == 0:
        return "0"
    return f"{100 * value:.2g} %" if value >= 1e-4 else "<0.01 %"


def count(part: int, whole: int) -> str:
    """``12 of 400``."""
    return f"{part} of {whole}"


def printable(text: str) -> str:
    """Names come from files: control characters must not reach the terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
