"""How large the values of a tensor are, and what a low format makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from topsideas.precision import Numerics, Subnormals

# Elements looked at together, so that what is made of them stays in a processor's L2 cache.
_BLOCK = 1 << 16
# Exponents of float32 as they are stored; the last one is that of infinities and NaN.
_BIAS, _SPECIAL = 127, 255


@dataclass(frozen=True, slots=True)
class Spread:
    """The magnitudes of one tensor, over all that was added. Quantiles are those of the binades.

    Attributes:
        elements: How many.
        most: The largest finite magnitude; None if nothing is finite and not zero.
        least: The smallest that is not zero.
        high: Below it lie 99 % of the magnitudes that are finite and not zero, to a factor of 2.
        middle: Below it lie 50 %.
        low: Below it lies 1 %.
        zero: The share of zeros.
        over: The share of finite values beyond the low format's range.
        subnormal: The share below the low format's smallest normal number, zeros not counted.
        vanishing: The share that is stored as zero, zeros not counted.
        broken: The share of NaN and infinities.
    """

    elements: int
    most: float | None
    least: float | None
    high: float | None
    middle: float | None
    low: float | None
    zero: float
    over: float
    subnormal: float
    vanishing: float
    broken: float


class Magnitudes:
    """Counts float32 magnitudes by binade, exactly at the ends of the low format's range.

    Args:
        numerics: The low format.
    """

    def __init__(self, numerics: Numerics) -> None:
        self._numerics = numerics
        self._binades = np.zeros(_SPECIAL + 1, np.int64)
        self._elements = self._zero = self._over = self._subnormal = self._vanishing = 0
        self._most, self._least = 0.0, np.inf

    def add(self, array: np.ndarray) -> None:
        """Count one float32 array; others hold nothing that could be rounded."""
        if array.dtype != np.float32:
            return
        flat = array.reshape(-1)
        for start in range(0, flat.size, _BLOCK):
            self._count(np.abs(flat[start : start + _BLOCK]))

    def _count(self, magnitude: np.ndarray) -> None:
        binades = np.bincount(magnitude.view(np.uint32) >> 23, minlength=_SPECIAL + 1)
        self._elements += magnitude.size
        self._zero += int(np.count_nonzero(magnitude == 0))
        self._binades += binades
        finite = magnitude[magnitude < np.inf] if binades[_SPECIAL] else magnitude
        self._most = max(self._most, float(finite.max(initial=0.0)))
        least = float(np.min(finite, initial=np.inf, where=finite > 0))
        self._least = min(self._least, least)
        precision = self._numerics.precision
        if self._most > precision.max:
            self._over += int(np.count_nonzero(finite > precision.max))
        if least < precision.smallest_normal:
            small = finite[(finite < precision.smallest_normal) & (finite > 0)]
            self._subnormal += small.size
            self._vanishing += int(np.count_nonzero(small <= self._stored_as_zero()))

    def _stored_as_zero(self) -> float:
        """The largest magnitude that rounds to zero: half of the smallest, which ties to even."""
        precision = self._numerics.precision
        if self._numerics.subnormals is Subnormals.FLUSH:
            return float(np.nextafter(np.float32(precision.smallest_normal), np.float32(0)))
        return precision.smallest / 2

    def spread(self) -> Spread | None:
        """What was counted; None if that was nothing."""
        if not self._elements:
            return None
        counts = self._binades[:_SPECIAL].copy()
        counts[0] -= self._zero  # what is left there are float32's own subnormals
        return Spread(
            elements=self._elements,
            most=self._most or None,
            least=self._least if np.isfinite(self._least) else None,
            high=self._quantile(counts, 0.99),
            middle=self._quantile(counts, 0.5),
            low=self._quantile(counts, 0.01),
            zero=self._zero / self._elements,
            over=self._over / self._elements,
            subnormal=self._subnormal / self._elements,
            vanishing=self._vanishing / self._elements,
            broken=int(self._binades[_SPECIAL]) / self._elements,
        )

    def _quantile(self, counts: np.ndarray, share: float) -> float | None:
        """The upper end of the binade in which a quantile lies, within the extremes."""
        total = int(counts.sum())
        if not total:
            return None
        binade = int(np.searchsorted(np.cumsum(counts), share * total))
        end = 2.0 ** (binade - _BIAS + 1) if binade else float(np.finfo(np.float32).tiny)
        return min(max(end, self._least), self._most)
