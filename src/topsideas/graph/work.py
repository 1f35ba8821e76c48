"""The work of one op: how many bytes it moves and how many operations it computes.

Both become one number by the roofline model (S. Williams, A. Waterman, D. Patterson, "Roofline: an
insightful visual performance model for multicore architectures", 2009): an op takes as long as
the slower of its memory traffic and its arithmetic, taken as perfectly overlapped. The unit is a
byte of memory traffic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import onnx_ir as ir

Shape = tuple[int, ...]
ShapeOf = Callable[[ir.Value], Shape]

# Operations that a device computes while it moves one byte, in the low precision: accelerators
# are built around this (V100: 125 T/s by 0.9 TB/s is 139, A100: 312 T/s by 2 TB/s is 153). fp32
# is taken to run at half that rate. Powers of two keep sums of costs exact in any order.
_BALANCE_LOW = 128
_BALANCE_FP32 = 64
_LOW_BYTES, _FP32_BYTES = 2, 4

# Ops that give a tensor another name or shape; compilers move nothing for them.
_FREE = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"}
# Ops that read no more of their first input than they write.
_PICKING = {"Gather", "GatherElements", "GatherND", "Slice"}
_RECURRENT = {"LSTM", "GRU", "RNN"}
# ONNX Runtime's domain has some of the same with an activation.
_DOMAINS = {"", "com.microsoft"}


@dataclass(frozen=True, slots=True)
class Work:
    """What one execution of an op takes.

    Attributes:
        fp32: In fp32.
        low: In the low precision.
    """

    fp32: float
    low: float


def work_of(node: ir.Node, slots: Collection[ir.Value], shape_of: ShapeOf) -> Work:
    """The work of a node.

    Args:
        node: The node.
        slots: Those of its inputs and outputs that are low when it runs low.
        shape_of: The shape of a value.
    """
    if _is(node, _FREE) or any(_is_graph(attr) for attr in node.attributes.values()):
        return Work(0.0, 0.0)
    moved = {v: _elements(node, v, shape_of) for v in (*node.inputs, *node.outputs) if v}
    fp32 = sum(n * _width(v) for v, n in moved.items())
    low = fp32 - sum((_FP32_BYTES - _LOW_BYTES) * moved[v] for v in set(slots))
    operations = 2 * _multiplications(node, shape_of)
    computed_low = operations / (_BALANCE_LOW if slots else _BALANCE_FP32)
    return Work(max(fp32, operations / _BALANCE_FP32), max(low, computed_low))


def cast_work(shape: Shape) -> float:
    """The work of a cast between fp32 and the low precision."""
    return float(math.prod(shape) * (_FP32_BYTES + _LOW_BYTES))


def _is_graph(attr: ir.Attr) -> bool:
    return attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def _is(node: ir.Node, types: Collection[str]) -> bool:
    return node.op_type in types and not node.domain


def _width(value: ir.Value) -> float:
    try:
        return 0.0 if value.dtype is None else float(value.dtype.itemsize)
    except TypeError:  # strings have no size that a type could tell
        return 0.0


def _elements(node: ir.Node, value: ir.Value, shape_of: ShapeOf) -> int:
    count = math.prod(shape_of(value))
    if _is(node, _PICKING) and value is node.inputs[0]:
        return min(count, math.prod(shape_of(node.outputs[0])))
    return count


def _multiplications(node: ir.Node, shape_of: ShapeOf) -> int:
    """Multiply-accumulates of the ops that are made of them; 0 for all others."""
    if node.domain not in _DOMAINS or len(node.inputs) < 2:
        return 0
    left, right = node.inputs[0], node.inputs[1]
    if left is None or right is None:
        return 0
    first, weights, out = shape_of(left), shape_of(right), shape_of(node.outputs[0])
    kind = node.op_type.removeprefix("Fused")
    if kind in ("Conv", "DeformConv"):
        return math.prod(out) * math.prod(weights[1:])
    if kind == "ConvTranspose":
        return math.prod(first) * math.prod(weights[1:])
    if kind == "MatMul":
        return math.prod(out) * (first[-1] if first else 1)
    if kind == "Gemm":
        return math.prod(out) * _inner_of_gemm(node, first)
    if kind in _RECURRENT and len(node.inputs) > 2 and node.inputs[2] is not None:
        gates = math.prod(weights) + math.prod(shape_of(node.inputs[2]))
        return math.prod(first[:2]) * gates
    return 0


def _inner_of_gemm(node: ir.Node, first: Shape) -> int:
    transposed = node.attributes.get("transA")
    if not first:
        return 1
    return first[0] if transposed is not None and transposed.as_int() else first[-1]
