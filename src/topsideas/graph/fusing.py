"""LayerNormalization as one op, where a model spells it out: inside, it computes in fp32."""

from __future__ import annotations

import logging
from typing import Any

import onnx
import onnx_ir as ir

from topsideas.graph.lifting import lift, liftable_to
from topsideas.graph.ops import number, op_id
from topsideas.graph.repairs import NotApplicable, Workbench

_FIRST_OPSET = 17
_TAG = "topsideas:"


def fuse_layer_normalization(bench: Workbench) -> list[str]:
    """Fuse by ONNX Runtime's own rules; the nodes that are left keep their ids.

    Raises:
        NotApplicable: There is none, or the opset has no such op and cannot be lifted.
    """
    model = bench.model
    opset = model.opset_imports.get("", 1)
    if opset < _FIRST_OPSET:
        nodes = [node for graph in model.graphs() for node in graph]
        if liftable_to(nodes, opset, _FIRST_OPSET) < _FIRST_OPSET:
            raise NotApplicable(f"opset {opset} cannot be lifted to {_FIRST_OPSET}")
        lift(model, _FIRST_OPSET)
    proto = _tagged(model)
    count = _fuse(proto)
    if not count:
        raise NotApplicable("no LayerNormalization is spelled out")
    bench.adopt(_untagged(proto))
    return [f"{count} LayerNormalization fused into one op each (opset {_FIRST_OPSET})"]


def _tagged(model: ir.Model) -> onnx.ModelProto:
    """The model with its op ids as node names, which survive what is done to it."""
    for graph in model.graphs():
        for node in graph:
            node.name = f"{_TAG}{op_id(node)}"
    return ir.to_proto(model)


def _untagged(proto: onnx.ModelProto) -> ir.Model:
    model = ir.serde.deserialize_model(proto)
    for graph in model.graphs():
        for node in graph:
            name = node.name or ""
            number(node, int(name.removeprefix(_TAG)) if name.startswith(_TAG) else -1)
    return model


def _fuse(proto: onnx.ModelProto) -> int:
    # Imported here: it takes a second.
    from onnxruntime.transformers.fusion_layernorm import FusionLayerNormalization
    from onnxruntime.transformers.onnx_model import OnnxModel

    logging.getLogger("onnxruntime.transformers").setLevel(logging.WARNING)
    model: Any = OnnxModel(proto)
    before = _count(proto)
    try:
        FusionLayerNormalization(model).apply()
        model.topological_sort()
    except Exception as error:  # the optimiser raises many kinds on graphs it does not expect
        raise NotApplicable(f"ONNX Runtime's fusion fails: {error}") from error
    return _count(proto) - before


def _count(proto: onnx.ModelProto) -> int:
    return sum(node.op_type == "LayerNormalization" for node in proto.graph.node)
