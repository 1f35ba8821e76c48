"""Which ops of the original model a converted model left in fp32.

Converters insert casts, rename values and fuse. An op is found again by its name, where both
models have it once, or else by the value it writes, looking through casts that the original does
not have. Bodies are compared pair by pair, for names may repeat between them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from topsideas.graph.loading import Model
from topsideas.graph.ops import Op, bodies, op_id


@dataclass(frozen=True, slots=True)
class Kept:
    """What a converted model says of the original's ops.

    Attributes:
        ids: Candidates that compute in fp32.
        lost: Candidates that are not in the converted model, or whose type is not known there.
    """

    ids: frozenset[int]
    lost: frozenset[int]


def kept_ops(original: Model, converted: ir.Model) -> Kept:
    """Find the original's candidates in the converted model and see what they compute in."""
    found = {op_id(node): twin for node, twin in _twins(original.graph, converted.graph)}
    kinds = {
        op.id: _computes_in_fp32(op, found[op.id]) if op.id in found else None
        for op in original.ops
        if op.candidate
    }
    ids = frozenset(i for i, fp32 in kinds.items() if fp32)
    return Kept(ids, frozenset(i for i, fp32 in kinds.items() if fp32 is None))


def _twins(original: ir.Graph, converted: ir.Graph) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Nodes of both graphs that are the same op, bodies included."""
    names = _unique_names(original).keys() & _unique_names(converted).keys()
    named = {name: node for name, node in _unique_names(converted).items() if name in names}
    written = {value.name or "": node for node in converted for value in node.outputs}
    for node in original:
        twin = _same_type(node, named.get(node.name or "")) or _writer(node, written)
        if twin is not None:
            yield node, twin
            inner = dict(bodies(twin))
            for attribute, body in bodies(node):
                if attribute in inner:
                    yield from _twins(body, inner[attribute])


def _unique_names(graph: ir.Graph) -> dict[str, ir.Node]:
    count = Counter(node.name for node in graph)
    return {node.name: node for node in graph if node.name and count[node.name] == 1}


def _same_type(node: ir.Node, twin: ir.Node | None) -> ir.Node | None:
    return twin if twin is not None and twin.op_type == node.op_type else None


def _writer(node: ir.Node, written: dict[str, ir.Node]) -> ir.Node | None:
    """What writes the node's outputs in the converted graph, behind any inserted casts."""
    for name in (value.name for value in node.outputs if value.name):
        twin = written.get(name)
        while twin is not None and twin.op_type == "Cast" and node.op_type != "Cast":
            source = twin.inputs[0]
            twin = source.producer() if source is not None else None
        if _same_type(node, twin) is not None:
            return twin
    return None


def _computes_in_fp32(op: Op, twin: ir.Node) -> bool | None:
    """Whether the slots that could be low are float32; None if their types are not known.

    Outputs come first: what a cast from integers computes in shows only there.
    """
    slots: list[ir.Value | None]
    slots = [twin.outputs[i] for i in op.slots.outputs if i < len(twin.outputs)]
    slots += [twin.inputs[i] for i in op.slots.inputs if i < len(twin.inputs)]
    types = [value.dtype for value in slots if value is not None and value.dtype is not None]
    return types[0] is ir.DataType.FLOAT if types else None
