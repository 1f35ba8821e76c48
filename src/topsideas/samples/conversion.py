"""Arrays brought to a declared dtype where no value changes, and advice where one would."""

from __future__ import annotations

from typing import Any

import numpy as np

from topsideas.samples.sample import Array

_STRINGS = np.dtype(object)
_USER_DEFINED = 2  # numpy's mark of a dtype registered by another package: ml_dtypes here


def as_declared(array: Array, dtype: np.dtype[Any] | None) -> Array | None:
    """The array in ``dtype`` and C order with every value unchanged; None if it is of another.

    Byte order does not matter, strings may have any width, and the raw bytes that npz files
    keep of bfloat16 and its kin are taken for what the model declares.
    """
    if dtype == _STRINGS or (dtype is None and array.dtype.kind in "OSUT"):
        return _as_strings(array)
    if dtype is None:
        return np.asarray(array, order="C")
    if array.dtype.newbyteorder("=") == dtype:
        return np.asarray(array, dtype=dtype, order="C")
    if dtype.isbuiltin == _USER_DEFINED and _is_raw(array.dtype, dtype.itemsize):
        return np.asarray(array, order="C").view(dtype)
    return None


def conversion_hint(array: Array, dtype: np.dtype[Any] | None) -> str:
    """How the caller gets from the array to ``dtype``."""
    code = dtype_code(dtype)
    if code.startswith("ml_dtypes") and array.dtype.name == f"uint{8 * array.itemsize}":
        return f"convert with .astype({code}), or .view({code}) if these are its bits"
    return f"convert with .astype({code})"


def dtype_code(dtype: np.dtype[Any] | None) -> str:
    """A dtype as one writes it in Python."""
    if dtype is None or dtype == _STRINGS:
        return "np.str_"
    if dtype.isbuiltin == _USER_DEFINED:
        return f"ml_dtypes.{dtype.name}"
    return "np.bool_" if dtype.kind == "b" else f"np.{dtype.name}"


def _is_raw(dtype: np.dtype[Any], itemsize: int) -> bool:
    return dtype.type is np.void and dtype.names is None and dtype.itemsize == itemsize


def _as_strings(array: Array) -> Array | None:
    try:
        if array.dtype.kind == "S":
            array = np.char.decode(array, "utf-8")
        strings = array.astype(object)
    except ValueError:  # bytes that are no text
        return None
    return strings if all(isinstance(item, str) for item in strings.flat) else None
