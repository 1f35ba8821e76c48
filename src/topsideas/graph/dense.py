"""Sparse tensors made dense: onnx-ir does not read them, and every low op would anyway."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import numpy_helper

from topsideas.errors import ModelError

# A sparse tensor states its dense size in a few bytes; refuse what a hostile file could ask for.
_MAX_BYTES = 1 << 31


def densify_sparse(proto: onnx.ModelProto) -> None:
    """Replace sparse initializers and sparse ``Constant`` values by dense ones, in place.

    Raises:
        ModelError: A sparse tensor would take more than 2 GB when dense.
    """
    _densify_graph(proto.graph)
    for function in proto.functions:
        for node in function.node:
            _densify_node(node)


def _densify_graph(graph: onnx.GraphProto) -> None:
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_dense(sparse))
    del graph.sparse_initializer[:]
    for node in graph.node:
        _densify_node(node)


def _densify_node(node: onnx.NodeProto) -> None:
    for attr in node.attribute:
        if attr.type == onnx.AttributeProto.SPARSE_TENSOR:
            dense = _dense(attr.sparse_tensor)
            attr.Clear()
            attr.name, attr.type = "value", onnx.AttributeProto.TENSOR
            attr.t.CopyFrom(dense)
        for body in [attr.g] if attr.HasField("g") else attr.graphs:
            _densify_graph(body)


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    values = numpy_helper.to_array(sparse.values)
    shape = tuple(sparse.dims)
    if math.prod(shape) * values.itemsize > _MAX_BYTES:
        raise ModelError(f"sparse tensor {sparse.values.name!r} of shape {shape} is over 2 GB")
    dense = np.zeros(shape, values.dtype)
    indices = numpy_helper.to_array(sparse.indices)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return numpy_helper.from_array(dense, sparse.values.name)
