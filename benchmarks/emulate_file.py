"""A strongly typed mixed-precision model with its fp16 emulated in fp32, as the file is written.

This judges the file of any converter, with whatever it fused, clipped or squeezed through fp16 on
the way, and needs no idea of what its ops were in the original. ONNX Runtime's CPU provider would
compute fp16 nodes in fp32 between the graph's boundaries, so every fp16 value gets an explicit
pair of casts here and everything else becomes float32.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_LOW, _WIDE = ir.DataType.FLOAT16, ir.DataType.FLOAT


def emulate(model: ir.Model) -> ir.Model:
    """The model, rewritten in place; every value's type must be known.

    Raises:
        ValueError: A value's type is unknown, so that it cannot be said what is rounded.
    """
    graphs = list(model.graphs())
    _check_typed(graphs)
    for graph in graphs:
        low = [v for node in graph for v in node.outputs if v.dtype == _LOW]
        if graph is model.graph:  # what a body is given is rounded where it comes from
            low += [v for v in graph.inputs if v.dtype == _LOW]
        for node in graph:
            _widen_attributes(node)
        for value in (*graph.inputs, *graph.initializers.values(), *low):
            _widen(value)
        for number, value in enumerate(low):
            _round(graph, value, number)
    for graph in graphs:
        _drop_void_casts(graph)
    return model


def _check_typed(graphs: list[ir.Graph]) -> None:
    values = (v for graph in graphs for node in graph for v in node.outputs)
    unknown = sum(1 for v in values if v.name and v.uses() and v.dtype is None)
    if unknown:
        raise ValueError(f"the types of {unknown} values are unknown")


def _widen(value: ir.Value) -> None:
    if value.dtype != _LOW:
        return
    if value.const_value is not None:
        value.const_value = _wide_tensor(value.const_value)
    value.dtype = _WIDE


def _wide_tensor(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.Tensor(tensor.numpy().astype(np.float32), name=tensor.name)


def _widen_attributes(node: ir.Node) -> None:
    """Fp16 constants, and the target types of Cast, EyeLike and the like."""
    for name, attr in list(node.attributes.items()):
        if attr.type == ir.AttributeType.TENSOR and attr.as_tensor().dtype == _LOW:
            node.attributes[name] = ir.AttrTensor(name, _wide_tensor(attr.as_tensor()))
        elif name in ("to", "dtype") and attr.as_int() == _LOW:
            node.attributes[name] = ir.AttrInt64(name, int(_WIDE))


def _drop_void_casts(graph: ir.Graph) -> None:
    """Casts that widened fp16 and now go from float32 to float32.

    They are valid, but ONNX Runtime's optimiser (1.32) loses their outputs when it removes them
    after another cast, and then refuses the model.
    """
    for node in list(graph):
        if node.op_type != "Cast" or node.domain or node.attributes["to"].as_int() != _WIDE:
            continue
        value, output = node.inputs[0], node.outputs[0]
        if value is not None and value.dtype == _WIDE and not output.is_graph_output():
            ir.convenience.replace_all_uses_with(output, value)
            graph.remove(node, safe=True)


def _round(graph: ir.Graph, value: ir.Value, number: int) -> None:
    """Store a value in fp16 and read it back; all its readers get what was read back."""
    node = value.producer()
    store = ir.node("Cast", [value], {"to": int(_LOW)})
    load = ir.node("Cast", store.outputs, {"to": int(_WIDE)})
    rounded, name = load.outputs[0], value.name
    store.outputs[0].name, value.name = f"{name}/fp16_{number}", f"{name}/raw_{number}"
    rounded.name, rounded.type, rounded.shape = name, value.type, value.shape
    ir.convenience.replace_all_uses_with(value, rounded, replace_graph_outputs=True)
    store.replace_input_with(0, value)
    if node is None:
        graph.insert_before(graph[0], [store, load])
        value.name, rounded.name = name, f"{name}/rounded"
    else:
        graph.insert_after(node, [store, load])
