"""What runs models in the converter's tests: ONNX Runtime, or ONNX's reference implementation.

The latter is slow and in numpy, but has every operator and every type.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator

# What numpy has of its own; everything else goes to ONNX Runtime as bytes.
_PLAIN = frozenset("?bBhHiIlLqQefdFDOUS")


class Runner(Protocol):
    """Runs a model."""

    name: str

    def __call__(self, model: onnx.ModelProto, feeds: Mapping[str, object]) -> list[object]:
        """Its outputs, in order."""
        ...


class Runtime:
    """ONNX Runtime's CPU provider with nothing optimised."""

    name = "ONNX Runtime"

    def __call__(self, model: onnx.ModelProto, feeds: Mapping[str, object]) -> list[object]:
        session = opened(model)
        if all(_is_plain(value) for value in feeds.values()) and _plain_outputs(session):
            return list(session.run(None, dict(feeds)))
        kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
        values = {name: _value(array, kinds[name]) for name, array in feeds.items()}
        return [_bytes(value) for value in session.run_with_ort_values(None, values)]


class Reference:
    """The ONNX project's reference implementation."""

    name = "ONNX's reference implementation"

    def __call__(self, model: onnx.ModelProto, feeds: Mapping[str, object]) -> list[object]:
        with np.errstate(all="ignore"):
            found = ReferenceEvaluator(_closed(model)).run(None, dict(feeds))
        return [np.asarray(v) if isinstance(v, np.generic) else v for v in found]


def _closed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Bodies with weights of their own: some operators hide those of the graph around them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    weights = {weight.name: weight for weight in copy.graph.initializer}
    for node in copy.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                inputs = {name for inner in attribute.g.node for name in inner.input}
                taken = {weight.name for weight in attribute.g.initializer}
                wanted = sorted((inputs & weights.keys()) - taken)
                attribute.g.initializer.extend(weights[name] for name in wanted)
    return copy


def opened(model: onnx.ModelProto) -> ort.InferenceSession:
    """A session."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    blob = model.SerializeToString()
    return ort.InferenceSession(blob, options, providers=["CPUExecutionProvider"])


def proto_of(model: ir.Model) -> onnx.ModelProto:
    """A model that shares nothing."""
    return ir.to_proto(model)


def _is_plain(value: object) -> bool:
    return not isinstance(value, np.ndarray) or value.dtype.char in _PLAIN


def _plain_outputs(session: ort.InferenceSession) -> bool:
    strange = ("bfloat16", "float8", "float4", "int4", "int2")
    return not any(word in o.type for o in session.get_outputs() for word in strange)


def _value(array: object, kind: int) -> ort.OrtValue:
    assert isinstance(array, np.ndarray)
    if _is_plain(array):
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
    raw = array.view(np.uint16 if array.dtype.itemsize == 2 else np.uint8)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(raw), kind)


def _bytes(value: ort.OrtValue) -> np.ndarray:
    """The bytes of a tensor of any type."""
    size = value.tensor_size_in_bytes()
    if not size:
        return np.zeros(0, np.uint8)
    return np.frombuffer((ctypes.c_ubyte * size).from_address(value.data_ptr()), np.uint8).copy()
