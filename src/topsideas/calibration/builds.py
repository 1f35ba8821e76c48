"""An engine whose builds are dear: each plan is compiled once, and the last few are kept."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from topsideas.engines.base import Capabilities, Engine, Executable, Identity, Runnable
from topsideas.plan import PrecisionPlan

# A plan is judged, read back, traced and, if it is the answer, judged again on held-out samples.
_KEPT = 3


class CountedEngine:
    """Remembers executables.

    Args:
        inner: The engine.
    """

    def __init__(self, inner: Engine) -> None:
        self._inner = inner
        for name in ("ops", "finalize"):  # what only some engines have, and are known by
            if hasattr(inner, name):
                setattr(self, name, getattr(inner, name))
        self._made: OrderedDict[frozenset[int], Executable] = OrderedDict()

    def identity(self) -> Identity:
        """The engine's."""
        return self._inner.identity()

    def capabilities(self) -> Capabilities:
        """The engine's."""
        return self._inner.capabilities()

    def compile(self, plan: PrecisionPlan) -> Executable:
        """The executable of a plan, the same one if it was among the last. Raises EngineError."""
        if plan.kept not in self._made:
            self._made[plan.kept] = self._inner.compile(plan)
            if len(self._made) > _KEPT:
                self._made.popitem(last=False)
        self._made.move_to_end(plan.kept)
        return self._made[plan.kept]

    def load(self, path: Path) -> Runnable:
        """Open a saved executable. Raises EngineError."""
        return self._inner.load(path)
