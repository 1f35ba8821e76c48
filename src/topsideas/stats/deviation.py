"""How far an op's output is from the same output in another run, over all its elements."""

from __future__ import annotations

import math

import numpy as np

from topsideas.stats.products import dot

_BLOCK = 1 << 15


class Deviation:
    """``‖out - ref‖₂ / ‖ref‖₂`` over arrays added one by one, and what is not finite any more."""

    def __init__(self) -> None:
        self._squares = self._ref_squares = 0.0
        self.broken = 0
        """NaN and infinities where the reference has none."""
        self.nan = False
        """Whether there is a NaN among them."""
        self.elements = 0
        """How many elements were compared."""

    def add(self, out: np.ndarray, ref: np.ndarray) -> None:
        """Add a pair; only numbers of equal shape can be compared."""
        if out.dtype.kind not in "fiub" or ref.dtype.kind not in "fiub" or out.shape != ref.shape:
            return
        left, right = out.reshape(-1), ref.reshape(-1)
        self.elements += left.size
        for start in range(0, left.size, _BLOCK):
            self._add(left[start : start + _BLOCK], right[start : start + _BLOCK])

    def _add(self, out: np.ndarray, ref: np.ndarray) -> None:
        with np.errstate(all="ignore"):
            wide = ref.astype(np.float64)
            difference = out.astype(np.float64) - wide
            squares = dot(difference, difference)
            if not math.isfinite(squares):
                both = np.isfinite(out) & np.isfinite(ref)
                stray = ~np.isfinite(out) & np.isfinite(ref)
                self.broken += int(np.count_nonzero(stray))
                self.nan |= bool(np.isnan(out[stray]).any())
                difference, wide = difference[both], wide[both]
                squares = dot(difference, difference)
            self._squares += squares
            self._ref_squares += dot(wide, wide)

    @property
    def relative(self) -> float | None:
        """The relative error of the finite elements; None where nothing was compared."""
        if not self.elements:
            return None
        if not self._squares:
            return 0.0
        return math.sqrt(self._squares / self._ref_squares) if self._ref_squares else None
