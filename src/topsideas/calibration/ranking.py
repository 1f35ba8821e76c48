"""Which ops most likely need fp32: those that overflow, then those whose rounding is felt most."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from topsideas.engines.base import Engine
from topsideas.plan import PrecisionPlan
from topsideas.stats.calc import beyond

# Up to this many ops each is measured alone; beyond, blocks of neighbours are measured first.
_MAX_SINGLES = 600
# A block of ops that together use less than this share of the allowance is not looked into.
_QUIET = 1e-2

Felt = dict[int, float]


def overflowing(
    engine: Engine,
    candidates: frozenset[int],
    feeds: Iterable[dict[str, np.ndarray]],
    limit: float,
) -> frozenset[int]:
    """Ops that write or read finite values beyond ``limit`` in fp32, on any of the samples.

    Args:
        engine: Traces the model with every op in fp32.
        candidates: The ops that may run low.
        feeds: The samples' inputs.
        limit: The largest magnitude of the low format.
    """
    executable = engine.compile(PrecisionPlan(candidates))
    found: set[int] = set()
    for inputs in feeds:
        for record in executable.trace(inputs):
            seen = (*record.outputs, *record.slot_inputs)
            if record.id in candidates - found and any(_exceeds(a, limit) for a in seen):
                found.add(record.id)
    return frozenset(found)


def _exceeds(array: object, limit: float) -> bool:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        return False
    return beyond(array, limit) > 0


def felt_errors(
    items: Sequence[int],
    measure: Callable[[frozenset[int]], float],
    watch: Callable[[int, int], None],
) -> Felt:
    """The effect on the outputs of each item alone running low, in shares of the allowance.

    Args:
        items: The ops, in execution order.
        measure: The margin when exactly the given ops run low.
        watch: Called with (items done, items in all).
    """
    felt: Felt = {}
    blocks = _blocks(items)
    while blocks:
        block = blocks.pop()
        margin = measure(frozenset(block))
        if len(block) == 1 or margin < _QUIET:
            felt.update(dict.fromkeys(block, margin / len(block)))
            watch(len(felt), len(items))
        else:
            middle = len(block) // 2
            blocks += [block[middle:], block[:middle]]
    return felt


def _blocks(items: Sequence[int]) -> list[Sequence[int]]:
    """Blocks to measure, the first one last, as they are taken from the end."""
    size = 1 if len(items) <= _MAX_SINGLES else 16
    return [items[i : i + size] for i in range(0, len(items), size)][::-1]


def ranked(felt: Felt) -> list[int]:
    """Ids by felt error, the largest first; of equals the earlier op first."""
    return sorted(felt, key=lambda op: (-felt[op], op))
