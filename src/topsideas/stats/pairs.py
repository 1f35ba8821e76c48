"""Two float32 arrays of equal shape side by side: sums in float64 and counts, block by block."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from topsideas.stats.acceleration import fused
from topsideas.stats.criteria import Tolerance
from topsideas.stats.products import dot

# Elements looked at together, so that what is made of them stays in a processor's L2 cache.
_BLOCK = 1 << 15
# Far more than the share by which float32 arithmetic errs here.
_SLACK = 2.0**-20
# Between these magnitudes float32 neither overflows nor loses digits in what is done here.
_LEAST, _MOST = 1e-30, 1e37


@dataclass(slots=True)
class PairTally:
    """What a pair of arrays holds.

    Attributes:
        squares: Sum of squares of the left side.
        ref_squares: Sum of squares of the right side.
        dot: Sum of products; means nothing unless both sums of squares are finite.
        nan: NaN on the left side.
        ref_nan: NaN on the right side.
        inf: Infinities on the left side.
        ref_inf: Infinities on the right side.
        stray_nan: NaN on the left side where the right side has none.
        exceed: Elements that miss the tolerance.
    """

    squares: float = 0.0
    ref_squares: float = 0.0
    dot: float = 0.0
    nan: int = 0
    ref_nan: int = 0
    inf: int = 0
    ref_inf: int = 0
    stray_nan: int = 0
    exceed: int = 0


class PairCounter:
    """Counts pairs against one tolerance. Holds memory to work in: not for several threads.

    Args:
        rule: The tolerance.
    """

    def __init__(self, rule: Tolerance) -> None:
        self._rule = rule
        self._fused = fused()
        self._wide = np.empty((3, _BLOCK), np.float64)
        self._narrow = np.empty((2, _BLOCK), np.float32)
        self._flags = np.empty((2, _BLOCK), np.bool_)

    def tally(self, low: np.ndarray, fp32: np.ndarray) -> PairTally:
        """Count two float32 arrays of equal shape."""
        left, right, found = low.reshape(-1), fp32.reshape(-1), PairTally()
        if self._fused is not None:
            return PairTally(*self._fused.pairs(left, right, self._rule.rtol, self._rule.atol))
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, left.size, _BLOCK):
                end = start + _BLOCK
                self._add(left[start:end], right[start:end], found)
        return found

    def _add(self, low: np.ndarray, fp32: np.ndarray, found: PairTally) -> None:
        wide, ref = self._wide[0, : low.size], self._wide[1, : low.size]
        wide[...], ref[...] = low, fp32
        squares, ref_squares = dot(wide, wide), dot(ref, ref)
        found.squares += squares
        found.ref_squares += ref_squares
        largest = math.sqrt(squares + ref_squares)
        # No square of a finite float32 overflows, so one that is not finite shows in the sum.
        if not math.isfinite(largest):
            self._add_special(low, fp32, found)
            return
        found.dot += dot(wide, ref)
        if self._rule.atol >= _LEAST and largest <= _MOST:
            found.exceed += self._exceeding(low, fp32, largest)
        else:
            found.exceed += low.size - self._within(low.size)

    def _exceeding(self, low: np.ndarray, fp32: np.ndarray, largest: float) -> int:
        """How many elements miss the tolerance, by float32 where that is certain.

        Args:
            low: One block, finite.
            fp32: The other one.
            largest: A bound on the magnitudes of both.
        """
        rule, flags = self._rule, self._flags[0, : low.size]
        error, excess = self._narrow[:, : low.size]
        np.abs(np.subtract(low, fp32, out=error), out=error)
        within = rule.atol * (1 - _SLACK)
        if float(np.maximum.reduce(error)) <= within:
            return 0
        # Too little is allowed here, by up to ``unsure``: what then fits, fits indeed.
        share, unsure = rule.rtol * (1 - 2 * _SLACK), 8 * _SLACK * rule.rtol * largest
        np.multiply(np.abs(fp32, out=excess), np.float32(share), out=excess)
        np.subtract(error, excess, out=excess)
        beyond = (rule.atol + unsure) * (1 + _SLACK)
        missed = np.count_nonzero(np.greater(excess, np.float32(within), out=flags))
        surely = np.count_nonzero(np.greater(excess, np.float32(beyond), out=flags))
        if missed == surely:
            return int(surely)
        close = (excess > np.float32(within)) & ~flags
        wide, ref = self._wide[0, : low.size][close], self._wide[1, : low.size][close]
        missing = np.abs(wide - ref) > rule.atol + rule.rtol * np.abs(ref)
        return int(surely + np.count_nonzero(missing))

    def _within(self, size: int) -> int:
        """How many finite elements of the block that was widened keep the tolerance."""
        wide, ref, allowed = self._wide[:, :size]
        np.abs(np.subtract(wide, ref, out=wide), out=wide)
        np.multiply(np.abs(ref, out=allowed), self._rule.rtol, out=allowed)
        np.add(allowed, self._rule.atol, out=allowed)
        flags = np.less_equal(wide, allowed, out=self._flags[0, :size])
        # Beside an infinite reference anything would be allowed.
        flags &= np.isfinite(ref, out=self._flags[1, :size])
        return int(np.count_nonzero(flags))

    def _add_special(self, low: np.ndarray, fp32: np.ndarray, found: PairTally) -> None:
        """A block that holds NaN or infinity; of these, only equals keep the tolerance."""
        nan, ref_nan = self._flags[:, : low.size]
        count = np.count_nonzero(np.isnan(low, out=nan))
        found.nan += int(count)
        found.ref_nan += int(np.count_nonzero(np.isnan(fp32, out=ref_nan)))
        both = np.count_nonzero(np.logical_and(nan, ref_nan, out=nan))
        found.stray_nan += int(count - both)
        found.ref_inf += int(np.count_nonzero(np.isinf(fp32, out=ref_nan)))
        equal = np.count_nonzero(np.logical_and(np.equal(low, fp32, out=nan), ref_nan, out=nan))
        found.inf += int(np.count_nonzero(np.isinf(low, out=nan)))
        # Where a network has met NaN, whole tensors are NaN.
        finite = self._within(low.size) if count < low.size else 0
        found.exceed += int(low.size - both - equal - finite)
