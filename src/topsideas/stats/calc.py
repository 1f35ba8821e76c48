"""CALC: what share of an op's output is large, small, out of range or NaN, in one run."""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass

import numpy as np

from topsideas.errors import UsageError
from topsideas.stats.acceleration import fused

# Elements counted at a time: with them, what is made of them fits into a processor's L2 cache.
_BLOCK = 1 << 16


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


@dataclass(frozen=True, slots=True)
class Tally:
    """What one array holds.

    Attributes:
        elements: Its size.
        ge: Elements with ``|x| >= ge``; numbers only.
        le: Elements with ``|x| <= le``; numbers only.
        reach: Elements with ``|x| >= limit``; floats only.
        beyond: Finite elements with ``|x| > limit``; floats only.
        nan: Whether it holds NaN.
    """

    elements: int
    ge: int = 0
    le: int = 0
    reach: int = 0
    beyond: int = 0
    nan: bool = False


Known = dict[int, tuple["weakref.ref[np.ndarray]", int]]
"""By identity, what is out of range; an entry leaves before another array can get its id."""


class Census:
    """Counts arrays, each once, however many ops write and read it.

    Args:
        thresholds: The bounds.
        known: Shared with others of the same bounds, so that weights are counted once for all
            runs; its own if None.
    """

    def __init__(self, thresholds: Thresholds, known: Known | None = None) -> None:
        self._thresholds = thresholds
        self._fused = fused()
        with np.errstate(over="ignore"):
            # As numpy compares float32 elements with a Python number.
            self._bounds = np.array([thresholds.le, thresholds.ge, thresholds.limit], np.float32)
        self._magnitude = np.empty(_BLOCK, np.float32)
        self._flags = np.empty(_BLOCK, np.bool_)
        self._beyond: Known = {} if known is None else known

    def tally(self, array: np.ndarray) -> Tally:
        """Count an array against all bounds. Elements that are no numbers are only counted."""
        if array.dtype == np.float32:
            found = self._tally_float32(array)
        else:
            found = _tally(array, self._thresholds)
        self._remember(array, found.beyond)
        return found

    def beyond(self, array: np.ndarray) -> int:
        """:func:`beyond` the limit, at once if the array was counted before."""
        known = self._beyond.get(id(array))
        if known is not None and known[0]() is array:
            return known[1]
        return self._remember(array, beyond(array, self._thresholds.limit))

    def _remember(self, array: np.ndarray, count: int) -> int:
        key, entries = id(array), self._beyond
        entries[key] = weakref.ref(array, lambda _: entries.pop(key, None)), count
        return count

    def _tally_float32(self, array: np.ndarray) -> Tally:
        """In blocks that stay in the cache. The largest magnitude settles most bounds."""
        (le_bound, ge_bound, limit), flat = self._bounds, array.reshape(-1)
        if self._fused is not None:
            le, ge, reach, above, nan = self._fused.count(flat, le_bound, ge_bound, limit)
            return Tally(flat.size, ge, le, reach, above, nan > 0)
        ge = le = reach = above = 0
        nan = False
        for start in range(0, flat.size, _BLOCK):
            block = flat[start : start + _BLOCK]
            magnitude = np.abs(block, out=self._magnitude[: block.size])
            flags = self._flags[: block.size]
            le += np.count_nonzero(np.less_equal(magnitude, le_bound, out=flags))
            top = np.maximum.reduce(magnitude)
            if top != top:  # NaN, which one element is enough for
                nan, top = True, np.fmax.reduce(magnitude)
            if top >= ge_bound:
                ge += np.count_nonzero(np.greater_equal(magnitude, ge_bound, out=flags))
            if top >= limit:
                reach += np.count_nonzero(np.greater_equal(magnitude, limit, out=flags))
            if top > limit:
                above += np.count_nonzero(np.greater(magnitude, limit, out=flags))
                above -= np.count_nonzero(np.equal(magnitude, np.inf, out=flags))
        return Tally(flat.size, int(ge), int(le), int(reach), int(above), nan)


class CalcCounts:
    """Counts over one output tensor; a loop body adds one array per iteration."""

    def __init__(self) -> None:
        self._elements = self._ge = self._le = self._clipped = 0
        self._nan = False

    def add(self, stored: Tally, clipped: int) -> None:
        """Add one array.

        Args:
            stored: The output as stored.
            clipped: How many elements were out of range as they were computed.
        """
        self._elements += stored.elements
        self._ge += stored.ge
        self._le += stored.le
        self._clipped += clipped
        self._nan |= stored.nan

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


def _tally(array: np.ndarray, bounds: Thresholds) -> Tally:
    if array.dtype.kind not in "fiub":
        return Tally(array.size)
    with np.errstate(invalid="ignore"):
        magnitude = _magnitude(array)
        ge = int(np.count_nonzero(magnitude >= bounds.ge))
        le = int(np.count_nonzero(magnitude <= bounds.le))
        if array.dtype.kind != "f":
            return Tally(array.size, ge, le)
        nan = bool(np.isnan(array).any())
        reach = int(np.count_nonzero(magnitude >= bounds.limit))
    return Tally(array.size, ge, le, reach, beyond(array, bounds.limit), nan)


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
    flat = array.reshape(-1)
    count = 0
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        # Nearly always nothing is. Unlike min and max, these two pass over NaN.
        if float(np.fmin.reduce(block)) < -limit or float(np.fmax.reduce(block)) > limit:
            with np.errstate(over="ignore", invalid="ignore"):
                count += np.count_nonzero(block > limit) + np.count_nonzero(block < -limit)
            count -= np.count_nonzero(np.isinf(block))
    return int(count)
