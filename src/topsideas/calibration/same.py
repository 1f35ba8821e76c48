"""Verdicts on plans that compute the same as one that was judged."""

from __future__ import annotations

from functools import lru_cache

from topsideas.engines.base import Canonical, Engine
from topsideas.plan import PrecisionPlan
from topsideas.verdict import Verdict

Items = frozenset[int]

# A plan is looked up and noted, and with workers looked ahead to again and again.
_ASKED_AGAIN = 256


class SamePlans:
    """Knows verdicts by what a plan computes: an op may make no difference beside others.

    Args:
        engine: Tells which plans compute the same, if it can.
        fused: Whether plans must also hold where low ops are fused; what is the same otherwise
            is not the same there.
    """

    def __init__(self, engine: Engine, *, fused: bool) -> None:
        self._engine = engine if isinstance(engine, Canonical) else None
        self._fused = fused
        self._key = lru_cache(_ASKED_AGAIN)(self._canonical)
        self._verdicts: dict[Items, Verdict] = {}

    def note(self, kept: Items, verdict: Verdict) -> None:
        """Remember a verdict. One that another execution gave is about that plan alone."""
        if self._engine is not None and not verdict.note and not (verdict.passed and self._fused):
            self._verdicts[self._key(kept)] = verdict

    def verdict(self, kept: Items, *, strict: bool) -> Verdict | None:
        """The verdict on a plan that computes the same.

        Args:
            kept: The plan.
            strict: Whether it must also pass in a second execution, which only failing tells.
        """
        if self._engine is None:
            return None
        known = self._verdicts.get(self._key(kept))
        return None if known is None or (known.passed and strict) else known

    def _canonical(self, kept: Items) -> Items:
        assert self._engine is not None
        return self._engine.canonical(PrecisionPlan(kept)).kept
