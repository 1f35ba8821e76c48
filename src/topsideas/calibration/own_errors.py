"""What an engine's kernels add to the error of a plan, op by op, by what they really read.

A trace shows what each op read and wrote. What the emulator makes of the same inputs is what the
op should have written; the difference is the kernel's own. Added to the fp32 model where it
arises, it tells what it does to the outputs. A sum that is rounded on its way, an overflow inside,
another algorithm: each shows as what it costs, however small it is where it is made.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from topsideas.engines.base import Arrays, OpByOp, OpRecord
from topsideas.graph.loading import Model
from topsideas.graph.ops import op_id

# What is left beside the roundings may take this part of the bound; as independent errors add in
# squares, the roundings then still have 0.87 of it.
_LEFT = 0.5
# A smaller part of the bound is none that a single op should be kept for.
_SMALL = 0.2
# Where more than this part of the ops would have to be kept, and more than so many, it is how the
# engine computes at large, for which room is left, as for roundings.
_MANY, _FEW = 1 / 10, 4
# From so many ops of a type on, all of it are taken to behave like those that do.
_TYPE = 2


def own_errors(
    model: Model,
    emulator: OpByOp,
    records: Iterable[OpRecord],
    low: Collection[int],
    feeds: Arrays,
    margin: Callable[[dict[str, Any]], float],
) -> dict[int, float]:
    """What each low op's kernel alone does to the outputs.

    Args:
        model: The model.
        emulator: Runs single ops.
        records: An engine's trace; the first record of each op counts.
        low: The ops that ran low.
        feeds: The inputs of the traced sample.
        margin: The margin of outputs of that sample.

    Returns:
        By op the margin if nothing else were wrong; not of ops in bodies, nor of those whose
        inputs the trace does not show.

    Raises:
        EngineError: A run fails.
    """
    written: dict[int, tuple[Any, ...]] = {}
    for record in records:
        written.setdefault(record.id, record.outputs)
    names = {op_id(n): [str(o.name) for o in n.outputs if o.name] for n in model.graph}
    reads = {op_id(n): [str(v.name) for v in n.inputs if v is not None] for n in model.graph}
    values = dict(feeds)
    for op, outputs in written.items():
        values |= zip(names.get(op, ()), outputs, strict=False)
    found = {}
    for op in sorted(names.keys() & written.keys() & set(low)):
        if any(_is_broken(values.get(name)) for name in reads[op]):
            continue
        expected = emulator.run_op(op, values) or ()
        pairs = zip(names[op], written[op], expected, strict=False)
        errors = {name: own for name, *both in pairs if (own := _difference(*both)) is not None}
        if errors:
            found[op] = margin(emulator.disturbed(feeds, errors))
    return found


def worth_keeping(
    model: Model, errors: Mapping[int, float], low: Collection[int], bound: float
) -> tuple[dict[int, str], float]:
    """The fewest ops without whose own errors the roundings have room, or the worst of many.

    Args:
        model: The model.
        errors: By op its own error, as a margin.
        low: The ops that ran low.
        bound: The margin that passes.

    Returns:
        These ops, and others of their types if they are few, each with why; and what is left, as
        a margin.
    """
    order = sorted(errors, key=lambda op: -errors[op])
    marked: dict[int, str] = {}
    most = max(_FEW, int(_MANY * len(low)))
    while len(marked) < most and order and errors[order[0]] > _SMALL * bound:
        if _total(errors, order) <= _LEFT * bound:
            break
        op = order.pop(0)
        marked[op] = f"its kernel alone makes a margin of {errors[op]:.3g}"
    alike = _alike(model, low, marked)
    if len(marked) + len(alike) <= most:
        marked |= alike
    return marked, _total(errors, order)


def _total(errors: Mapping[int, float], ops: Iterable[int]) -> float:
    return math.hypot(*(errors[op] for op in ops))


def _alike(model: Model, low: Collection[int], marked: Collection[int]) -> dict[int, str]:
    """The other low ops of a type of which several were marked."""
    types = {op.id: op.type for op in model.ops}
    numbers = Counter(types[op] for op in marked)
    many = {kind for kind, number in numbers.items() if number >= _TYPE}
    rest = sorted(set(low) - set(marked))
    return {op: f"a {types[op]}, like others that differ" for op in rest if types[op] in many}


def _is_broken(value: Any) -> bool:
    """Whether there is a NaN, of which kernels make what they like: one before erred."""
    array = np.asarray(value)
    return array.dtype.kind == "f" and bool(np.isnan(array).any())


def _difference(real: Any, expected: Any) -> np.ndarray | None:
    """What was written beyond what should have been; None if nothing, or not comparable."""
    arrays = np.asarray(real), np.asarray(expected)
    if any(a.dtype.kind != "f" for a in arrays) or arrays[0].shape != arrays[1].shape:
        return None
    written, right = (a.astype(np.float32) for a in arrays)
    with np.errstate(invalid="ignore", over="ignore"):
        # Where it should have been infinite or no number, it was the op's inputs that were wrong.
        own = np.where(np.isfinite(right), written - right, np.float32(0))
    return own if own.any() else None
