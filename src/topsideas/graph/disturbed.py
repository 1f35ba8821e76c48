"""A model to whose values errors can be added, to see what they do to the outputs."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from topsideas.graph.emulation import forget_shapes
from topsideas.graph.names import Names


def disturbed(model: ir.Model, names: Collection[str]) -> tuple[ir.Model, dict[str, str]]:
    """A copy of a model with an error as a further input for each of some values.

    Args:
        model: The model; left unchanged. Weights are shared with the copy.
        names: Float32 values that nodes of the main graph write.

    Returns:
        The copy, and the name of the error of each value. A scalar 0 is none.
    """
    copy = model.clone()
    graph = copy.graph
    forget_shapes(graph)
    fresh = Names((graph, *graph.subgraphs()))
    errors = {}
    for node in list(graph):
        for value in node.outputs:
            if value.name in names:
                error = ir.Value(name=fresh.fresh(f"{value.name}/error"), type=value.type)
                errors[str(value.name)] = str(error.name)
                graph.inputs.append(error)
                _add(node, value, error, fresh)
    return copy, errors


def _add(node: ir.Node, value: ir.Value, error: ir.Value, fresh: Names) -> None:
    name = str(value.name)
    value.name = fresh.fresh(f"{name}/exact")
    add = ir.Node("", "Add", [None, error], name=fresh.fresh(f"{name}/disturbed"))
    result = add.outputs[0]
    result.name, result.type = name, value.type
    ir.convenience.replace_all_uses_with(value, result, replace_graph_outputs=True)
    add.replace_input_with(0, value)
    node.append(add)
