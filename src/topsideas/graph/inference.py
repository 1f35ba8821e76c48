"""Element types of all values: ONNX's inference first, schemas where that knows nothing."""

from __future__ import annotations

import onnx
import onnx.inliner
import onnx_ir as ir

from topsideas.graph.schemas import same_type_inputs


def inline_and_infer(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Inline local functions and annotate values with their types.

    Inference that fails leaves types unknown, never wrong: such ops are pinned later.
    """
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto, False)
    try:
        return onnx.shape_inference.infer_shapes(
            proto, check_type=False, strict_mode=False, data_prop=False
        )
    except Exception:  # the C++ side raises many kinds on graphs it does not understand
        return proto


def complete_types(model: ir.Model) -> None:
    """Give outputs that have no type the one of an input that the schema ties them to.

    ONNX's inference knows nothing of other domains, such as ``com.microsoft``.
    """
    for node in model.graph.all_nodes():
        for index, output in enumerate(node.outputs):
            if output.type is None and output.name:
                output.type = _tied_type(node, index, model)


def _tied_type(node: ir.Node, index: int, model: ir.Model) -> ir.TypeProtocol | None:
    for position in same_type_inputs(node, index, model.opset_imports):
        value = node.inputs[position]
        if value is not None and value.type is not None:
            return value.type
    return None
