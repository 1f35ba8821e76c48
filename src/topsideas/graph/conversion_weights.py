"""Weights as a low op stores them: rounded once, and reported where they do not fit."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from topsideas.precision import Numerics, Overflow
from topsideas.rounding import low_dtype, round_to

# Smaller weights are rounded again each time: cheaper than remembering them.
_REMEMBER_BYTES = 1 << 12


class LowWeights:
    """Makes low copies of float32 tensors and notes those whose values overflow.

    A weight in an external file is not held in memory: it is rounded when it is written.

    Args:
        numerics: The rounding.

    Attributes:
        warnings: One line for each overflowing weight asked for since the list was last cleared.
    """

    def __init__(self, numerics: Numerics) -> None:
        self.numerics = numerics
        self.warnings: list[str] = []
        self._known: dict[int, tuple[ir.TensorProtocol, np.ndarray | None, str]] = {}

    @property
    def dtype(self) -> ir.DataType:
        """The low type."""
        return ir.DataType(self.numerics.precision.onnx_type)

    def of(self, tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
        """``tensor`` in the low type.

        Args:
            tensor: A float32 tensor.
            name: What the tensor is called in the model, for the warning.
        """
        _, low, overflow = self._known.get(id(tensor)) or self._look_at(tensor)
        if overflow:
            self.warnings.append(f"weight {name!r}: {overflow}")
        if low is not None:
            return ir.Tensor(low, dtype=self.dtype, name=name)
        return ir.LazyTensor(
            lambda: ir.Tensor(self._store(tensor.numpy()), dtype=self.dtype),
            dtype=self.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=name,
        )

    def _look_at(
        self, tensor: ir.TensorProtocol
    ) -> tuple[ir.TensorProtocol, np.ndarray | None, str]:
        array = tensor.numpy()
        low = self._store(array)
        held = None if isinstance(tensor, ir.ExternalTensor) else low
        # The original is held beside its copy: an id is unique only while its object lives.
        entry = tensor, held, self._overflow(array)
        if tensor.nbytes >= _REMEMBER_BYTES:
            self._known[id(tensor)] = entry
        return entry

    def _store(self, array: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            low = round_to(array, self.numerics).astype(low_dtype(self.numerics.precision))
        return np.asarray(low).reshape(array.shape)

    def _overflow(self, array: np.ndarray) -> str:
        """How many finite values lie beyond the low format; empty if none."""
        precision = self.numerics.precision
        magnitude = np.abs(array[np.isfinite(array)])
        if not magnitude.size or magnitude.max() <= precision.max:
            return ""
        with np.errstate(over="ignore"):
            lost = int(np.isinf(magnitude.astype(low_dtype(precision))).sum())
        if not lost:  # between the largest low value and the midpoint that rounds up
            return ""
        saturated = self.numerics.overflow is Overflow.SATURATE
        fate = f"saturate at ±{precision.max:.7g}" if saturated else "become infinite"
        return (
            f"{lost} of {array.size} values exceed {precision.name}'s largest "
            f"{precision.max:.7g} and {fate} (largest magnitude {magnitude.max():.7g})"
        )
