"""The emulator under the numbers of an engine that numbers its compiled graph's ops itself."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from topsideas.engines.base import (
    Blocks,
    Capabilities,
    Engine,
    Executable,
    Identity,
    Once,
    Runnable,
)
from topsideas.graph.ops import Op
from topsideas.plan import PrecisionPlan

# Below this share of ops that are recognised, what the emulator says of a plan is worth little.
_ENOUGH = 0.8


def correspondence(
    theirs: Collection[Op], ours: Collection[Op]
) -> dict[int, frozenset[int]] | None:
    """For each op of an engine, the ops of the model that bear its name; None if too few do.

    Names that are empty or that several ops of the model bear tell nothing.
    """
    names = Counter(op.name for op in ours if op.name)
    known = {op.name: op.id for op in ours if names[op.name] == 1}
    found: dict[int, frozenset[int]] = {}
    candidates = [op for op in theirs if op.candidate]
    for op in candidates:
        if op.name in known:
            found[op.id] = frozenset({known[op.name]})
    return found if candidates and len(found) >= _ENOUGH * len(candidates) else None


class Renumbered:
    """Runs plans that are made of an engine's own ids.

    Args:
        inner: The emulator.
        model_candidates: What may run low there.
        same: For each id of the engine, the ops of the model that it stands for. Several ids may
            stand for one op, which is kept if one of them is.
    """

    def __init__(
        self,
        inner: Engine,
        model_candidates: frozenset[int],
        same: Mapping[int, frozenset[int]],
    ) -> None:
        self._inner, self._same = inner, same
        # Ops that no id stands for cannot be kept, and the compiler runs them as it likes: low.
        # They are fp32 only where everything is.
        self._all = frozenset(same)
        self._candidates = model_candidates

    def identity(self) -> Identity:
        """The emulator's."""
        return self._inner.identity()

    def capabilities(self) -> Capabilities:
        """The emulator's."""
        return self._inner.capabilities()

    def compile(self, plan: PrecisionPlan) -> Any:
        """The plan on the emulator, seen with the engine's ids."""
        if plan.kept >= self._all:
            kept = self._candidates
        else:
            kept = frozenset().union(*(self._same.get(op, frozenset()) for op in plan.kept))
        return _Executable(self._inner.compile(PrecisionPlan(kept)), self._theirs())

    def blocks(self) -> list[frozenset[int]]:
        """The emulator's blocks, by the engine's ids."""
        if not isinstance(self._inner, Blocks):
            return [self._all]
        theirs = self._theirs()
        ours = self._inner.blocks()
        return [frozenset(n for op in block for n in theirs.get(op, ())) for block in ours]

    def _theirs(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = defaultdict(list)
        for number, ops in sorted(self._same.items()):
            for op in ops:
                found[op].append(number)
        return found

    def load(self, path: Path) -> Runnable:
        """Open an executable of the emulator."""
        return self._inner.load(path)


class _Executable:
    """An executable of the emulator whose trace bears the engine's ids."""

    def __init__(self, inner: Executable, theirs: Mapping[int, list[int]]) -> None:
        self._inner, self._theirs = inner, theirs

    def run(self, feeds: Any) -> dict[str, Any]:
        return self._inner.run(feeds)

    def trace(self, feeds: Any) -> Any:
        return _Trace(self._inner.trace(feeds), self._theirs)

    def once(self) -> Runnable:
        return self._inner.once() if isinstance(self._inner, Once) else self._inner

    def save(self, path: Path) -> None:
        self._inner.save(path)

    def dump(self, path: Path) -> None:
        self._inner.dump(path)


class _Trace:
    def __init__(self, inner: Any, theirs: Mapping[int, list[int]]) -> None:
        self._inner, self._theirs = inner, theirs

    @property
    def outputs(self) -> dict[str, Any]:
        found: dict[str, Any] = self._inner.outputs
        return found

    def __iter__(self) -> Any:
        for record in self._inner:
            for number in self._theirs.get(record.id, ()):
                yield replace(record, id=number)
