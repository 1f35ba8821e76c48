"""Values that are known before a model runs, and what they become in the low format."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.convenience import get_const_tensor

from topsideas.precision import Numerics
from topsideas.rounding import round_to


def constant(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor of an initializer or of a ``Constant`` node's output; None if it is computed."""
    if value.is_initializer() or value.producer() is not None:
        return get_const_tensor(value)
    return None


class LowConstants:
    """Rounded copies of constants, each made once however often it is asked for.

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
            rounded = ir.Tensor(round_to(tensor.numpy(), self.numerics))
            self._rounded[id(tensor)] = (tensor, rounded)
        return self._rounded[id(tensor)][1]
