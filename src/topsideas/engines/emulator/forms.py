"""Segments with some precisions decided: what a session is opened for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import onnx
import onnx_ir as ir

from topsideas.engines.emulator.segments import Segment, bytes_of, is_weight
from topsideas.graph.excerpt import read_values
from topsideas.graph.ops import op_id
from topsideas.graph.portable import placeholder
from topsideas.graph.switched import shape_of, taken

# Weights up to this size are written into the segment's model; larger ones are referred to.
_INLINE_BYTES = 4096


@dataclass(frozen=True)
class Form:
    """A segment with the precisions of some ops decided.

    Attributes:
        segment: The segment.
        fixed: The ops that are decided.
        low: Those of them that run low.
    """

    segment: Segment
    fixed: frozenset[int]
    low: frozenset[int]

    @property
    def key(self) -> tuple[int, frozenset[int], frozenset[int]]:
        """What tells forms of one model apart."""
        return self.segment.index, self.fixed, self.low

    @cached_property
    def nodes(self) -> list[ir.Node]:
        """Its nodes; a decided op is replaced by the branch that is taken."""
        return [inner for node in self.segment.nodes for inner in self._inside(node)]

    @cached_property
    def weights(self) -> list[ir.Value]:
        """The initializers it reads."""
        read = dict.fromkeys(v for node in self.nodes for v in read_values(node))
        return [v for v in read if is_weight(v)]

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of these."""
        return bytes_of(self.weights)

    @cached_property
    def reads(self) -> list[str]:
        """Names of the values it is fed, switches not included."""
        return [str(v.name) for v in self.segment.reads]

    @cached_property
    def switches(self) -> list[tuple[str, int]]:
        """Names of its switches, each with the op that it switches."""
        return [(str(v.name), op) for v, op in self.segment.low if op not in self.fixed]

    @cached_property
    def seconds(self) -> list[tuple[str, frozenset[int]]]:
        """Names of its second switches, each with the ops that decide."""
        fresh = self.segment.fresh
        return [(str(v.name), ops) for v, op, ops in fresh if op not in self.fixed]

    @cached_property
    def what(self) -> str:
        """How messages call it."""
        ids = [op_id(n) for n in self.segment.nodes if op_id(n) >= 0]
        return f"ops {min(ids)} to {max(ids)}" if ids else "the model"

    def to_proto(
        self, opsets: Mapping[str, int], ir_version: int, *, ranks: bool = False
    ) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
        """A model of it, and the values of the initializers that it declares as external.

        Args:
            opsets: The opsets of the model.
            ir_version: The IR version of the model.
            ranks: Declare how many axes its inputs have, where that is known.
        """
        segment = self.segment
        weights: dict[str, np.ndarray] = {}
        switches = [v for v, op in segment.low if op not in self.fixed]
        seconds = [v for v, op, _ in segment.fresh if op not in self.fixed]
        view = ir.GraphView(
            [*(map(_ranked, segment.reads) if ranks else segment.reads), *switches, *seconds],
            segment.writes,
            nodes=self.nodes,
            initializers=[_weight(v, weights) for v in self.weights],
            opset_imports=dict(opsets),
            name="segment",
        )
        # Models are made of graphs, yet whatever serialises one takes a view too.
        model = ir.to_proto(ir.Model(cast(ir.Graph, view), ir_version=ir_version))
        _rename(model.graph, self._names)
        return model, weights

    def _inside(self, node: ir.Node) -> Iterator[ir.Node]:
        if op_id(node) in self.segment.fixable & self.fixed:
            yield from self._branch(node)
        else:
            yield node

    def _branch(self, node: ir.Node) -> ir.Graph:
        deciding = {op: ops for _, op, ops in self.segment.fresh}
        stored = deciding.get(op_id(node), frozenset({-1})) <= self.low
        return taken(node, low=op_id(node) in self.low, stored=stored)

    @cached_property
    def _names(self) -> dict[str, str]:
        """What values in branches that replace ops are called outside."""
        return {
            str(inner.name): str(outer.name)
            for node in self.segment.nodes
            if op_id(node) in self.segment.fixable & self.fixed
            for inner, outer in zip(self._branch(node).outputs, node.outputs, strict=True)
        }


def _ranked(value: ir.Value) -> ir.Value:
    """The value with its rank; a list of sizes with its length, which may be another's rank."""
    shape = shape_of(value)
    if shape is None:
        return value
    if value.dtype != ir.DataType.INT64 or len(shape) > 1:
        shape = ir.Shape([None] * len(shape))
    return ir.Value(name=value.name, type=value.type, shape=shape)


def _weight(value: ir.Value, weights: dict[str, np.ndarray]) -> ir.Value:
    """The initializer as it is written: a large one refers to its array in ``weights``."""
    tensor, name = value.const_value, str(value.name)
    assert tensor is not None
    if tensor.nbytes <= _INLINE_BYTES or tensor.dtype == ir.DataType.STRING:
        return value
    weights[name] = tensor.numpy()
    return ir.Value(
        name=name, type=value.type, shape=value.shape, const_value=placeholder(tensor, name)
    )


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    if not names:
        return
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    del graph.value_info[:]
