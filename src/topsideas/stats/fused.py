"""The inner loops of the statistics, compiled by numba: each array is read once.

Importing this raises ImportError where the extra ``fast`` is not installed. Counts are those of
the numpy paths; sums differ by the order of their terms.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# A block stays in the L1 cache while two loops pass over it.
_BLOCK = 4096
# Of a tolerance, what float32 arithmetic is sure to tell from all of it.
_NEAR = 1 - 2.0**-18
_LEAST, _MOST = np.float32(1e-30), np.float32(1e37)

Counts = tuple[int, int, int, int, int]
Sums = tuple[float, float, float]
PairCounts = tuple[int, int, int, int, int, int]


@njit(nogil=True, cache=True)
def count(values: np.ndarray, le: np.float32, ge: np.float32, limit: np.float32) -> Counts:
    """Of float32 values: how many are small, large, at the limit, beyond it, and NaN.

    Returns:
        The counts of ``|x| <= le``, ``|x| >= ge``, ``|x| >= limit``, finite ``|x| > limit``, NaN.
    """
    small = large = reach = beyond = nan = 0
    bound = min(ge, limit)
    for start in range(0, values.size, _BLOCK):
        block = values[start : start + _BLOCK]
        few, rest = _small(block, le, bound)
        small += int(few)
        if rest > 0:  # nearly never
            found = _rest(block, ge, limit)
            large += int(found[0])
            reach += int(found[1])
            beyond += int(found[2])
            nan += int(found[3])
    return small, large, reach, beyond, nan


@njit(nogil=True, cache=True)
def pairs(
    low: np.ndarray, fp32: np.ndarray, rtol: float, atol: float
) -> tuple[float, float, float, int, int, int, int, int, int]:
    """The fields of a ``PairTally`` of two flat float32 arrays."""
    squares = ref_squares = dot = 0.0
    nan = ref_nan = inf = ref_inf = stray = exceed = 0
    near_rtol, near_atol = np.float32(rtol * _NEAR), np.float32(atol * _NEAR)
    for start in range(0, low.size, _BLOCK):
        left, right = low[start : start + _BLOCK], fp32[start : start + _BLOCK]
        sums = _sums(left, right)
        squares += sums[0]
        ref_squares += sums[1]
        dot += sums[2]
        # No square of a finite float32 overflows, so one that is not finite shows in the sum.
        if np.isfinite(sums[0] + sums[1]):
            # Below _LEAST float32 has fewer digits.
            if near_atol < _LEAST or _may_exceed(left, right, near_rtol, near_atol) > 0:
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


# Counters are float32 because numba makes integers of 64 bits when it adds any: of elements as
# wide as themselves the processor adds more at a time. Up to 2^24 they are exact, in any order.
@njit(nogil=True, cache=True, fastmath={"reassoc"})
def _small(values: np.ndarray, le: np.float32, bound: np.float32) -> tuple[float, float]:
    """How many are at most ``le``, and how many are not below ``bound``: NaN is not."""
    none, one = np.float32(0), np.float32(1)
    small = rest = none
    for i in range(values.size):
        magnitude = abs(values[i])
        small += one if magnitude <= le else none
        rest += none if magnitude < bound else one
    return small, rest


@njit(nogil=True, cache=True, fastmath={"reassoc"})
def _rest(
    values: np.ndarray, ge: np.float32, limit: np.float32
) -> tuple[float, float, float, float]:
    none, one, infinity = np.float32(0), np.float32(1), np.float32(np.inf)
    large = reach = beyond = nan = none
    for i in range(values.size):
        magnitude = abs(values[i])
        large += one if magnitude >= ge else none
        reach += one if magnitude >= limit else none
        beyond += one if (magnitude > limit) & (magnitude < infinity) else none
        nan += one if magnitude != magnitude else none
    return large, reach, beyond, nan


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


@njit(nogil=True, cache=True, fastmath={"reassoc"})
def _may_exceed(low: np.ndarray, fp32: np.ndarray, rtol: np.float32, atol: np.float32) -> float:
    """How many come near the tolerance or miss it, in float32, which takes half the time.

    A difference that overflows misses it too, and an allowance that does is none.
    """
    none, one = np.float32(0), np.float32(1)
    near = none
    for i in range(low.size):
        allowed = atol + rtol * abs(fp32[i])
        near += none if (abs(low[i] - fp32[i]) < allowed) & (allowed < _MOST) else one
    return float(near)


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
