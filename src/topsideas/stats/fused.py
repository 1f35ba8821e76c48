"""The inner loops of the statistics, compiled by numba: each array is read once.

Importing this raises ImportError where the extra ``fast`` is not installed. Counts are those of
the numpy paths; sums differ by the order of their terms.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# A block stays in the L1 cache while two loops pass over it.
_BLOCK = 4096

Counts = tuple[int, int, int, int]
Sums = tuple[float, float, float]
PairCounts = tuple[int, int, int, int, int, int]


@njit(nogil=True, cache=True)
def count(values: np.ndarray, le: np.float32, ge: np.float32, limit: np.float32) -> Counts:
    """Of float32 values: ``|x| <= le``, ``|x| >= ge``, finite ``|x| > limit``, and NaN."""
    small = large = beyond = nan = 0
    for start in range(0, values.size, _BLOCK):
        found = _count_block(values[start : start + _BLOCK], le, ge, limit)
        small += found[0]
        large += found[1]
        beyond += found[2]
        nan += found[3]
    return small, large, beyond, nan


@njit(nogil=True, cache=True)
def pairs(
    low: np.ndarray, fp32: np.ndarray, rtol: float, atol: float
) -> tuple[float, float, float, int, int, int, int, int, int]:
    """The fields of a ``PairTally`` of two flat float32 arrays."""
    squares = ref_squares = dot = 0.0
    nan = ref_nan = inf = ref_inf = stray = exceed = 0
    for start in range(0, low.size, _BLOCK):
        left, right = low[start : start + _BLOCK], fp32[start : start + _BLOCK]
        sums = _sums(left, right)
        squares += sums[0]
        ref_squares += sums[1]
        dot += sums[2]
        # No square of a finite float32 overflows, so one that is not finite shows in the sum.
        if np.isfinite(sums[0] + sums[1]):
            exceed += _exceeding(left, right, rtol, atol)
        else:
            found = _special(left, right, rtol, atol)
            nan += found[0]
            ref_nan += found[1]
            inf += found[2]
            ref_inf += found[3]
            stray += found[4]
            exceed += found[5]
    return squares, ref_squares, dot, nan, ref_nan, inf, ref_inf, stray, exceed


@njit(nogil=True, cache=True)
def _count_block(values: np.ndarray, le: np.float32, ge: np.float32, limit: np.float32) -> Counts:
    # Counters as wide as the elements: the processor adds more of them at a time.
    small = large = beyond = nan = np.int32(0)
    for i in range(values.size):
        magnitude = abs(values[i])
        small += np.int32(magnitude <= le)
        large += np.int32(magnitude >= ge)
        beyond += np.int32((magnitude > limit) & (magnitude < np.float32(np.inf)))
        nan += np.int32(magnitude != magnitude)
    return small, large, beyond, nan


# Only in sums is the order of the terms free.
@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _sums(low: np.ndarray, fp32: np.ndarray) -> Sums:
    squares = ref_squares = dot = 0.0
    for i in range(low.size):
        left, right = np.float64(low[i]), np.float64(fp32[i])
        squares += left * left
        ref_squares += right * right
        dot += left * right
    return squares, ref_squares, dot


@njit(nogil=True, cache=True)
def _exceeding(low: np.ndarray, fp32: np.ndarray, rtol: float, atol: float) -> int:
    missed = 0
    for i in range(low.size):
        right = np.float64(fp32[i])
        missed += abs(np.float64(low[i]) - right) > atol + rtol * abs(right)
    return missed


@njit(nogil=True, cache=True)
def _special(low: np.ndarray, fp32: np.ndarray, rtol: float, atol: float) -> PairCounts:
    """Of NaN and infinities only equals keep the tolerance."""
    nan = ref_nan = inf = ref_inf = stray = missed = 0
    for i in range(low.size):
        left, right = np.float64(low[i]), np.float64(fp32[i])
        nan += np.isnan(left)
        ref_nan += np.isnan(right)
        inf += np.isinf(left)
        ref_inf += np.isinf(right)
        stray += np.isnan(left) and not np.isnan(right)
        if np.isfinite(left) and np.isfinite(right):
            missed += abs(left - right) > atol + rtol * abs(right)
        else:
            missed += left != right and not (np.isnan(left) and np.isnan(right))
    return nan, ref_nan, inf, ref_inf, stray, missed
