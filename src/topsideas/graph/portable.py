"""A model as bytes that refer to no file: what a session in memory can be opened from."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import numpy as np
import onnx_ir as ir

# A protobuf message ends at 2 GB; beyond this size weights are handed over beside the message.
_INLINE_LIMIT = 1_500_000_000

# Weights smaller than this are in the message even then: shapes, scalars, biases.
_REFERRED_BYTES = 1024


def portable(
    model: ir.Model, *, inline_limit: int = _INLINE_LIMIT
) -> tuple[bytes, dict[str, np.ndarray]]:
    """Serialise a model.

    Args:
        model: The model; its weights are replaced by what is serialised, so pass a copy.
        inline_limit: Bytes of weights up to which all of them are in the message.

    Returns:
        The message, and the values of the initializers that it declares as external.
    """
    weights: dict[str, np.ndarray] = {}
    tensors = {n: v.const_value for n, v in model.graph.initializers.items()}
    if sum(t.nbytes for t in tensors.values() if t is not None) > inline_limit:
        for name, tensor in tensors.items():
            if tensor is not None and tensor.nbytes >= _REFERRED_BYTES:
                weights[name] = tensor.numpy()
                model.graph.initializers[name].const_value = placeholder(tensor, name)
    take_in(model.graph, but=weights)
    serialised: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return serialised, weights


def placeholder(tensor: ir.TensorProtocol, name: str) -> ir.ExternalTensor:
    """Declares a tensor whose bytes are handed to the runtime directly."""
    shape = ir.Shape(tensor.shape.numpy())
    return ir.ExternalTensor("weights", 0, tensor.nbytes, tensor.dtype, shape=shape, name=name)


def take_in(graph: ir.Graph, below: float = math.inf, but: Collection[str] = ()) -> None:
    """Read tensors from external files into memory.

    Args:
        graph: A main graph; changed in place.
        below: Its own initializers of this many bytes and more stay outside. Attributes, and what
            bodies hold, is always taken in.
        but: Names of initializers that stay as they are.
    """
    for name, value in graph.initializers.items():
        if name not in but and value.const_value is not None and value.const_value.nbytes < below:
            value.const_value = _held(value.const_value)
    for body in graph.subgraphs():
        for value in body.initializers.values():
            if value.const_value is not None:
                value.const_value = _held(value.const_value)
    for node in _nodes(graph):
        for name, attr in node.attributes.items():
            if attr.type == ir.AttributeType.TENSOR and _is_outside(attr.as_tensor()):
                node.attributes[name] = ir.AttrTensor(name, _held(attr.as_tensor()))


def _nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    for inner in (graph, *graph.subgraphs()):
        yield from inner


def _is_outside(tensor: ir.TensorProtocol) -> bool:
    return isinstance(tensor, ir.ExternalTensor)


def _held(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if not _is_outside(tensor):
        return tensor
    return ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name)
