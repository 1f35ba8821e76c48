"""Where an engine computes something else than the emulator: their traces, op by op.

Both round in their own ways, so their tensors differ by about as much as either differs from
fp32. An op at which that suddenly becomes several times as much does something else: it
accumulates in the low precision, overflows inside, flushes, or uses another algorithm.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from topsideas.engines.base import Arrays, Engine, OpRecord
from topsideas.graph.excerpt import read_values
from topsideas.graph.loading import Model
from topsideas.graph.ops import op_id
from topsideas.plan import PrecisionPlan
from topsideas.precision import Precision

# Independent roundings differ by 1.4 times the error of either. This many times is something else,
# and it began at an op whose inputs differed less than this part of it.
_ELSE, _FROM = 4.0, 1 / 3
# From so many ops of a type on, all of it are taken to behave like those that do.
_TYPE = 2


def differing_ops(
    model: Model,
    emulator: Engine,
    engine: Engine,
    plan: PrecisionPlan,
    feeds: Arrays,
    precision: Precision,
) -> dict[int, str]:
    """Low ops at which the engine's tensors leave the emulator's, each with how far.

    Args:
        model: The model.
        emulator: Runs the plan by the definition.
        engine: Runs it for real; must be able to trace.
        plan: The ops in fp32.
        feeds: A sample's inputs.
        precision: The low format.

    Raises:
        EngineError: One of the runs fails.
    """
    real = _first(engine.compile(plan).trace(feeds))
    low = _once(emulator.compile(plan).trace(feeds))
    fp32 = _once(emulator.compile(PrecisionPlan(model.candidates)).trace(feeds))
    return blamed(model, plan, _distances(real, low, fp32, _step(precision)))


def blamed(model: Model, plan: PrecisionPlan, distances: Mapping[int, float]) -> dict[int, str]:
    """The ops at which a difference begins, from how far the outputs of each op are away.

    Args:
        model: The model.
        plan: The ops in fp32, which are never blamed.
        distances: By op, in multiples of the emulator's own error.
    """
    away: dict[ir.Value, float] = {}
    found = {}
    low = plan.low(model.candidates)
    for node in model.graph:
        number = op_id(node)
        before = max((away.get(v, 0.0) for v in read_values(node)), default=0.0)
        # What a trace does not show is taken to be as far away as what it was made of.
        here = distances.get(number, before)
        away |= dict.fromkeys(node.outputs, here)
        if number in low and here > _ELSE and before < _FROM * here:
            found[number] = f"{here:.3g} times as far from the emulator as that is from fp32"
    return found


def alike(model: Model, plan: PrecisionPlan, marked: Iterable[int]) -> dict[int, str]:
    """The other low ops of a type of which several were marked."""
    types = {op.id: op.type for op in model.ops}
    numbers = Counter(types[op] for op in marked)
    many = {kind for kind, number in numbers.items() if number >= _TYPE}
    rest = plan.low(model.candidates) - set(marked)
    return {
        op: f"a {types[op]}, like others that differ" for op in sorted(rest) if types[op] in many
    }


def _first(records: Iterable[OpRecord]) -> dict[int, tuple[Any, ...]]:
    found: dict[int, tuple[Any, ...]] = {}
    for record in records:
        found.setdefault(record.id, record.outputs)
    return found


def _once(records: Iterable[OpRecord]) -> Iterable[OpRecord]:
    """The first record of each op."""
    seen = set()
    for record in records:
        if record.id not in seen:
            seen.add(record.id)
            yield record


def _distances(
    real: Mapping[int, tuple[Any, ...]],
    low: Iterable[OpRecord],
    fp32: Iterable[OpRecord],
    step: float,
) -> dict[int, float]:
    found = {}
    for record, exact in zip(low, fp32, strict=False):
        if record.id != exact.id:
            break  # the runs take different branches from here on
        if record.id in real:
            triples = zip(real[record.id], record.outputs, exact.outputs, strict=False)
            found[record.id] = max((_distance(*t, step) for t in triples), default=0.0)
    return found


def _distance(real: Any, low: Any, exact: Any, step: float) -> float:
    arrays = (real, low, exact)
    if not all(isinstance(a, np.ndarray) and a.dtype.kind == "f" for a in arrays):
        return 0.0
    if not real.shape == low.shape == exact.shape:
        return math.inf
    finite = np.isfinite(low) & np.isfinite(exact)
    if not np.isfinite(real[finite]).all():
        return math.inf
    r, e, x = (a[finite].astype(np.float64) for a in arrays)
    scale = float(np.linalg.norm(e - x) + step * np.linalg.norm(x))
    return float(np.linalg.norm(r - e)) / scale if scale > 0 else 0.0


def _step(precision: Precision) -> float:
    """Half the distance between neighbours around 1: the relative error of one rounding."""
    return 2.0**-11 if precision.name == "fp16" else 2.0**-8
