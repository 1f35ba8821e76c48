"""Per-op statistics of the fp32 run and of a plan's run: CALC and RAW, section 4 of the spec."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from topsideas.engines.base import OpRecord, Trace
from topsideas.stats.calc import CalcCounts, Census, Known, Thresholds
from topsideas.stats.criteria import Criterion
from topsideas.stats.pairs import PairCounter
from topsideas.stats.raw import RawSums, tolerance_of

# The spec fixes the prefixes: "fp16" names the low run, whatever the low format is.
LOW, FP32 = "fp16", "fp32"

OpFields = dict[int, dict[str, Any]]
_Turn = tuple[int, int]


@dataclass(frozen=True, slots=True)
class RunStatistics:
    """One run of one sample.

    Attributes:
        ops: For each executed op ``{"outputs": [fields…], …}``.
        outputs: The model's outputs by name.
    """

    ops: OpFields
    outputs: dict[str, Any]


def calc(
    trace: Trace, prefix: str, thresholds: Thresholds, known: Known | None = None
) -> RunStatistics:
    """CALC: one streaming pass; nothing is kept but counts.

    Args:
        trace: A traced run; consumed.
        prefix: ``fp16`` for the low run or ``fp32``.
        thresholds: What to count.
        known: What other runs have counted.

    Raises:
        EngineError: The run fails.
    """
    census = Census(thresholds, known)
    counts: dict[int, list[CalcCounts]] = {}
    clipped: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    low = prefix == LOW
    for record in trace:
        if record.id not in counts:
            counts[record.id] = [CalcCounts() for _ in record.outputs]
        computed = record.raw or ((None,) * len(record.outputs) if low else record.outputs)
        rows = zip(counts[record.id], record.outputs, computed, strict=True)
        for count, stored, unrounded in rows:
            tally = census.tally(_array(stored))
            if low and record.stored_low:
                past = _at_the_end(stored, thresholds)
            elif unrounded is stored:
                past = tally.beyond
            else:  # what is beyond the limit is stored at it, or as infinity
                past = _beyond(census, unrounded) if tally.reach else 0
            count.add(tally, past)
        if low and record.raw:
            _count_inputs(clipped[record.id], record, census)
    ops: OpFields = {
        op: {"outputs": [c.fields(prefix) for c in fields]} for op, fields in counts.items()
    }
    for op, (beyond_limit, elements) in clipped.items():
        ops[op][f"{prefix}_input_clip_ratio"] = beyond_limit / elements if elements else None
    return RunStatistics(ops, trace.outputs)


def engine_counts(
    ops: Mapping[int, Mapping[str, Any]], outputs: dict[str, Any], prefix: str
) -> RunStatistics:
    """CALC as an engine counted it itself.

    Args:
        ops: By op id ``{"outputs": [fields…]}``, the fields without a prefix.
        outputs: The model's outputs by name.
        prefix: ``fp16`` for the low run or ``fp32``.
    """
    named: OpFields = {
        op: {"outputs": [{f"{prefix}_{k}": v for k, v in o.items()} for o in found["outputs"]]}
        for op, found in ops.items()
    }
    return RunStatistics(named, outputs)


def _at_the_end(stored: Any, thresholds: Thresholds) -> int:
    """Elements that an engine clipped, as far as what it stored tells: infinite or the largest."""
    array = _array(stored)
    return (
        int(np.count_nonzero(np.abs(array) >= thresholds.limit)) if array.dtype.kind == "f" else 0
    )


def _beyond(census: Census, array: np.ndarray | None) -> int:
    """Only floats can be out of range."""
    return census.beyond(array) if array is not None and array.dtype.kind == "f" else 0


def _count_inputs(count: list[int], record: OpRecord, census: Census) -> None:
    for array in record.slot_inputs:
        count[0] += census.beyond(array)
        count[1] += array.size


def raw(low: Trace, fp32: Trace, criterion: Criterion) -> OpFields:
    """RAW: both runs side by side; a tensor is dropped once it was compared.

    Args:
        low: The traced low run; consumed.
        fp32: The traced fp32 run of the same sample; consumed.
        criterion: The rule of pass and fail.

    Raises:
        EngineError: A run fails.
    """
    sums: dict[int, list[RawSums]] = {}
    counter = PairCounter(tolerance_of(criterion))
    for op, records in side_by_side((low, fp32)):
        left, right = (None if record is None else record.outputs for record in records)
        if op not in sums:
            sums[op] = [RawSums(criterion, counter) for _ in left or right or ()]
        for index, row in enumerate(sums[op]):
            row.add(_at(left, index), _at(right, index))
    return {op: {"outputs": [r.fields(LOW) for r in rows]} for op, rows in sums.items()}


_Outputs = tuple[Any, ...]


def side_by_side(
    traces: Sequence[Trace],
) -> Iterator[tuple[int, tuple[OpRecord | None, ...]]]:
    """(op, its record in each run) per op and turn; None where a run took another path.

    The runs advance together, so that few tensors wait for their mates: as a rule none.

    Args:
        traces: Traced runs of one sample; consumed.

    Raises:
        EngineError: A run fails.
    """
    waiting: dict[_Turn, list[OpRecord | None]] = {}
    missing: dict[_Turn, int] = {}
    turns = [Counter[int]() for _ in traces]
    for records in zip_longest(*traces):
        for side, record in enumerate(records):
            if record is None:
                continue
            turn = record.id, turns[side][record.id]
            turns[side][record.id] += 1
            waiting.setdefault(turn, [None] * len(turns))[side] = record
            missing[turn] = missing.get(turn, len(turns)) - 1
            if not missing[turn]:
                del missing[turn]
                yield turn[0], tuple(waiting.pop(turn))
    for (op, _), found in waiting.items():
        yield op, tuple(found)


def _at(outputs: _Outputs | None, index: int) -> np.ndarray | None:
    return None if outputs is None else _array(outputs[index])


def _array(value: Any) -> np.ndarray:
    """One array for what an op wrote; the elements of a sequence are laid end to end."""
    if isinstance(value, list):
        parts = [np.asarray(v).ravel() for v in value]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return np.asarray(value) if value is not None else np.zeros(0, np.float32)
