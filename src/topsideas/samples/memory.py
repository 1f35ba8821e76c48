"""Samples given from Python: a list with one entry per sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from topsideas.errors import SampleError, UsageError
from topsideas.samples.checks import Sizes, check_arrays, check_golden, check_names
from topsideas.samples.conversion import dtype_code
from topsideas.samples.sample import Array, Sample
from topsideas.samples.signature import Signature, TensorSpec, dtype_name

Entry = Mapping[str, Array] | Sequence[Array] | Array
"""Arrays by name, or in the order of the names, or the bare array where there is only one."""


def samples_from_memory(
    sample_inputs: Sequence[Entry],
    sample_outputs: Sequence[Entry | None] | None,
    signature: Signature,
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> list[Sample]:
    """Check arrays given from Python; ids are the places in the list.

    Args:
        sample_inputs: One entry per sample.
        sample_outputs: The golden outputs in the same way; None, or None for a sample, where
            there are none.
        signature: What the arrays are checked against.
        input_names: The order of arrays in an entry; the model's where None.
        output_names: The same for the golden outputs.

    Raises:
        SampleError: An entry does not fit the model.
        UsageError: The names are not the model's.
    """
    input_order = _order(input_names, signature.input_names, "input_names")
    output_order = _order(output_names, signature.output_names, "output_names")
    entries = _entries(sample_inputs, "sample_inputs")
    goldens = _goldens(sample_outputs, len(entries))
    samples = []
    for number, (entry, golden) in enumerate(zip(entries, goldens, strict=True)):
        sizes: Sizes = {}
        where = f"sample_inputs[{number}]"
        inputs = _arrays(entry, input_order, signature.inputs, where)
        inputs = check_arrays(inputs, signature.inputs, where, sizes)
        if golden is None:
            samples.append(Sample(number, inputs, None))
            continue
        where = f"sample_outputs[{number}]"
        found = _arrays(golden, output_order, signature.outputs, where)
        checked = check_golden(found, signature.outputs, where, sizes)
        samples.append(Sample(number, inputs, *checked))
    return samples


def _order(names: Sequence[str] | None, model_names: list[str], argument: str) -> list[str]:
    if names is None:
        return model_names
    if isinstance(names, str) or sorted(names) != sorted(model_names):
        raise UsageError(
            f"{argument} is {names!r}, expected the model's names in any order: {model_names}"
        )
    return list(names)


def _entries(value: object, argument: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise SampleError(
            f"{argument}: expected a list with one entry per sample, found {_kind(value)}; "
            f"for a single sample pass [{argument}]"
        )
    if not value:
        raise SampleError(f"{argument}: expected at least one sample, found an empty list")
    return list(value)


def _goldens(value: object, count: int) -> list[Any]:
    if value is None:
        return [None] * count
    goldens = _entries(value, "sample_outputs")
    if len(goldens) != count:
        raise SampleError(
            f"sample_outputs: expected {count} entries, one per entry of sample_inputs, "
            f"found {len(goldens)}; pass None where a sample has no golden outputs"
        )
    return goldens


def _arrays(
    entry: object, order: list[str], specs: Sequence[TensorSpec], where: str
) -> dict[str, Array]:
    values = _named(entry, order, where)
    return {spec.name: _as_array(values[spec.name], spec, where) for spec in specs}


def _named(entry: object, order: list[str], where: str) -> dict[str, object]:
    if isinstance(entry, Mapping):
        by_name = {str(name): value for name, value in entry.items()}
        check_names(list(by_name), order, where)
        return by_name
    if isinstance(entry, (list, tuple)):
        values, found = list(entry), str(len(entry))
    else:
        values, found = [entry], _kind(entry)
    if len(values) != len(order):
        raise SampleError(
            f"{where}: expected {len(order)} arrays, found {found}; pass a list in the order "
            f"{order}, or a dict by name"
        )
    return dict(zip(order, values, strict=True))


def _as_array(value: object, spec: TensorSpec, where: str) -> Array:
    """An ndarray as it is. Nothing else is converted: the dtype would be a guess."""
    if isinstance(value, np.generic):
        return np.asarray(value)
    if isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
        return value
    raise SampleError(
        f"{where}: {spec.name!r}: expected a numpy array of {dtype_name(spec.dtype)}, found "
        f"{_kind(value)}; convert it with np.asarray(value, dtype={dtype_code(spec.dtype)})"
    )


def _kind(value: object) -> str:
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"one {name}" if value is not None else "None"
