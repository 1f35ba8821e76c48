"""What plans of a problem cost: estimated from the shapes of a run, or as the engine measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from topsideas.calibration.journal import Journal
from topsideas.calibration.references import References
from topsideas.engines.base import Engine, Timed
from topsideas.errors import EngineError
from topsideas.graph.cost import Observations, Observed, plan_prices
from topsideas.graph.loading import Model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Precision
from topsideas.prices import Prices


@dataclass(frozen=True, slots=True)
class PlanCost:
    """What the answer costs more than all candidates low, with what it is to be compared with.

    Attributes:
        answer: The cost of the plan; below 0 where it saves more in casts than it costs in ops.
        all_fp32: The cost of keeping every candidate.
        floor: What the whole model costs with every candidate low; the others come on top.
        shares: The part of each kept op; they add up to ``answer``.
        saving: Kept ops without which the plan would cost as much or more.
        unit: ``bytes`` of memory traffic, or ``seconds``.
        measured: Whether the engine measured it.
    """

    answer: float
    all_fp32: float
    floor: float
    shares: Mapping[int, float]
    saving: frozenset[int]
    unit: str
    measured: bool


def plan_cost(prices: Prices, kept: frozenset[int], candidates: frozenset[int]) -> PlanCost:
    """What a plan costs."""
    cost = prices.cost(kept)
    return PlanCost(
        answer=cost,
        all_fp32=prices.cost(candidates),
        floor=prices.floor,
        shares=prices.shares(kept),
        saving=frozenset(op for op in kept if prices.cost(kept - {op}) >= cost),
        unit=prices.unit,
        measured=prices.measured,
    )


def prices_of(
    model: Model,
    engine: Engine,
    precision: Precision,
    references: References,
    journal: Journal,
) -> Prices:
    """Prices for the first sample's shapes.

    Args:
        model: The model.
        engine: Shows the shapes, where the model does not tell; and measures, if it can.
        precision: The low format.
        references: The samples.
        journal: Remembers what was measured, so that a second run finds the same answer.
    """
    seen = _observed(model, engine, references, journal)
    return plan_prices(model, precision, seen, _measured(engine, references, journal))


def _measured(
    engine: Engine, references: References, journal: Journal
) -> dict[int, tuple[float, float]]:
    if not isinstance(engine, Timed):
        return {}
    sample = references.ids[0]
    known = journal.recall("times", sample)
    if known is None:
        times = engine.times(references.inputs(sample))
        known = {str(op): list(pair) for op, pair in sorted(times.items())}
        journal.record("times", sample, known)
    return {int(op): (fp32, low) for op, (fp32, low) in known.items()}


def _observed(
    model: Model, engine: Engine, references: References, journal: Journal
) -> Observations:
    if _is_static(model):
        return Observations()
    sample = references.ids[0]
    arrays = references.inputs(sample)
    inputs = {n: a.shape for n, a in arrays.items() if isinstance(a, np.ndarray)}
    known = journal.recall("shapes", sample)
    if known is None:
        try:
            known = _traced(engine, model.candidates, arrays)
        except EngineError:
            return Observations(inputs)  # an engine that shows nothing: static shapes must do
        journal.record("shapes", sample, known)
    ops = {
        int(op): Observed(times, tuple(None if s is None else tuple(s) for s in shapes))
        for op, (times, shapes) in known.items()
    }
    return Observations(inputs, ops)


def _is_static(model: Model) -> bool:
    """Whether the model itself tells every shape, and no op runs more often than once."""
    shapes = [s for op in model.ops for n, s in zip(op.outputs, op.shapes, strict=True) if n]
    known = all(s is not None and all(isinstance(d, int) for d in s) for s in shapes)
    return known and len(model.graph) == len(model.ops)


def _traced(engine: Engine, candidates: frozenset[int], arrays: dict[str, Any]) -> dict[str, Any]:
    """By op id, how often it ran and the shapes of its outputs, as JSON values."""
    found: dict[str, Any] = {}
    for record in engine.compile(PrecisionPlan(candidates)).trace(arrays):
        shapes = [list(a.shape) if isinstance(a, np.ndarray) else None for a in record.outputs]
        times = found.get(str(record.id), (0, None))[0]
        found[str(record.id)] = [times + 1, shapes]
    return found
