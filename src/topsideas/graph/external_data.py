"""Weights in files of their own: where they lie, and whether what tensors declare is there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

from topsideas.errors import ModelError


def external_files(proto: onnx.ModelProto, path: Path | None) -> list[Path]:
    """The files that hold weights, each proved to lie inside the model's folder.

    Args:
        proto: The model.
        path: Where it was read from; None if it came from memory.

    Raises:
        ModelError: A file is missing, lies outside the folder, or lacks what tensors say it holds.
    """
    found = _tensors(proto.graph) + [t for f in proto.functions for t in _attribute_tensors(f)]
    tensors = [t for t in found if t.data_location == onnx.TensorProto.EXTERNAL]
    if path is None:
        if tensors:
            raise ModelError(
                "the ModelProto keeps weights in external data, which cannot be found from "
                "memory; load it with onnx.load(path) (load_external_data=True) or pass the path"
            )
        return []
    files = {}
    for tensor in tensors:
        declared = {entry.key: entry.value for entry in tensor.external_data}
        location = declared.get("location", "")
        if location not in files:
            files[location] = _contained(path.parent, location)
        _check_range(tensor, declared, files[location])
    return [files[location] for location in sorted(files)]


def _contained(folder: Path, location: str) -> Path:
    # A zero byte ends a path for the system, and Python refuses it.
    target = (folder / location.replace("\0", "?")).resolve()
    if Path(location).is_absolute() or not target.is_relative_to(folder.resolve()):
        raise ModelError(
            f"external data {location!r} lies outside the model's folder {folder}; "
            "only relative paths inside it are read"
        )
    if not target.is_file():
        raise ModelError(f"external data file {location!r} is missing in {folder}")
    return target


def _check_range(tensor: onnx.TensorProto, declared: Mapping[str, str], file: Path) -> None:
    """The bytes that a tensor says it has in a file must be there."""
    what = f"{file}: external data of {tensor.name!r}"
    for key in ("offset", "length"):
        text = declared.get(key, "0")
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise ModelError(f"{what} has {key} {text!r}; expected a whole number of bytes")
    offset, size = int(declared.get("offset", 0)), file.stat().st_size
    length = int(declared.get("length", _size(tensor)))
    if offset + max(length, _size(tensor)) > size or length < _size(tensor):
        raise ModelError(
            f"{what} is {_size(tensor)} bytes by its shape and type, declared as {length} bytes "
            f"from {offset}, but the file has {size}; it is cut short or of another model"
        )


def _size(tensor: onnx.TensorProto) -> int:
    try:
        size: int = math.ceil(math.prod(tensor.dims) * ir.DataType(tensor.data_type).itemsize)
        return size
    except (ValueError, TypeError):  # a type that the checker will name
        return 0


def _tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """All initializers and tensor attributes, bodies included."""
    sparse = [t for s in graph.sparse_initializer for t in (s.values, s.indices)]
    return [*graph.initializer, *sparse, *_attribute_tensors(graph)]


def _attribute_tensors(graph: onnx.GraphProto | onnx.FunctionProto) -> list[onnx.TensorProto]:
    found: list[onnx.TensorProto] = []
    for node in graph.node:
        for attr in node.attribute:
            found += [attr.t] if attr.HasField("t") else list(attr.tensors)
            for body in [attr.g] if attr.HasField("g") else list(attr.graphs):
                found += _tensors(body)
    return found
