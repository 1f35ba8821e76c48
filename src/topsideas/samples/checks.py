"""Arrays against a signature: every mismatch is named with what was expected and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from topsideas.errors import SampleError
from topsideas.samples.conversion import as_declared, conversion_hint
from topsideas.samples.sample import Array
from topsideas.samples.signature import TensorSpec, dtype_name, shape_text

Sizes = dict[str, tuple[int, str]]  # symbol -> its size, and the axis that fixed it


def check_arrays(
    arrays: Mapping[str, Array], specs: Sequence[TensorSpec], where: str, sizes: Sizes
) -> dict[str, Array]:
    """The arrays in the order of ``specs``, each of its declared dtype.

    Args:
        arrays: What was found, by name.
        specs: What the model declares.
        where: Starts each message: a file, or the place in the caller's list.
        sizes: What each symbolic dimension measures in this sample; extended here.

    Raises:
        SampleError: A name, dtype, shape or value does not fit.
    """
    check_names(list(arrays), [spec.name for spec in specs], where)
    return {spec.name: _checked(arrays[spec.name], spec, where, sizes) for spec in specs}


def check_golden(
    arrays: Mapping[str, Array], specs: Sequence[TensorSpec], where: str, sizes: Sizes
) -> tuple[dict[str, Array], str | None]:
    """As :func:`check_arrays`, for golden outputs: a shape that does not fit is no error yet.

    Exporters declare shapes of outputs that are not so, and runtimes do not mind.

    Returns:
        The arrays, and what does not fit, to be raised unless the model itself gives such shapes.
    """
    found = check_arrays(arrays, [spec.of_any_shape() for spec in specs], where, sizes)
    try:
        for spec in specs:
            _check_shape(found[spec.name].shape, spec, f"{where}: {spec.name!r}")
            _bind(found[spec.name].shape, spec, where, sizes)
    except SampleError as error:
        return found, str(error)
    return found, None


def check_names(found: Sequence[str], expected: Sequence[str], where: str) -> None:
    """Raise unless both hold the same names."""
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    if missing or extra:
        parts = [f"{name!r} is missing" for name in missing]
        parts += [
            f"{name!r} is not in the model{_name_hint(name, missing or expected)}"
            for name in extra
        ]
        raise SampleError(
            f"{where}: {'; '.join(parts)}; expected {_listed(expected)}, found {_listed(found)}"
        )


def check_declared(
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    specs: Sequence[TensorSpec],
    where: str,
) -> None:
    """Raise where an array cannot fit, by what is known before its data is read."""
    for spec in specs:
        if spec.name == name and spec.is_tensor:
            what = f"{where}: {name!r}"
            _of_dtype(np.empty(0, dtype), spec, what)
            _check_shape(shape, spec, what)


def _name_hint(name: str, candidates: Sequence[str]) -> str:
    if name.startswith("arr_"):
        return " (a name np.savez gives to an unnamed array: np.savez(file, **{name: array}))"
    close = difflib.get_close_matches(name, candidates, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:20]) or "nothing"
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _checked(array: Array, spec: TensorSpec, where: str, sizes: Sizes) -> Array:
    what = f"{where}: {spec.name!r}"
    if not spec.is_tensor:
        raise SampleError(
            f"{what} is a sequence, optional or sparse value in the model; samples hold plain "
            "tensors only, so rewrite the model to take and give tensors here"
        )
    typed = _of_dtype(array, spec, what)
    _check_shape(typed.shape, spec, what)
    _bind(typed.shape, spec, where, sizes)
    _check_no_nan(typed, what)
    return typed


def _of_dtype(array: Array, spec: TensorSpec, what: str) -> Array:
    typed = as_declared(array, spec.dtype)
    if typed is None:
        raise SampleError(
            f"{what}: expected {dtype_name(spec.dtype)}, found {array.dtype.name}; "
            f"{conversion_hint(array, spec.dtype)}"
        )
    return typed


def _check_shape(shape: tuple[int, ...], spec: TensorSpec, what: str) -> None:
    declared = spec.shape
    if declared is None:
        return
    expected = f"expected shape {shape_text(declared)}, found {shape_text(shape)}"
    if len(shape) != len(declared):
        raise SampleError(
            f"{what}: {expected}: rank {len(declared)} against {len(shape)}"
            f"{_rank_hint(shape, declared)}"
        )
    for axis, (size, dim) in enumerate(zip(shape, declared, strict=True)):
        if isinstance(dim, int) and size != dim:
            raise SampleError(f"{what}: {expected}: axis {axis} must be {dim}, is {size}")


def _rank_hint(shape: tuple[int, ...], declared: Sequence[Any]) -> str:
    lacks_batch = len(shape) + 1 == len(declared) and all(
        not isinstance(dim, int) or dim == size
        for size, dim in zip(shape, declared[1:], strict=True)
    )
    return "; add the batch axis with array[np.newaxis]" if lacks_batch else ""


def _bind(shape: tuple[int, ...], spec: TensorSpec, where: str, sizes: Sizes) -> None:
    for axis, (size, dim) in enumerate(zip(shape, spec.shape or shape, strict=True)):
        if not isinstance(dim, str):
            continue
        here = f"axis {axis} of {spec.name!r}"
        known, there = sizes.setdefault(dim, (size, here))
        if known != size:
            raise SampleError(
                f"{where}: dimension {dim!r} is {size} at {here} but {known} at {there}; "
                "expected one size per symbol inside a sample"
            )


def _check_no_nan(array: Array, what: str) -> None:
    if array.dtype.kind not in "fcV":
        return
    nan = np.isnan(array)
    if nan.any():
        first = tuple(int(i) for i in np.argwhere(nan)[0])
        raise SampleError(
            f"{what}: holds NaN in {int(nan.sum())} of {array.size} elements, first at index "
            f"{first}; expected numbers, since nothing can be compared with NaN; "
            "check how the array was made"
        )
