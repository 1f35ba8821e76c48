"""Values that are known before a model runs, and what they become in the low format."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.convenience import get_const_tensor

from topsideas.graph.mapped import give_back
from topsideas.precision import Numerics
from topsideas.rounding import round_to

# Larger weights are rounded when somebody reads them, each time: two copies of all weights of a
# model of gigabytes do not fit beside what runs it.
_HELD_BYTES = 1 << 20


def constant(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor of an initializer or of a ``Constant`` node's output; None if it is computed."""
    node = value.producer()
    if node is not None and node.op_type == "Constant" and not node.domain:
        attr = node.attributes.get("value")
        if attr is not None and attr.type == ir.AttributeType.TENSOR:
            # Attr.as_tensor checks its type against a protocol, which takes 0.1 ms each time.
            tensor: ir.TensorProtocol = attr.value
            tensor.name = value.name
            return tensor
    return get_const_tensor(value) if node is not None or value.is_initializer() else None


class LowConstants:
    """Rounded copies of constants, one object for each however often it is asked for.

    Args:
        numerics: The rounding.
    """

    def __init__(self, numerics: Numerics) -> None:
        self.numerics = numerics
        self._rounded: dict[int, tuple[ir.TensorProtocol, ir.TensorProtocol]] = {}

    def of(self, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        """The float32 ``tensor`` as stored in the low format."""
        # The original is held beside its copy: an id is unique only while its object lives.
        if id(tensor) not in self._rounded:
            low = self._lazy(tensor) if tensor.nbytes > _HELD_BYTES else self._round(tensor)
            self._rounded[id(tensor)] = (tensor, low)
        return self._rounded[id(tensor)][1]

    def _lazy(self, tensor: ir.TensorProtocol) -> ir.LazyTensor:
        shape = ir.Shape(tensor.shape.numpy())
        return ir.LazyTensor(lambda: self._round(tensor), dtype=tensor.dtype, shape=shape)

    def _round(self, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        array = tensor.numpy()
        rounded = ir.Tensor(round_to(array, self.numerics))
        give_back(array)
        return rounded
