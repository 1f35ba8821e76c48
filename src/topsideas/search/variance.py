"""An order of items by what they add to an error made of many small, independent parts.

The error of a plan is taken as a sum of independent contributions, one per item that is not kept,
so their variances add up at every probe. Measured on real models, the root of the summed
variances of single ops is 0.6 to 1 times the error of all of them together, while their signed
sum has little to do with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# Probes weigh by this power of the variance that is left there: the worst ones decide.
_POWER = 3
# So many steps each let go an equal part of the items, which bounds the time for thousands.
_AT_ONCE = 128


def greedy_order(items: Sequence[int], variances: np.ndarray) -> list[int]:
    """All items, those that relieve the worst probes most first.

    It is found backwards: of the items that are still kept, the one that adds least to the worst
    probes is let go next. Measured on real models, sets of equal size from this order have
    margins a few percent below those from the order that is found forwards.

    Args:
        items: The items.
        variances: What each adds at each probe, float64 of shape (items, probes), finite.
    """
    total = np.zeros(variances.shape[1])
    # From the last item on, so that of equals the first item comes first.
    rows, names = np.ascontiguousarray(variances[::-1]), np.arange(len(items))[::-1]
    order: list[int] = []
    while len(rows):
        squares, cubes = rows**2, (rows**3).sum(axis=1)
        gone = np.zeros(len(rows), bool)
        # What is gone is carried along as infinite and left out once it is the half.
        while 2 * gone.sum() < len(rows):
            # The sums over the probes of (total + row)^3 - total^3.
            worse = 3 * (rows @ total**2 + squares @ total) + cubes
            worse[gone] = math.inf
            step = max(1, (len(rows) - int(gone.sum())) // _AT_ONCE)
            quiet = np.argsort(worse, kind="stable")[:step]
            total += rows[quiet].sum(axis=0)
            order += [items[i] for i in names[quiet]]
            gone[quiet] = True
        rows, names = rows[~gone], names[~gone]
    return order[::-1]


def worst_weights(variance: np.ndarray) -> np.ndarray:
    """How much each probe counts: 1 for the one with the largest variance, float64."""
    weights: np.ndarray = (variance / max(float(variance.max(initial=0.0)), 1e-300)) ** _POWER
    return weights


def errors_left(items: Sequence[int], order: Sequence[int], variances: np.ndarray) -> np.ndarray:
    """The predicted error when the first 0, 1, 2, … of ``order`` are kept, float64.

    Args:
        items: What the rows of ``variances`` stand for.
        order: The items in the order in which they would be kept.
        variances: As for :func:`greedy_order`.
    """
    row = {item: at for at, item in enumerate(items)}
    left = np.cumsum(variances[[row[i] for i in order[::-1]]], axis=0)[::-1]
    return np.append(np.sqrt(left.max(axis=1, initial=0.0)), 0.0)


def expected_length(errors: np.ndarray, worst: float, bound: float) -> int:
    """How many items must be kept for the error to stay within ``bound``.

    Args:
        errors: See :func:`errors_left`.
        worst: The error that was measured when none is kept.
        bound: The error allowed.
    """
    count = len(errors) - 1
    if not count or errors[0] <= 0:
        return min(1, count)
    # An error without a number says nothing of those that are left once its causes are kept.
    scale = worst / errors[0] if math.isfinite(worst) else 1.0
    return int(np.argmax(errors * scale <= bound))
