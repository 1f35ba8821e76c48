"""Neighbouring nodes cut out of a model as a model of their own, in the precisions asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from topsideas.graph.constants import LowConstants, constant
from topsideas.graph.emulation import emulate
from topsideas.graph.ops import bodies, op_id
from topsideas.graph.portable import placeholder
from topsideas.graph.schemas import Slots
from topsideas.precision import Numerics

# Weights up to this size are written into the model; larger ones are passed by reference.
_INLINE_BYTES = 4096


@dataclass(frozen=True)
class Excerpt:
    """A model of some nodes.

    Attributes:
        proto: The serialised model. Its inputs are named ``i0, i1, …`` in the order of
            ``reads``; its outputs ``o0, o1, …`` in that of ``writes``, then those of ``raw``.
        weights: Values of the initializers that ``proto`` declares as external.
        reads: The values to feed.
        writes: The nodes' outputs, without the empty ones.
        raw: Those of them that are also returned as they were before they were rounded.
        constants: What the nodes read that is known before they run.
    """

    proto: bytes
    weights: dict[str, np.ndarray]
    reads: tuple[ir.Value, ...]
    writes: tuple[ir.Value, ...]
    raw: tuple[ir.Value, ...]
    constants: dict[ir.Value, ir.TensorProtocol]


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
        self._numerics = numerics

    def cut(
        self,
        nodes: Sequence[ir.Node],
        low: Collection[int],
        *,
        stored: Collection[ir.Value] = (),
        raw: bool = False,
        ranks: bool = False,
    ) -> Excerpt:
        """Cut ``nodes`` out.

        Args:
            nodes: Nodes in execution order; unchanged.
            low: Ids that run low: their own, or those of ops in their bodies.
            stored: Values they read that are representable in the low format already.
            raw: Also return the outputs as they were before they were rounded.
            ranks: Declare how many axes the inputs have, where that is known. Sizes are never
                declared: models state wrong ones.
        """
        born = {o for node in nodes for o in node.outputs}
        values = dict.fromkeys(v for n in nodes for v in read_values(n) if v not in born)
        fixed = {v: tensor for v in values if (tensor := constant(v)) is not None}
        fed = tuple(v for v in values if v not in fixed)
        stand_in = {v: _input(v, f"i{i}", ranks=ranks) for i, v in enumerate(fed)}
        stand_in |= {v: _weight(tensor, f"w{i}") for i, (v, tensor) in enumerate(fixed.items())}
        copies = [_copy(node, stand_in) for node in nodes]
        writes = tuple(o for node in nodes for o in node.outputs if o.name)
        for index, value in enumerate(writes):
            stand_in[value].name = f"o{index}"
        graph = ir.Graph(
            [stand_in[v] for v in fed],
            [stand_in[v] for v in writes],
            nodes=copies,
            initializers=[stand_in[v] for v in fixed],
            name="excerpt",
            opset_imports=self._opsets,
        )
        known = {stand_in[v] for v in stored if v in stand_in}
        # Rounded weights live as long as the session that reads them, not longer.
        constants = LowConstants(self._numerics)
        emulate(graph, low, self._slots, constants, self._opsets.get("", 1), known)
        rounded = self._rounding(nodes, low) if raw else ()
        graph.outputs.extend(stand_in[v] for v in rounded)
        return Excerpt(*self._serialise(graph), fed, writes, rounded, fixed)

    def _rounding(self, nodes: Sequence[ir.Node], low: Collection[int]) -> tuple[ir.Value, ...]:
        """The outputs that are rounded, in the order of the nodes."""
        return tuple(
            node.outputs[i]
            for node in nodes
            if op_id(node) in low and op_id(node) in self._slots
            for i in sorted(self._slots[op_id(node)].outputs)
            if node.outputs[i].name
        )

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


def _weight(tensor: ir.TensorProtocol, name: str) -> ir.Value:
    weight = ir.Value(name=name, type=ir.TensorType(tensor.dtype), const_value=tensor)
    weight.shape = ir.Shape(tensor.numpy().shape)
    return weight


def _copy(node: ir.Node, stand_in: dict[ir.Value, ir.Value]) -> ir.Node:
    """A copy that reads stand-ins, with its outputs entered as further stand-ins."""
    copy = ir.Node(
        node.domain,
        node.op_type,
        [None if v is None else stand_in[v] for v in node.inputs],
        [_copy_attribute(a, stand_in) for a in node.attributes.values()],
        overload=node.overload,
        num_outputs=len(node.outputs),
        name=f"op {op_id(node)}",
    )
    copy.meta.update(node.meta)
    for old, new in zip(node.outputs, copy.outputs, strict=True):
        new.name, new.type = "", old.type
        stand_in[old] = new
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
