"""Rounding of arrays to a low precision and back: the reference in numpy.

Round to nearest, ties to even (IEEE 754-2019, section 4.3.1). NaN stays NaN, zeros keep their
sign.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

from topsideas.precision import FP16, Numerics, Overflow, Precision, Subnormals


def low_dtype(precision: Precision) -> np.dtype:
    """The numpy dtype that stores ``precision``."""
    return np.dtype(np.float16 if precision is FP16 else ml_dtypes.bfloat16)


def round_to(array: np.ndarray, numerics: Numerics) -> np.ndarray:
    """What a float32 ``array`` becomes when it is stored in the low format and read back.

    Args:
        array: float32, any shape.
        numerics: The format, what overflow becomes, and whether subnormals survive.

    Returns:
        A new float32 array of the same shape.
    """
    limit = np.float32(numerics.precision.max)
    if numerics.overflow is Overflow.SATURATE:
        # numpy makes a scalar of an array without axes here.
        array = np.asarray(np.clip(array, -limit, limit))
    with np.errstate(over="ignore", invalid="ignore"):
        rounded: np.ndarray = array.astype(low_dtype(numerics.precision)).astype(np.float32)
        if numerics.subnormals is Subnormals.FLUSH:
            rounded *= ~(np.abs(rounded) < np.float32(numerics.precision.smallest_normal))
    return rounded
