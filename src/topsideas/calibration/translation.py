"""What a verdict by one tolerance says about another one.

A margin is the largest ``|d| / (atol + rtol |ref|)``. If both tolerances change by one factor, it
changes by its inverse; if by different ones, it is at least what the larger one makes of it. So
most plans need not run again when a tolerance is changed: what failed by far still fails, what
passed with room still passes. Where that does not follow, nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from topsideas.verdict import Verdict

Rule = Mapping[str, Any]

# What is translated; see :mod:`topsideas.calibration.journal`.
TRANSLATED = {"verdict", "strict", "confirm", "full"}
# Of the bound: so close to it nothing is said, since division rounds.
_CLOSE = 1e-9
# Tolerances below the smallest normal float32 divide into infinities and coarse subnormals.
_SMALLEST = 2.0**-126


def translated(kind: str, value: Any, old: Rule, new: Rule) -> Any | None:
    """A record of one rule as one of another rule, or None.

    Args:
        kind: One of ``TRANSLATED``.
        value: The record, as JSON: a verdict, or one per sample for ``full``.
        old: The rule it was made by.
        new: The rule asked about; see ``Settings.judging``.
    """
    factors = _factors(old, new)
    if factors is None:
        return None
    verdicts = value if kind == "full" else [value]
    found = [_verdict(kind, Verdict.from_json(v), factors, new["margin"]) for v in verdicts]
    known = [verdict.to_json() for verdict in found if verdict is not None]
    if len(known) < len(found):
        return None
    return known if kind == "full" else known[0]


def _verdict(
    kind: str, verdict: Verdict, factors: tuple[float, float], bound: float
) -> Verdict | None:
    least, most = factors
    exact = most - least <= _CLOSE**2 * most
    if verdict.margin is None or (kind == "full" and not exact):
        return None
    margin = verdict.margin / most
    if not verdict.passed and kind != "full":
        # By the full tolerance: below the bound a plan may have failed for another reason.
        return replace(verdict, margin=margin) if margin > 1 + _CLOSE else None
    if abs(margin - bound) <= _CLOSE * bound:
        return None
    if margin > bound:
        return replace(verdict, passed=False, margin=margin)
    # Passes that more than one execution had to agree to: the margins of the others are not known.
    several = kind == "strict" or (kind == "verdict" and bound < 1)
    if not exact or (several and most < 1):
        return None
    return replace(verdict, passed=True, margin=margin)


def _factors(old: Rule, new: Rule) -> tuple[float, float] | None:
    """The least and the largest factor by which tolerances grew; None if more has changed."""
    names = ("margin", "validator", "ntol")
    if any(old.get(n) != new.get(n) for n in names) or new.get("validator") is not None:
        return None
    pairs = [(old.get(n), new.get(n)) for n in ("rtol", "atol")]
    if any(before is None or now is None for before, now in pairs):
        return None  # another criterion
    if any(0 < (tolerance or 0) < _SMALLEST for pair in pairs for tolerance in pair):
        return None
    factors = [now / before for before, now in pairs if before and now]
    if not factors or any(bool(before) != bool(now) for before, now in pairs):
        return None
    return min(factors), max(factors)
