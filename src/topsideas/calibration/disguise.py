"""The emulator made to behave like an engine in the ways that the engine was seen to have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from topsideas.engines.base import Blocks, Capabilities, Engine, Executable, Identity, Runnable
from topsideas.plan import PrecisionPlan


class Disguised:
    """Runs ops in the precision that the engine gives them, whatever the plan says.

    A compiler that fuses an activation into a kept convolution runs it in fp32; one that folds a
    kept op into a low neighbour does not keep it. Both are read back from a build.

    Args:
        inner: The emulator.
    """

    def __init__(self, inner: Engine) -> None:
        self._inner = inner
        self._low: frozenset[int] = frozenset()
        self._fp32: frozenset[int] = frozenset()
        self._forgot = False
        if isinstance(inner, Blocks):  # what has no blocks must not look as if it had
            self.blocks: Callable[[], Sequence[frozenset[int]]] = inner.blocks

    def learn(self, *, low: frozenset[int], fp32: frozenset[int]) -> None:
        """Ops that ran low although the plan keeps them, and the other way round."""
        if self._forgot:
            return
        self._low = (self._low | low) - fp32
        self._fp32 = (self._fp32 | fp32) - low

    def forget(self) -> None:
        """Behave like the plain emulator again."""
        self._low = self._fp32 = frozenset()
        self._forgot = True  # it was misled once; it would be again

    def to_json(self) -> dict[str, Any]:
        """What was learned, for cache keys; empty before."""
        if not self._low and not self._fp32:
            return {}
        return {"always_low": sorted(self._low), "always_fp32": sorted(self._fp32)}

    def identity(self) -> Identity:
        """The emulator's."""
        return self._inner.identity()

    def capabilities(self) -> Capabilities:
        """The emulator's."""
        return self._inner.capabilities()

    def compile(self, plan: PrecisionPlan) -> Executable:
        """The plan as the engine would understand it."""
        return self._inner.compile(self.meant(plan))

    def meant(self, plan: PrecisionPlan) -> PrecisionPlan:
        """What the engine makes of a plan."""
        return PrecisionPlan((plan.kept - self._low) | self._fp32)

    def load(self, path: Path) -> Runnable:
        """Open an executable of the emulator."""
        return self._inner.load(path)
