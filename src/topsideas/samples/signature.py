"""What a model takes and gives: the names, dtypes and shapes that samples are checked against."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from topsideas.graph.loading import Model

Dim = int | str | None


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: Its name in the graph.
        dtype: The element type; ``object`` for strings, None if unknown or not a tensor.
        shape: A size, a symbol or None (unknown) per axis; None if the rank is unknown.
        is_tensor: False for sequences, optionals and sparse tensors, which no sample can hold.
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[Dim, ...] | None
    is_tensor: bool = True

    @property
    def dynamic(self) -> bool:
        """Whether any size is left open."""
        return self.shape is None or any(not isinstance(dim, int) for dim in self.shape)

    def of_any_shape(self) -> TensorSpec:
        """The same with its shape left open."""
        return replace(self, shape=None)

    def __str__(self) -> str:
        """The spec as messages show it: ``float32[N,3,224,224]``."""
        if not self.is_tensor:
            return "not a tensor"
        return f"{dtype_name(self.dtype)}{shape_text(self.shape)}"


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs a caller must feed and the outputs that come back, in the model's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs."""
        return [spec.name for spec in self.inputs]

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs."""
        return [spec.name for spec in self.outputs]


def signature_of(model: Model) -> Signature:
    """The signature of a loaded model."""
    return Signature(
        tuple(_spec(value) for value in model.inputs()),
        tuple(_spec(value) for value in model.graph.outputs),
    )


def dtype_name(dtype: np.dtype[Any] | None) -> str:
    """A dtype as messages show it."""
    if dtype is None:
        return "any type"
    return "string" if dtype == np.dtype(object) else dtype.name


def shape_text(shape: tuple[Dim, ...] | None) -> str:
    """A shape as messages show it: ``[N,3,?]``."""
    if shape is None:
        return "[of any rank]"
    return f"[{','.join('?' if dim is None else str(dim) for dim in shape)}]"


def _spec(value: ir.Value) -> TensorSpec:
    name = value.name or ""
    if value.type is not None and not isinstance(value.type, ir.TensorType):
        return TensorSpec(name, None, None, is_tensor=False)
    return TensorSpec(name, _dtype(value.dtype), _shape(value.shape))


def _dtype(declared: ir.DataType | None) -> np.dtype[Any] | None:
    if declared is None or declared == ir.DataType.UNDEFINED:
        return None
    return np.dtype(declared.numpy())


def _shape(declared: ir.Shape | None) -> tuple[Dim, ...] | None:
    return None if declared is None else tuple(_dim(dim) for dim in declared)


def _dim(dim: int | ir.SymbolicDim) -> Dim:
    if isinstance(dim, int):
        return dim
    return dim.value if dim.value != "?" else None  # one exporter's way to say "open"
