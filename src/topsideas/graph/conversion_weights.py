"""Weights as a low op stores them: rounded once, and reported where they do not fit."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from topsideas.graph.mapped import give_back
from topsideas.precision import Numerics, Overflow, Subnormals
from topsideas.rounding import low_dtype, round_to

# Smaller weights are rounded again each time: cheaper than remembering them.
_REMEMBER_BYTES = 1 << 12

# Elements looked at together, so that a weight of gigabytes needs no copies of its size.
_BLOCK = 1 << 22


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
            lambda: ir.Tensor(self._read(tensor), dtype=self.dtype),
            dtype=self.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=name,
        )

    def _look_at(
        self, tensor: ir.TensorProtocol
    ) -> tuple[ir.TensorProtocol, np.ndarray | None, str]:
        array = tensor.numpy()
        held = None if isinstance(tensor, ir.ExternalTensor) else self._store(array)
        # The original is held beside its copy: an id is unique only while its object lives.
        entry = tensor, held, self._overflow(array)
        give_back(array)
        if tensor.nbytes >= _REMEMBER_BYTES:
            self._known[id(tensor)] = entry
        return entry

    def _read(self, tensor: ir.TensorProtocol) -> np.ndarray:
        array = tensor.numpy()
        stored = self._store(array)
        give_back(array)
        return stored

    def _store(self, array: np.ndarray) -> np.ndarray:
        numerics = self.numerics
        plain = numerics.overflow is Overflow.INF and numerics.subnormals is Subnormals.KEEP
        with np.errstate(over="ignore", invalid="ignore"):
            # A plain cast is the way there of ``round_to``, which also comes back.
            rounded = array if plain else round_to(array, numerics)
            low = rounded.astype(low_dtype(numerics.precision))
        return np.asarray(low).reshape(array.shape)

    def _overflow(self, array: np.ndarray) -> str:
        """How many finite values lie beyond the low format; empty if none."""
        precision = self.numerics.precision
        lost, largest = 0, 0.0
        for start in range(0, array.size, _BLOCK):
            magnitude = np.abs(array.reshape(-1)[start : start + _BLOCK])
            magnitude = magnitude[np.isfinite(magnitude) & (magnitude > precision.max)]
            if magnitude.size:
                lost += self._count_infinite(magnitude)
                largest = max(largest, float(magnitude.max()))
        if not lost:  # what lies between the largest low value and the midpoint rounds down
            return ""
        saturated = self.numerics.overflow is Overflow.SATURATE
        fate = f"saturate at ±{precision.max:.7g}" if saturated else "become infinite"
        return (
            f"{lost} of {array.size} values exceed {precision.name}'s largest "
            f"{precision.max:.7g} and {fate} (largest magnitude {largest:.7g})"
        )

    def _count_infinite(self, magnitude: np.ndarray) -> int:
        with np.errstate(over="ignore"):
            return int(np.isinf(magnitude.astype(low_dtype(self.numerics.precision))).sum())
