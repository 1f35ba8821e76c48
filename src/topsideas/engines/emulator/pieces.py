"""Blocks cut into pieces, each of which a traced run executes in one session."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from threading import Lock

import onnx_ir as ir

from topsideas.engines.emulator.steps import Block, Step
from topsideas.graph.constants import constant
from topsideas.graph.excerpt import read_values

# Measured: with 8 or 32 a pass takes as long. Shorter pieces take longer to open in all; of longer
# ones a change of the plan opens more again.
_MAX_STEPS = 16
# Weights are packed when a session opens; more than this is opened, and dropped, on its own.
_MAX_WEIGHTS = 32 << 20


@dataclass(frozen=True, eq=False)
class Piece:
    """Neighbouring steps that run together. A step with bodies is alone.

    Attributes:
        block: Where they are.
        start: Position of the first one.
        end: Position after the last one.
    """

    block: Block
    start: int
    end: int

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The steps."""
        return self.block.steps[self.start : self.end]

    @cached_property
    def reads(self) -> tuple[ir.Value, ...]:
        """The computed values they need from outside."""
        values = dict.fromkeys(v for step in self.steps for v in step.reads)
        return tuple(v for v in values if v not in self._born)

    @cached_property
    def kept(self) -> frozenset[ir.Value]:
        """The values they write that are needed after them."""
        return self._born - self._last

    @cached_property
    def released(self) -> tuple[ir.Value, ...]:
        """The values from outside that nothing needs after them."""
        return tuple(self._last - self._born)

    @cached_property
    def inside(self) -> frozenset[int]:
        """Ids of the candidate ops whose precision changes them."""
        return frozenset().union(*(step.inside for step in self.steps))

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of the constants they read."""
        return sum(map(_weight_bytes, self.steps))

    @cached_property
    def _born(self) -> frozenset[ir.Value]:
        return frozenset(v for step in self.steps for v in step.writes)

    @cached_property
    def _last(self) -> frozenset[ir.Value]:
        releases = self.block.releases[self.start : self.end]
        return frozenset(v for values in releases for v in values)


class Pieces:
    """The pieces of all blocks of one model; some are split when it turns out what they hold."""

    def __init__(self) -> None:
        self._pieces: dict[Block, list[Piece]] = {}
        self._parts: dict[Piece, list[Piece]] = {}
        self._lock = Lock()

    def of(self, block: Block) -> list[Piece]:
        """The pieces of a block in execution order."""
        with self._lock:
            if block not in self._pieces:
                self._pieces[block] = list(_cut(block))
            return self._pieces[block]

    def parts(self, piece: Piece) -> list[Piece] | None:
        """What a piece was split into; None if it was not."""
        return self._parts.get(piece)

    def halve(self, piece: Piece) -> list[Piece]:
        """Split a piece in two, from now on."""
        return self._split(piece, [(piece.start + piece.end) // 2])

    def split(self, piece: Piece, sizes: Sequence[int], limit: int) -> None:
        """Split a piece so that the sizes of its steps come to ``limit`` or are of one step."""
        ends, total = [], 0
        for position, size in enumerate(sizes, piece.start):
            if total and total + size > limit:
                ends.append(position)
                total = 0
            total += size
        self._split(piece, ends)

    def _split(self, piece: Piece, ends: Sequence[int]) -> list[Piece]:
        bounds = [piece.start, *ends, piece.end]
        cut = [Piece(piece.block, a, b) for a, b in pairwise(bounds)]
        return self._parts.setdefault(piece, cut)


def _cut(block: Block) -> Iterator[Piece]:
    start = weights = 0
    for end, step in enumerate(block.steps):
        size = _weight_bytes(step)
        full = end - start == _MAX_STEPS or weights + size > _MAX_WEIGHTS
        after_body = end > 0 and bool(block.steps[end - 1].blocks)
        if end > start and (full or step.blocks or after_body):
            yield Piece(block, start, end)
            start, weights = end, 0
        weights += size
    if block.steps:
        yield Piece(block, start, len(block.steps))


def _weight_bytes(step: Step) -> int:
    tensors = (constant(v) for v in read_values(step.node))
    return sum(t.nbytes for t in tensors if t is not None)
