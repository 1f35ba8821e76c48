"""CALC: what share of an op's output is large, small, out of range or NaN, in one run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from topsideas.errors import UsageError


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Bounds that CALC counts against.

    Attributes:
        le: Count elements with ``|x| <= le``.
        ge: Count elements with ``|x| >= ge``.
        limit: The largest magnitude of the low format; ``|x| > limit`` cannot be held.
    """

    le: float
    ge: float
    limit: float

    def __post_init__(self) -> None:
        for flag, value in (("le_value_thres", self.le), ("ge_value_thres", self.ge)):
            if not 0 <= value < math.inf:
                raise UsageError(
                    f"{flag}={value!r}: expected a finite number that is not negative"
                )


class CalcCounts:
    """Counts over one output tensor; a loop body adds one array per iteration.

    Args:
        thresholds: The bounds.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._elements = self._ge = self._le = self._clipped = 0
        self._nan = False

    def add(self, stored: np.ndarray, raw: np.ndarray | None) -> None:
        """Count one array.

        Args:
            stored: The output as stored. Values that are no numbers are only counted.
            raw: The output as computed: in a low run before it was rounded, None where nothing
                was rounded. Only floats can be out of range.
        """
        self._elements += stored.size
        if stored.dtype.kind not in "fiub":
            return
        with np.errstate(invalid="ignore"):
            magnitude = _magnitude(stored)
            self._ge += int(np.count_nonzero(magnitude >= self._thresholds.ge))
            self._le += int(np.count_nonzero(magnitude <= self._thresholds.le))
        if stored.dtype.kind == "f":
            self._nan |= bool(np.isnan(stored).any())
        if raw is not None and raw.dtype.kind == "f":
            self._clipped += beyond(raw, self._thresholds.limit)

    def fields(self, prefix: str) -> dict[str, float | bool | None]:
        """The JSON fields of the specification, section 4; null for an empty tensor."""
        share = self._share
        return {
            f"{prefix}_ge_ratio": share(self._ge),
            f"{prefix}_le_ratio": share(self._le),
            f"{prefix}_clip_ratio": share(self._clipped),
            f"{prefix}_check_nan": self._nan,
        }

    def _share(self, count: int) -> float | None:
        return count / self._elements if self._elements else None


def _magnitude(array: np.ndarray) -> np.ndarray:
    """Absolute values in a type that holds them and that a threshold can be compared with."""
    if array.dtype.kind == "i":
        array = array.astype(np.float64)  # the least int8 has no positive twin among int8
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    magnitude: np.ndarray = np.abs(array) if array.dtype.kind == "f" else array
    return magnitude


def beyond(array: np.ndarray, limit: float) -> int:
    """How many finite elements of a float array have a magnitude above ``limit``.

    Infinities are not counted: the low formats hold them, and where they come from (a mask, an
    op before) the overflow was counted already.
    """
    with np.errstate(invalid="ignore"):
        magnitude = np.abs(array)
        return int(np.count_nonzero((magnitude > limit) & (magnitude < np.inf)))
