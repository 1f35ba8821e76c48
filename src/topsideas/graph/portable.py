"""A model as bytes that refer to no file: what a session in memory can be opened from."""

from __future__ import annotations

from collections.abc import Iterator

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
    shape = ir.Shape(tensor.numpy().shape)
    return ir.ExternalTensor("weights", 0, tensor.nbytes, tensor.dtype, shape=shape, name=name)


