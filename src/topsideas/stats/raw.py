"""RAW: an op's output in the low run against the same output in the fp32 run."""

from __future__ import annotations

import math

import numpy as np

from topsideas.stats.criteria import (
    Cosine,
    Criterion,
    Tolerance,
    cosine_margin,
    cosine_of,
    error_ratio,
    has_stray_nan,
    is_float,
    norm_ratio_of,
)
from topsideas.stats.pairs import PairCounter


class RawSums:
    """Sums over one output tensor of both runs; a loop body adds one pair per iteration.

    Args:
        criterion: The rule of pass and fail.
        counter: Counts pairs, for this output and for others; None for one of its own.
    """

    def __init__(self, criterion: Criterion, counter: PairCounter | None = None) -> None:
        self._criterion = criterion
        self._rule = tolerance_of(criterion)
        self._counter = counter or PairCounter(self._rule)
        self._low = _Elements()
        self._fp32 = _Elements()
        self._exceed = 0
        self._dot = 0.0
        self._comparable = True
        self._stray_nan = False
        self._floats = True

    def add(self, low: np.ndarray | None, fp32: np.ndarray | None) -> None:
        """Add one pair; None where that run did not execute the op."""
        if low is None or fp32 is None or low.shape != fp32.shape:
            self._add_apart(low, fp32)
        elif low.dtype == fp32.dtype == np.float32:
            self._add_float32(low, fp32)
        else:
            self._add_others(low, fp32)

    def _add_apart(self, low: np.ndarray | None, fp32: np.ndarray | None) -> None:
        self._comparable = False
        self._low.add(low)
        self._fp32.add(fp32)
        self._exceed += low.size if low is not None else 0

    def _add_float32(self, low: np.ndarray, fp32: np.ndarray) -> None:
        found = self._counter.tally(low, fp32)
        self._low.add_counted(low.size, found.nan, found.inf, found.squares)
        self._fp32.add_counted(fp32.size, found.ref_nan, found.ref_inf, found.ref_squares)
        self._dot += found.dot
        self._exceed += found.exceed
        self._stray_nan |= found.stray_nan > 0

    def _add_others(self, low: np.ndarray, fp32: np.ndarray) -> None:
        self._low.add(low)
        self._fp32.add(fp32)
        self._exceed += int(np.count_nonzero(error_ratio(low, fp32, self._rule) > 1))
        self._stray_nan |= has_stray_nan(low, fp32)
        self._floats &= is_float(low) and is_float(fp32)
        if low.dtype.kind in "fiub" and fp32.dtype.kind in "fiub":
            with np.errstate(all="ignore"):
                self._dot += float(
                    low.astype(np.float64).ravel() @ fp32.astype(np.float64).ravel()
                )

    def fields(self, prefix: str) -> dict[str, int | float | str | None]:
        """The JSON fields of the specification, section 4."""
        cos = cosine_of(self._dot, self._low.squares, self._fp32.squares)
        passed = self._passed(cos)
        return {
            **self._low.fields(prefix),
            **self._fp32.fields("fp32"),
            "numpy_allclose": "pass" if passed else "fail",
            "exceed_tol_count": self._exceed,
            "cos_sim_value": cos if self._comparable else None,
            "norm_rel": norm_ratio_of(self._low.squares, self._fp32.squares)
            if self._comparable
            else None,
        }

    def _passed(self, cos: float | None) -> bool:
        if not self._comparable or self._stray_nan:
            return False
        if isinstance(self._criterion, Cosine) and self._floats and cos is not None:
            return cosine_margin(cos, self._criterion.threshold) <= 1
        allowed = math.floor(self._rule.ntol * self._low.count + 1e-9)
        return self._exceed <= allowed


def tolerance_of(criterion: Criterion) -> Tolerance:
    """What elements are counted against."""
    return criterion if isinstance(criterion, Tolerance) else criterion.tolerance


class _Elements:
    """Counts and the sum of squares of one run's side."""

    def __init__(self) -> None:
        self.count = self.nan = self.inf = 0
        self.squares = 0.0

    def add(self, array: np.ndarray | None) -> None:
        if array is None:
            return
        self.count += array.size
        if array.dtype.kind == "f":
            self.nan += int(np.isnan(array).sum())
            self.inf += int(np.isinf(array).sum())
        if array.dtype.kind in "fiub":
            with np.errstate(all="ignore"):
                wide = array.astype(np.float64).ravel()
                self.squares += float(wide @ wide)

    def add_counted(self, count: int, nan: int, inf: int, squares: float) -> None:
        self.count += count
        self.nan += nan
        self.inf += inf
        self.squares += squares

    def fields(self, prefix: str) -> dict[str, int]:
        return {
            f"{prefix}_element_count": self.count,
            f"{prefix}_nan_count": self.nan,
            f"{prefix}_inf_count": self.inf,
        }
