"""What is fed to a runtime is checked against the model first: some runtimes do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from topsideas.engines.base import Arrays
from topsideas.errors import EngineError
from topsideas.graph.loading import Model


def checked_feeds(model: Model, feeds: Arrays) -> dict[str, np.ndarray]:
    """The arrays for the inputs that the model must be fed, laid out one row after another.

    Raises:
        EngineError: One is missing, or has another dtype, rank or fixed size than the model says.
    """
    found = {}
    for value in model.inputs():
        name = str(value.name)
        if name not in feeds:
            raise EngineError(f"no array for input {name!r}; given: {sorted(feeds)}")
        found[name] = _checked(value, np.asarray(feeds[name]))
    return found


def _checked(value: ir.Value, array: np.ndarray) -> np.ndarray:
    dtype = value.dtype.numpy() if value.dtype is not None else array.dtype
    if array.dtype != dtype:
        raise EngineError(f"input {value.name!r} is {array.dtype}; expected {dtype}")
    wanted = None if value.shape is None else list(value.shape)
    if wanted is not None and not _fits(array.shape, wanted):
        shape = ",".join(str(d) if isinstance(d, int) else d.value or "?" for d in wanted)
        raise EngineError(f"input {value.name!r} has shape {array.shape}; expected [{shape}]")
    # A scalar stays one: ascontiguousarray gives at least one axis.
    return np.asarray(array, order="C")


def _fits(shape: tuple[int, ...], wanted: list[Any]) -> bool:
    if len(shape) != len(wanted):
        return False
    return all(not isinstance(w, int) or w == d for d, w in zip(shape, wanted, strict=True))


def in_order(model: Model, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs in the model's order and of its dtypes. Raises EngineError if one is missing."""
    found = {}
    for value in model.graph.outputs:
        name = str(value.name)
        if name not in outputs:
            raise EngineError(f"the engine gave no output {name!r}; it gave {sorted(outputs)}")
        found[name] = outputs[name]
    return found
