"""Tensors of types that numpy lacks (bfloat16, float8, 4-bit integers), as their bits.

ONNX Runtime takes and gives them as values of its own only. Here they are unsigned integers of
the tensor's shape that hold its bytes; several small values share a byte, and the rest is 0.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

# By ONNX Runtime's names of element types.
_STRANGE = {
    "bfloat16": ir.DataType.BFLOAT16,
    "float8e4m3fn": ir.DataType.FLOAT8E4M3FN,
    "float8e4m3fnuz": ir.DataType.FLOAT8E4M3FNUZ,
    "float8e5m2": ir.DataType.FLOAT8E5M2,
    "float8e5m2fnuz": ir.DataType.FLOAT8E5M2FNUZ,
    "int4": ir.DataType.INT4,
    "uint4": ir.DataType.UINT4,
}


def strange_types(session: ort.InferenceSession) -> dict[str, ir.DataType]:
    """The types numpy lacks among a session's inputs and outputs, by name."""
    values = (*session.get_inputs(), *session.get_outputs())
    kinds = {v.name: v.type.removeprefix("tensor(").removesuffix(")") for v in values}
    return {name: _STRANGE[kind] for name, kind in kinds.items() if kind in _STRANGE}


def run_as_bits(session: ort.InferenceSession, feeds: Mapping[str, object]) -> list[np.ndarray]:
    """Run a session with strange inputs or outputs. All must be tensors."""
    kinds = strange_types(session)
    values = {name: _value(array, kinds.get(name)) for name, array in feeds.items()}
    names = [output.name for output in session.get_outputs()]
    results = session.run_with_ort_values(names, values)
    return [
        _bits(value, kinds[name]) if name in kinds else value.numpy()
        for name, value in zip(names, results, strict=True)
    ]


def _value(array: object, kind: ir.DataType | None) -> ort.OrtValue:
    given = np.asarray(array)
    plain = np.ascontiguousarray(given).reshape(given.shape)
    if kind is None:
        return ort.OrtValue.ortvalue_from_numpy(plain)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(plain, int(kind))


def _bits(value: ort.OrtValue, kind: ir.DataType) -> np.ndarray:
    unit = np.dtype(np.uint16 if kind == ir.DataType.BFLOAT16 else np.uint8)
    bits = np.zeros(value.shape(), unit)
    held = value.tensor_size_in_bytes()
    if held:
        source = (ctypes.c_ubyte * held).from_address(value.data_ptr())
        bits.reshape(-1).view(np.uint8)[:held] = np.frombuffer(source, np.uint8)
    return bits
