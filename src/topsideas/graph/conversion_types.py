"""Types of a converted model: attributes that fix an output's type, and the proof by inference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir

from topsideas.errors import ModelError
from topsideas.graph.conversion_weights import LowWeights
from topsideas.graph.schemas import Slots

# Integer attributes that name the element type of an output, in every domain that has them.
TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "output_datatype")

# Weights up to this size stay in the skeleton that inference sees: shapes are among them.
_SKELETON_BYTES = 4096


def set_output_types(
    node: ir.Node, slots: Slots, weights: LowWeights, opsets: Mapping[str, int]
) -> None:
    """Make the outputs of a low op low, by its attributes where these decide their type."""
    for index in slots.outputs:
        node.outputs[index].type = ir.TensorType(weights.dtype)
    if not slots.outputs:
        return
    for name in TYPE_ATTRIBUTES:
        if _attribute(node, name, opsets) == ir.DataType.FLOAT:
            node.attributes[name] = ir.AttrInt64(name, weights.dtype)
    if node.op_type == "ConstantOfShape" and not node.domain:
        given = node.attributes.get("value")
        fill = given.as_tensor() if given else ir.Tensor(np.zeros(1, np.float32))
        name = node.outputs[0].name or ""
        node.attributes["value"] = ir.AttrTensor("value", weights.of(fill, name))


def _attribute(node: ir.Node, name: str, opsets: Mapping[str, int]) -> int | None:
    """An integer attribute, or its default."""
    if name in node.attributes:
        attr = node.attributes[name]
        return attr.as_int() if attr.type == ir.AttributeType.INT else None
    try:
        schema = onnx.defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
    except onnx.defs.SchemaError:
        return None
    default = schema.attributes[name].default_value if name in schema.attributes else None
    return int(default.i) if default is not None and default.HasField("i") else None


def check_types(converted: ir.Model, original: ir.Model) -> None:
    """Prove by strict inference that every value has the type that it was given.

    Only types are inferred: a stale shape in the user's file is not the conversion's fault.

    Raises:
        ModelError: Inference contradicts the planned types although it accepts ``original``.
    """
    failure = _inference_failure(converted)
    if failure and not _inference_failure(original):
        raise ModelError(
            f"the mixed-precision model's types do not check: {failure}. Remedy: keep the op that "
            "is named in fp32, and report this as a defect of the converter"
        )


def _inference_failure(model: ir.Model) -> str:
    """What strict inference objects to; empty if nothing."""
    try:
        onnx.shape_inference.infer_shapes(_skeleton(model), check_type=True, strict_mode=True)
    except Exception as error:  # onnx raises several kinds, some from C++
        return " ".join(str(error).split())[:300]
    return ""


def _skeleton(model: ir.Model) -> onnx.ModelProto:
    """The model without shapes and without the bytes of its weights."""
    copy = model.clone()
    for graph in copy.graphs():
        for value in (*graph.inputs, *graph.initializers.values()):
            value.shape = None
            if value.const_value is not None:
                value.const_value = _hollow(value.const_value)
        for node in graph:
            for value in node.outputs:
                value.shape = None
            for name, attr in node.attributes.items():
                if attr.type == ir.AttributeType.TENSOR:
                    node.attributes[name] = ir.AttrTensor(name, _hollow(attr.as_tensor()))
    return ir.to_proto(copy)


def _hollow(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """A large tensor's type and shape, with its bytes declared to lie elsewhere."""
    if tensor.nbytes <= _SKELETON_BYTES:
        return tensor
    shape = ir.Shape(tensor.shape.numpy())
    return ir.ExternalTensor("weights", 0, tensor.nbytes, tensor.dtype, shape=shape, name="weight")
