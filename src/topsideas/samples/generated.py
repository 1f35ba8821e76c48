"""Inputs made up for a model whose user gave no samples: to run it at all, not to judge it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from topsideas.samples.sample import Array
from topsideas.samples.signature import Signature, TensorSpec

# Sizes tried for what the model leaves open: of the first axis, and of all others. Networks with
# strides need some room, others want a batch of one, and sound comes in hundreds of samples.
_SIZES = ((2, 2), (1, 1), (2, 32), (1, 5), (1, 64), (1, 224), (1, 512), (2, 16))

# Inputs that take more are not made up: a file of a few bytes can declare any shape.
_MOST_BYTES, _DRAWN_BYTES = 1 << 30, 8

# Integers tried: most are indices or lengths, and small ones are in range.
_INTEGERS = (1, 0, 2)


def generated_inputs(signature: Signature, seed: int = 0) -> Iterator[dict[str, Array]]:
    """Inputs of the right names, types and ranks, in several sizes until one runs.

    Floats are drawn from the standard normal distribution. Nothing is given where an input's
    type or rank is not known.
    """
    if any(not spec.is_tensor or spec.dtype is None for spec in signature.inputs):
        return
    integers = any(s.dtype is not None and s.dtype.kind in "iu" for s in signature.inputs)
    dynamic = any(spec.dynamic for spec in signature.inputs)
    for sizes in _SIZES if dynamic else _SIZES[:1]:
        for integer in _INTEGERS if integers else _INTEGERS[:1]:
            rng, shapes = np.random.default_rng(seed), [_shape(s, sizes) for s in signature.inputs]
            if sum(math.prod(shape) for shape in shapes) * _DRAWN_BYTES <= _MOST_BYTES:
                yield {
                    spec.name: _array(spec, shape, integer, rng)
                    for spec, shape in zip(signature.inputs, shapes, strict=True)
                }


def _shape(spec: TensorSpec, sizes: tuple[int, int]) -> tuple[int, ...]:
    dims = enumerate(spec.shape or ())
    return tuple(dim if isinstance(dim, int) else sizes[axis > 0] for axis, dim in dims)


def _array(
    spec: TensorSpec, shape: tuple[int, ...], integer: int, rng: np.random.Generator
) -> Array:
    assert spec.dtype is not None
    if spec.dtype.kind == "f":
        return np.asarray(rng.standard_normal(shape)).astype(spec.dtype)
    if spec.dtype == np.dtype(object):
        return np.full(shape, "a", dtype=object)
    return np.full(shape, integer, dtype=spec.dtype)
