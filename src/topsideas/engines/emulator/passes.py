"""Passes over the graph that were walked, so that the next one walks only what differs."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from threading import Lock

import onnx_ir as ir

from topsideas.engines.emulator.steps import Block
from topsideas.engines.emulator.store import Key

Env = dict[ir.Value, Key]

# Entries of all remembered passes together: one per value and pass, about 100 bytes each.
_MAX_ENTRIES = 1_000_000


@dataclass(frozen=True, slots=True)
class Pass:
    """One walk: which ops ran low, and the content of every value it computed."""

    low: frozenset[int]
    env: Env


class Passes:
    """The latest passes by sample.

    Args:
        block: The main graph.
    """

    def __init__(self, block: Block) -> None:
        self._passes: OrderedDict[tuple[tuple[Key, ...], frozenset[int]], Pass] = OrderedDict()
        self._size = len(block.steps) + 1
        self._lock = Lock()
        self._position = {op: at for at, step in enumerate(block.steps) for op in step.inside}
        self._readers: defaultdict[ir.Value, list[int]] = defaultdict(list)
        for at, step in enumerate(block.steps):
            for value in step.reads:
                self._readers[value].append(at)

    def nearest(self, sample: tuple[Key, ...], low: frozenset[int]) -> Pass | None:
        """The pass over the same inputs whose precisions differ in the fewest ops."""
        with self._lock:
            same = [key for key in self._passes if key[0] == sample]
            best = min(same, key=lambda key: len(key[1] ^ low), default=None)
            if best is None:
                return None
            self._passes.move_to_end(best)
            return self._passes[best]

    def keep(self, sample: tuple[Key, ...], low: frozenset[int], env: Env) -> None:
        """Remember a pass; the longest unused one is forgotten."""
        with self._lock:
            self._passes[sample, low] = Pass(low, env)
            while len(self._passes) * self._size > _MAX_ENTRIES and len(self._passes) > 1:
                self._passes.popitem(last=False)

    def changed(self, ops: frozenset[int]) -> set[int]:
        """Positions of the steps whose own precision changes with ``ops``."""
        return {self._position[op] for op in ops if op in self._position}

    def readers(self, value: ir.Value) -> list[int]:
        """Positions of the steps that read a value."""
        return self._readers.get(value, [])
