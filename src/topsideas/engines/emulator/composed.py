"""Whole models of plans, put together from segments that are serialised once per precision.

A search asks for hundreds of plans that differ in a few ops, so most of what it would write for
each has been written before. Messages laid end to end are read as one message: that is how
protocol buffers are defined.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import NamedTuple, cast

import numpy as np
import onnx
import onnx_ir as ir

from topsideas.engines.emulator.forms import Form
from topsideas.engines.emulator.segments import Segment, bytes_of, is_weight
from topsideas.graph.switched import draws

# Larger models are run in parts, or hold so much that writing them is not what takes time.
_MOST_BYTES = 1 << 26
# Parts that are remembered.
_REMEMBERED = 1 << 10


class _Part(NamedTuple):
    """A segment in some precisions.

    Attributes:
        nodes: A message of its nodes.
        initializers: Messages of the weights they read, by name.
        weights: Values of those that are declared as external.
    """

    nodes: bytes
    initializers: dict[str, bytes]
    weights: dict[str, np.ndarray]


class Composer:
    """Serialises one model under any plan.

    Args:
        graph: The switched main graph; see :meth:`suits`.
        segments: Its segments.
        opsets: The opsets of the model.
        ir_version: The IR version of the model.
    """

    def __init__(
        self,
        graph: ir.Graph,
        segments: Sequence[Segment],
        opsets: Mapping[str, int],
        ir_version: int,
    ) -> None:
        self._segments = segments
        self._opsets, self._ir_version = dict(opsets), max(ir_version, 4)
        self._head = self._ends(graph)
        # Weights that are inputs too may be overridden, and runtimes fold none that may be.
        self._declared = {
            v.name: [v] for v in self._head.graph.input if v.name in graph.initializers
        }
        for (value,) in self._declared.values():
            self._head.graph.input.remove(value)
        self._parts: OrderedDict[object, _Part] = OrderedDict()
        self._lock = Lock()

    @staticmethod
    def suits(graph: ir.Graph, segments: Sequence[Segment]) -> bool:
        """Whether all precisions can be decided beforehand, and the model is small."""
        inside = any(s.ops - s.fixable for s in segments)  # ops in bodies
        special = any(map(is_weight, graph.outputs)) or any(map(draws, graph))
        return not (inside or special) and bytes_of(graph.initializers.values()) <= _MOST_BYTES

    def serialise(self, low: frozenset[int]) -> tuple[bytes, dict[str, np.ndarray]]:
        """A model with these ops low, and the values of the weights it declares as external."""
        with self._lock:
            parts = [self._part(Form(s, s.fixable, low & s.fixable)) for s in self._segments]
        initializers = {n: text for part in parts for n, text in part.initializers.items()}
        weights = {name: array for part in parts for name, array in part.weights.items()}
        nodes = [part.nodes for part in parts]
        return b"".join([self._head.SerializeToString(), *initializers.values(), *nodes]), weights

    def _ends(self, graph: ir.Graph) -> onnx.ModelProto:
        """The model's inputs and outputs, without what is between."""
        ends = list(graph.inputs), list(graph.outputs)
        view = ir.GraphView(*ends, nodes=[], opset_imports=self._opsets, name="plan")
        # Models are made of graphs, yet whatever serialises one takes a view too.
        return ir.to_proto(ir.Model(cast(ir.Graph, view), ir_version=self._ir_version))

    def _part(self, form: Form) -> _Part:
        part = self._parts.get(form.key)
        if part is None:
            part = self._parts[form.key] = self._written(form)
            if len(self._parts) > _REMEMBERED:
                self._parts.popitem(last=False)
        self._parts.move_to_end(form.key)
        return part

    def _written(self, form: Form) -> _Part:
        proto, weights = form.to_proto(self._opsets, self._ir_version)
        nodes = onnx.GraphProto(node=proto.graph.node)
        return _Part(_bytes(nodes), dict(map(self._weight, proto.graph.initializer)), weights)

    def _weight(self, tensor: onnx.TensorProto) -> tuple[str, bytes]:
        inputs = self._declared.get(tensor.name, [])
        return tensor.name, _bytes(onnx.GraphProto(initializer=[tensor], input=inputs))


def _bytes(graph: onnx.GraphProto) -> bytes:
    """A message with nothing but this of a model's graph."""
    return bytes(onnx.ModelProto(graph=graph).SerializeToString())
