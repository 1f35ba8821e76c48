"""Plans that compute the same, though they keep different ops.

A low op rounds what it reads and what it writes. Where both are rounded anyway, by the ops that
wrote it and by those that read it, it computes the same when it is kept. So does an op that only
moves or selects numbers, if what it reads is rounded: what it writes then is too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from topsideas.graph.constants import constant
from topsideas.graph.ops import op_id
from topsideas.graph.rounding_nodes import sums_low
from topsideas.graph.schemas import Slots
from topsideas.precision import Numerics
from topsideas.rounding import round_to

# Each element they write is one that they read; which one depends on no number.
_MOVING = frozenset(
    {"Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND"}
    | {"Identity", "Reshape", "ReverseSequence", "Slice", "SpaceToDepth", "Split", "Squeeze"}
    | {"Tile", "Transpose", "Unsqueeze", "Where"}
)
# The largest of what they read is the same before it is rounded and after, but for the sign of a
# zero that a small negative number became. That shows in ops that divide, or that nobody knows.
_LARGEST = frozenset({"Max", "MaxPool", "Min", "Relu"})
_TELLING_ZEROS = frozenset({"BitCast", "Div", "Mod", "Pow", "Reciprocal"})
# Each element they write is one that they read, but for its sign, or zero.
_SELECTING = _MOVING | _LARGEST | {"Abs", "Neg", "TopK", "Trilu"}
# Larger constants are not looked at: they are weights, which hardly ever survive rounding.
_LOOKED_AT = 1 << 16
# Stands for whatever is no op that may run low.
_OTHER = -1


@dataclass(frozen=True, slots=True)
class _Op:
    """What decides whether an op computes the same in both precisions.

    Attributes:
        id: Its id.
        sources: The ops that write what it rounds.
        readers: The ops that read what it stores and round that when they run low.
        selects: Whether its outputs are representable if its inputs are.
        moves: Whether rounding what it reads is the same as rounding what it writes.
        same: Whether it computes the same from the same inputs.
    """

    id: int
    sources: frozenset[int]
    readers: frozenset[int]
    selects: bool
    moves: bool
    same: bool

    def is_free(self, low: Set[int]) -> bool:
        """Whether it may run low as well as not, beside these."""
        stored, read_rounded = self.sources <= low, self.readers <= low
        if stored and read_rounded:
            return self.same
        return (stored and self.selects) or (read_rounded and self.moves)


class Equivalence:
    """Tells which plans compute the same.

    Args:
        model: A numbered model.
        slots: For every candidate op, which of its inputs and outputs round.
        numerics: The rounding.
    """

    def __init__(self, model: ir.Model, slots: Mapping[int, Slots], numerics: Numerics) -> None:
        self._slots, self._numerics = slots, numerics
        nodes = [node for graph in model.graphs() for node in graph]
        tell_zeros = any(node.domain or node.op_type in _TELLING_ZEROS for node in nodes)
        self._moving = _MOVING if tell_zeros else _MOVING | _LARGEST
        self._ops = [self._described(node) for node in nodes if op_id(node) in slots]

    def largest(self, low: frozenset[int]) -> frozenset[int]:
        """All ops that may run low beside ``low`` without changing any value that is read.

        Plans that have these in common compute the same: an op is added only where that changes
        nothing but signs of zeros that nobody reads, and adding it never keeps another one from
        being added.
        """
        found, before = set(low), -1
        while len(found) > before:
            before = len(found)
            # Both ways: chains of any length, after what is stored and before what is rounded.
            for op in (*self._ops, *reversed(self._ops)):
                if op.id not in found and op.is_free(found):
                    found.add(op.id)
        return frozenset(found)

    def _described(self, node: ir.Node) -> _Op:
        slots, plain = self._slots[op_id(node)], not node.domain
        sources = {self._source(node.inputs[index]) for index in slots.inputs}
        return _Op(
            id=op_id(node),
            sources=frozenset(source for source in sources if source is not None),
            readers=frozenset(r for i in slots.outputs for r in self._readers(node.outputs[i])),
            selects=plain and node.op_type in _SELECTING and not _pads(node),
            moves=plain and node.op_type in self._moving and not _pads(node) and _is_single(node),
            same=not sums_low(node, self._numerics),
        )

    def _source(self, value: ir.Value | None) -> int | None:
        """The op that writes a value; None if it is representable anyway."""
        if value is None:
            return None
        tensor = constant(value)
        if tensor is not None:
            return None if self._is_representable(tensor) else _OTHER
        producer = value.producer()
        if producer is None or producer.outputs.index(value) not in self._stored(producer):
            return _OTHER
        return op_id(producer)

    def _stored(self, producer: ir.Node) -> Collection[int]:
        slots = self._slots.get(op_id(producer))
        return slots.outputs if slots else ()

    def _is_representable(self, tensor: ir.TensorProtocol) -> bool:
        if tensor.nbytes > _LOOKED_AT:
            return False
        array = tensor.numpy()
        return bool(np.array_equal(array, round_to(array, self._numerics), equal_nan=True))

    def _readers(self, value: ir.Value) -> list[int]:
        readers = [self._reader(use.node, use.idx) for use in value.uses()]
        return [*readers, _OTHER] if value.is_graph_output() else readers

    def _reader(self, node: ir.Node, index: int) -> int:
        slots = self._slots.get(op_id(node))
        return op_id(node) if slots and index in slots.inputs else _OTHER


def _is_single(node: ir.Node) -> bool:
    """Whether it writes one tensor, or parts of what it reads, and no indices of the largest."""
    return node.op_type == "Split" or len(node.outputs) == 1


def _pads(node: ir.Node) -> bool:
    """Whether it may write what is no element of its input: where it sees nothing but padding."""
    ceil = node.attributes.get("ceil_mode")
    return ceil is not None and bool(ceil.as_int())
