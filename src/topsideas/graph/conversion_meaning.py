"""The meaning of a typed mixed-precision model, spelled out in float32.

ONNX Runtime's CPU provider does not compute in fp16 op by op, so running a typed model there says
nothing about rounding. Here every low op computes in float32 between explicit roundings, which
that provider does honour: what is left of the typed model's meaning is exactly where values are
stored in the low format. It must agree in every bit with :mod:`topsideas.graph.emulation`, which
writes the same meaning from the user's model and the plan, and knows nothing of the converter.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from topsideas.graph.constants import constant
from topsideas.graph.conversion_types import TYPE_ATTRIBUTES
from topsideas.graph.emulation import forget_shapes
from topsideas.graph.names import Names
from topsideas.graph.ops import op_id
from topsideas.graph.rounding_nodes import Rounding
from topsideas.precision import Numerics

_FLOAT = ir.DataType.FLOAT


def spelled_out(converted: ir.Model, original: ir.Model, numerics: Numerics) -> ir.Model:
    """The converted model with its low ops in float32, and float32 inputs and outputs.

    Which ops are low is read off the types of ``converted``, whatever the plan was.

    Args:
        converted: The typed model; left unchanged. Weights are shared with the copy.
        original: The numbered model that it was made from.
        numerics: How a value is stored in the low format.
    """
    model = converted.clone()
    forget_shapes(model.graph)
    _Spelling(model, original, numerics).apply()
    return model


class _Spelling:
    def __init__(self, model: ir.Model, original: ir.Model, numerics: Numerics) -> None:
        self._model = model
        self._originals = {op_id(n): n for graph in original.graphs() for n in graph}
        self._float_inputs = {v.name for v in original.graph.inputs if v.dtype == _FLOAT}
        self._float_outputs = {
            i for i, v in enumerate(original.graph.outputs) if v.dtype == _FLOAT
        }
        self._low = ir.DataType(numerics.precision.onnx_type)
        self._names = Names(model.graphs())
        opset = model.opset_imports.get("", 1)
        self._rounding = Rounding(numerics, opset, self._names, model.graph)

    def apply(self) -> None:
        """Rewrite the model in place."""
        for graph in self._model.graphs():
            for node in list(graph):
                before = self._originals.get(op_id(node))
                if before is None:
                    self._round_inserted(node)
                elif node.op_type == before.op_type and node.op_type != "Constant":
                    self._widen(node, before)
        self._widen_interface()

    def _round_inserted(self, cast: ir.Node) -> None:
        """A cast that stores a value in the low format does so as the target does."""
        value = cast.inputs[0] if cast.op_type == "Cast" else None
        if value is None or value.dtype != _FLOAT:
            return
        nodes, stored = self._rounding.value(value, self._names.fresh(f"{value.name}/stored"))
        cast.prepend(nodes)
        cast.replace_input_with(0, stored)

    def _widen(self, node: ir.Node, before: ir.Node) -> None:
        """Where a node was float32 and is low now, it reads and writes float32 again."""
        _restore_types(node, before)
        for index, (value, old) in enumerate(zip(node.inputs, before.inputs, strict=False)):
            if value is None or old is None or old.dtype != _FLOAT:
                continue
            if value.dtype == self._low:
                wide = self._wide(value)
                node.prepend(wide)
                node.replace_input_with(index, wide.outputs[0])
        for value, old_output in zip(node.outputs, before.outputs, strict=True):
            if value.name and value.dtype != old_output.dtype:
                self._store(node, value)

    def _wide(self, value: ir.Value) -> ir.Node:
        """A cast; for weights a constant, as kernels sum otherwise where weights are computed."""
        tensor = constant(value)
        if tensor is None:
            return self._cast(value, _FLOAT)
        node = ir.node("Constant", [], {"value": ir.tensor(tensor.numpy().astype(np.float32))})
        self._name(node, value, _FLOAT)
        return node

    def _store(self, node: ir.Node, value: ir.Value) -> None:
        """What a low op computed in float32 is stored low; all readers get what was stored."""
        readers = list(value.uses())
        name = value.name or ""
        value.name, value.type = self._names.fresh(f"{name}/computed"), ir.TensorType(_FLOAT)
        nodes, wide = self._rounding.result(node, value, self._names.fresh(f"{name}/wide"))
        cast = self._cast(wide, self._low)
        cast.outputs[0].name = name
        node.append([*nodes, cast])
        for reader in readers:
            reader.node.replace_input_with(reader.idx, cast.outputs[0])
        assert value.graph is not None
        for index, output in enumerate(value.graph.outputs):
            if output is value:
                value.graph.outputs[index] = cast.outputs[0]

    def _widen_interface(self) -> None:
        """Runtimes take and give float32 from Python; bfloat16 they do not."""
        graph = self._model.graph
        for value in graph.inputs:
            if value.dtype == self._low and value.name in self._float_inputs:
                self._widen_input(graph, value)
        for index, value in enumerate(graph.outputs):
            if value.dtype == self._low and index in self._float_outputs:
                cast = self._cast(value, _FLOAT)
                graph.append(cast)
                name, value.name = value.name, self._names.fresh(f"{value.name}/low")
                cast.outputs[0].name = name
                graph.outputs[index] = cast.outputs[0]

    def _widen_input(self, graph: ir.Graph, value: ir.Value) -> None:
        if value.const_value is not None:
            wide = value.const_value.numpy().astype(np.float32)
            value.const_value = ir.Tensor(wide, name=value.name)
        readers = list(value.uses())
        value.type = ir.TensorType(_FLOAT)
        if readers:
            cast = self._cast(value, self._low)
            graph[0].prepend(cast)
            for reader in readers:
                reader.node.replace_input_with(reader.idx, cast.outputs[0])

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Node:
        node = ir.node("Cast", [value], {"to": int(dtype)})
        self._name(node, value, dtype)
        return node

    def _name(self, node: ir.Node, value: ir.Value, dtype: ir.DataType) -> None:
        node.name = self._names.fresh(f"{value.name}/{dtype.name.lower()}")
        node.outputs[0].name = node.name
        node.outputs[0].type = ir.TensorType(dtype)


def _restore_types(node: ir.Node, before: ir.Node) -> None:
    """Attributes that name or hold the type of an output, as they were."""
    fills = ("value",) if node.op_type == "ConstantOfShape" and not node.domain else ()
    for name in (*TYPE_ATTRIBUTES, *fills):
        node.attributes.pop(name, None)
        if name in before.attributes:
            node.attributes[name] = before.attributes[name]
