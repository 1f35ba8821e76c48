"""A switched model cut into segments, each of which one session runs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from topsideas.graph.constants import constant
from topsideas.graph.excerpt import read_values
from topsideas.graph.ops import bodies, op_id
from topsideas.graph.switched import Switched, draws, is_switch

# A longer segment re-runs more that did not change, a shorter one costs more calls.
_LENGTH = 0.8
_MIN_NODES = 4
# Where not all weights fit in both precisions, ops with more bytes of them than this are compiled
# for one precision at a time, and no segment has more than one such op.
_HEAVY = 1 << 20
# Weights per segment, heavy ops not counted: one segment is the least to hold.
_MAX_WEIGHTS = 1 << 28


@dataclass(frozen=True, eq=False)
class Segment:
    """A run of neighbouring top-level nodes.

    Attributes:
        index: Its position among the segments.
        nodes: Its nodes in the switched graph.
        reads: The computed values it needs from outside, switches not included.
        writes: Its values that are needed outside.
        low: Its switches, each with the op that it switches.
        fresh: Its second switches, each with the op that it switches and the ops that decide.
        ops: Ids of the candidate ops in it.
        fixable: Ids of those whose precision can be decided when a session is opened.
        heavy: Ids of those of them for which that must be.
        size: How many nodes of the model it stands for.
    """

    index: int
    nodes: tuple[ir.Node, ...]
    reads: tuple[ir.Value, ...]
    writes: tuple[ir.Value, ...]
    low: tuple[tuple[ir.Value, int], ...]
    fresh: tuple[tuple[ir.Value, int, frozenset[int]], ...]
    ops: frozenset[int]
    fixable: frozenset[int]
    heavy: frozenset[int]
    size: int


def segments(model: Switched, room: float = math.inf, *, length: float = _LENGTH) -> list[Segment]:
    """Cut a switched model into segments, in execution order.

    Args:
        model: The model.
        room: Bytes of weights that open sessions may hold together. If those of all ops in both
            precisions are more, heavy ops get segments of their own.
        length: Nodes per segment, in square roots of all nodes.
    """
    return _Cut(model, room, length).segments()


def is_weight(value: ir.Value) -> bool:
    """Whether a value outside all nodes is known before the model runs."""
    return value.producer() is None and constant(value) is not None


def bytes_of(values: Collection[ir.Value]) -> int:
    """Bytes of the weights among ``values``."""
    return sum(v.const_value.nbytes for v in values if is_weight(v) and v.const_value is not None)


def releases(segments: Sequence[Segment], graph: ir.Graph) -> list[tuple[ir.Value, ...]]:
    """For each segment, the values that none after it needs."""
    needed = set(graph.outputs)
    found: list[tuple[ir.Value, ...]] = []
    for segment in reversed(segments):
        last = [v for v in dict.fromkeys((*segment.reads, *segment.writes)) if v not in needed]
        found.append(tuple(last))
        needed.update(last)
    return found[::-1]


@dataclass
class _Cut:
    """One cutting."""

    model: Switched
    room: float
    length: float
    _switches: dict[ir.Value, int] = field(init=False)
    _fresh: dict[ir.Value, int] = field(init=False)

    def __post_init__(self) -> None:
        self._nodes = list(self.model.graph)
        self._captured = [read_values(node) for node in self._nodes]
        self._readers = _last_readers(self._captured, self.model.graph)
        self._switches = {v: op for op, v in self.model.low.items()}
        self._fresh = {v: op for op, v in self.model.fresh.items()}
        self._weights = [bytes_of(values) for values in self._captured]
        self._sizes = [_size(node) for node in self._nodes]
        # What draws numbers runs once, apart from all that is run again.
        self._draws = [draws(node) for node in self._nodes]
        large = sum(self._weights) > self.room
        self._heavy = [
            large and weights > _HEAVY and is_switch(node)
            for node, weights in zip(self._nodes, self._weights, strict=True)
        ]

    def segments(self) -> list[Segment]:
        ends = list(self._ends())
        pairs = zip([0, *ends], ends, strict=False)
        return [self._segment(i, start, end) for i, (start, end) in enumerate(pairs)]

    def _segment(self, index: int, start: int, end: int) -> Segment:
        nodes = self._nodes[start:end]
        born = dict.fromkeys(o for node in nodes for o in node.outputs if o.name)
        read = dict.fromkeys(v for values in self._captured[start:end] for v in values)
        outer = [v for v in read if v not in born]
        low = tuple((v, self._switches[v]) for v in outer if v in self._switches)
        second = {v: self._fresh[v] for v in outer if v in self._fresh}
        known = {*self._switches, *self._fresh}
        return Segment(
            index=index,
            nodes=tuple(nodes),
            reads=tuple(v for v in outer if v not in known and not is_weight(v)),
            writes=tuple(v for v in born if self._readers.get(v, -1) >= end),
            low=low,
            fresh=tuple((v, op, self.model.producers[op]) for v, op in second.items()),
            ops=frozenset(op for _, op in low),
            fixable=frozenset(op_id(node) for node in nodes if is_switch(node)),
            heavy=frozenset(op_id(self._nodes[i]) for i in range(start, end) if self._heavy[i]),
            size=sum(self._sizes[start:end]),
        )

    def _ends(self) -> Iterator[int]:
        """Where segments end: near the wanted length, where the fewest values cross."""
        crossing = _crossing(self._nodes, self._readers)
        wanted = max(_MIN_NODES, self.length * math.sqrt(sum(self._sizes)))
        start = 0
        while start < len(self._nodes):
            best, length = start + 1, 0
            for end in self._possible(start, 1.5 * wanted):
                length += self._sizes[end - 1]
                if length <= 0.5 * wanted or crossing[end] <= crossing[best]:
                    best = end
            yield best
            start = best

    def _possible(self, start: int, longest: float) -> Iterator[int]:
        """Where a segment from ``start`` may end; it has one node at least."""
        length = held = heavy = 0
        for end in range(start + 1, len(self._nodes) + 1):
            at = end - 1
            length += self._sizes[at]
            heavy += self._heavy[at]
            held += 0 if self._heavy[at] else self._weights[at]
            alone = self._draws[at] or self._draws[start]
            if at > start and (length > longest or held > _MAX_WEIGHTS or heavy > 1 or alone):
                return
            yield end


def _size(node: ir.Node) -> int:
    """Nodes of the user's model: what was inserted has no id."""
    if is_switch(node):
        return 1
    inner = (n for _, body in bodies(node) for n in body)
    return (op_id(node) >= 0) + sum(map(_size, inner))


def _last_readers(
    captured: Sequence[Sequence[ir.Value]], graph: ir.Graph
) -> Mapping[ir.Value, int]:
    last: dict[ir.Value, int] = {}
    for position, values in enumerate(captured):
        last.update(dict.fromkeys(values, position))
    last.update(dict.fromkeys(graph.outputs, len(captured)))
    return last


def _crossing(nodes: Sequence[ir.Node], readers: Mapping[ir.Value, int]) -> list[int]:
    """How many values are alive before each position."""
    change: defaultdict[int, int] = defaultdict(int)
    for position, node in enumerate(nodes):
        for value in node.outputs:
            if readers.get(value, -1) > position:
                change[position + 1] += 1
                change[readers[value] + 1] -= 1
    alive, found = 0, []
    for position in range(len(nodes) + 1):
        alive += change[position]
        found.append(alive)
    return found
