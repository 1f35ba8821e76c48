"""One node of a model cut out as a model of its own, in the precision asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from topsideas.graph.constants import LowConstants, constant
from topsideas.graph.emulation import emulate
from topsideas.graph.ops import bodies
from topsideas.graph.portable import placeholder
from topsideas.graph.schemas import Slots
from topsideas.precision import Numerics

# Weights up to this size are written into the one-node model; larger ones are passed by reference.
_INLINE_BYTES = 4096


@dataclass(frozen=True)
class SingleNode:
    """A one-node model.

    Attributes:
        proto: The serialised model. Its inputs are named ``i0, i1, …`` in the order of
            ``reads``; its outputs ``o0, o1, …`` without the empty ones, then the same with
            ``/raw`` where those were asked for. Nodes that differ only in names give equal bytes.
        weights: Values of the initializers that ``proto`` declares as external.
        reads: The values to feed.
    """

    proto: bytes
    weights: dict[str, np.ndarray]
    reads: tuple[ir.Value, ...]


def read_values(node: ir.Node) -> tuple[ir.Value, ...]:
    """The values a node reads, outer values that its bodies capture included."""
    found = dict.fromkeys(v for v in node.inputs if v is not None)
    for _, body in bodies(node):
        found |= dict.fromkeys(_captured(body))
    return tuple(found)


def _captured(graph: ir.Graph) -> list[ir.Value]:
    """Values from outside that ``graph`` or its bodies read or return."""
    inside: set[ir.Value] = set()
    wanted: list[ir.Value] = []
    for inner in [graph, *graph.subgraphs()]:
        inside |= {*inner.inputs, *inner.initializers.values()}
        for node in inner:
            inside |= set(node.outputs)
            wanted += [v for v in node.inputs if v is not None]
        wanted += list(inner.outputs)
    return [v for v in dict.fromkeys(wanted) if v not in inside]


class Cutter:
    """Cuts nodes out of a numbered model.

    Args:
        model: The model; its weights are read when a node needs them.
        slots: Rounding slots of every candidate op.
        numerics: The rounding.
    """

    def __init__(self, model: ir.Model, slots: Mapping[int, Slots], numerics: Numerics) -> None:
        self._opsets = dict(model.opset_imports)
        self._ir_version = max(model.ir_version, 4)
        self._slots = slots
        self._low_constants = LowConstants(numerics)

    def cut(
        self,
        node: ir.Node,
        low: Collection[int],
        *,
        stored: Collection[ir.Value] = (),
        raw: bool = False,
        ranks: bool = False,
    ) -> SingleNode:
        """Cut ``node`` out.

        Args:
            node: The node; unchanged.
            low: Ids that run low: its own, or those of ops in its bodies.
            stored: Values it reads that are representable in the low format already.
            raw: Also return the outputs as they were before they were rounded.
            ranks: Declare how many axes its inputs have, where that is known. Sizes are never
                declared: models state wrong ones.
        """
        values = read_values(node)
        fed = tuple(v for v in values if constant(v) is None)
        stand_in = {v: _input(v, f"i{i}", ranks=ranks) for i, v in enumerate(fed)}
        fixed = {v: _weight(v, f"w{i}") for i, v in enumerate(values) if v not in stand_in}
        copy = _copy(node, stand_in | fixed)
        graph = ir.Graph(
            list(stand_in.values()),
            [o for o in copy.outputs if o.name],
            nodes=[copy],
            initializers=list(fixed.values()),
            name="single",
            opset_imports=self._opsets,
        )
        known = {stand_in[v] for v in stored}
        opset = self._opsets.get("", 1)
        emulate(graph, low, self._slots, self._low_constants, opset, known)
        if raw:
            rounded = [o for o in copy.outputs if o.name and o not in graph.outputs]
            graph.outputs.extend(rounded)
        return SingleNode(*self._serialise(graph), fed)

    def _serialise(self, graph: ir.Graph) -> tuple[bytes, dict[str, np.ndarray]]:
        weights = {}
        for name, value in list(graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                graph.initializers.pop(name)
            elif value.const_value is not None and value.const_value.nbytes > _INLINE_BYTES:
                weights[name] = value.const_value.numpy()
                value.const_value = placeholder(value.const_value, name)
        proto = ir.to_proto(ir.Model(graph, ir_version=self._ir_version))
        return proto.SerializeToString(deterministic=True), weights


def _input(value: ir.Value, name: str, *, ranks: bool) -> ir.Value:
    known = ranks and value.shape is not None
    shape = ir.Shape([None] * len(value.shape)) if known and value.shape is not None else None
    return ir.Value(name=name, type=value.type, shape=shape)


def _weight(value: ir.Value, name: str) -> ir.Value:
    tensor = constant(value)
    assert tensor is not None
    weight = ir.Value(name=name, type=ir.TensorType(tensor.dtype), const_value=tensor)
    weight.shape = ir.Shape(tensor.numpy().shape)
    return weight


def _copy(node: ir.Node, stand_in: Mapping[ir.Value, ir.Value]) -> ir.Node:
    copy = ir.Node(
        node.domain,
        node.op_type,
        [None if v is None else stand_in[v] for v in node.inputs],
        [_copy_attribute(a, stand_in) for a in node.attributes.values()],
        overload=node.overload,
        num_outputs=len(node.outputs),
        name="node",
    )
    copy.meta.update(node.meta)
    for index, (old, new) in enumerate(zip(node.outputs, copy.outputs, strict=True)):
        new.name, new.type = (f"o{index}" if old.name else ""), old.type
    return copy


def _copy_attribute(attr: ir.Attr, stand_in: Mapping[ir.Value, ir.Value]) -> ir.Attr:
    if attr.type != ir.AttributeType.GRAPH:
        return attr
    body = attr.as_graph().clone(allow_outer_scope_values=True)
    for inner in [body, *body.subgraphs()]:
        for node in inner:
            for index, value in enumerate(node.inputs):
                if value is not None and value in stand_in:
                    node.replace_input_with(index, stand_in[value])
        for index, value in enumerate(inner.outputs):
            if value in stand_in:
                inner.outputs[index] = stand_in[value]
    return ir.AttrGraph(attr.name, body)
