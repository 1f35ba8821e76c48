"""What rounding to a low format does to one tensor that an op reads or writes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from topsideas.precision import Numerics
from topsideas.rounding import round_to
from topsideas.stats.products import dot

# A mask's sentinel is one value, far out and negative, that many elements share.
_SENTINEL, _ALIKE = 1e8, 1e-3


@dataclass(frozen=True, slots=True)
class Symptoms:
    """What a low format cannot hold of a tensor.

    Attributes:
        elements: How many elements were looked at.
        most: The largest finite magnitude.
        least: The smallest magnitude that is not zero; infinite if all are.
        over: Finite elements beyond the range.
        sentinel: Whether all of those are one far, negative value, as masks use; means nothing
            if there are none.
        vanishing: Elements that are not zero and are stored as zero.
        zero: Elements that are zero.
        miscounted: Whole numbers that are stored as another one.
        whole: Whether all finite elements are whole numbers.
        error: ``‖stored - exact‖₂ / ‖exact‖₂`` over the elements within range.
    """

    elements: int = 0
    most: float = 0.0
    least: float = math.inf
    over: int = 0
    sentinel: bool = False
    vanishing: int = 0
    zero: int = 0
    miscounted: int = 0
    whole: bool = False
    error: float = 0.0

    @classmethod
    def of(cls, array: np.ndarray, numerics: Numerics) -> Symptoms:
        """Look at a float32 array; others are not rounded and have no symptoms."""
        if array.dtype != np.float32 or not array.size:
            return cls()
        flat = array.reshape(-1)
        finite = flat[np.isfinite(flat)]
        magnitude = np.abs(finite)
        beyond = magnitude > numerics.precision.max
        inside = finite[~beyond]
        stored = round_to(inside, numerics)
        is_whole = inside == np.rint(inside)
        with np.errstate(over="ignore"):
            return cls(
                elements=flat.size,
                most=float(magnitude.max(initial=0.0)),
                least=float(np.min(magnitude, initial=np.inf, where=magnitude > 0)),
                over=int(np.count_nonzero(beyond)),
                sentinel=_is_sentinel(finite[beyond]),
                vanishing=int(np.count_nonzero((stored == 0) & (inside != 0))),
                zero=int(np.count_nonzero(inside == 0)),
                miscounted=int(np.count_nonzero(is_whole & (stored != inside))),
                whole=bool(is_whole.all()) and inside.size > 0,
                error=_ratio(stored - inside, inside),
            )

    def joined(self, other: Symptoms) -> Symptoms:
        """Both together: of an op in a loop, or of several outputs."""
        if not self.elements or not other.elements:
            return self if self.elements else other
        return Symptoms(
            elements=self.elements + other.elements,
            most=max(self.most, other.most),
            least=min(self.least, other.least),
            over=self.over + other.over,
            sentinel=all(s.sentinel or not s.over for s in (self, other)),
            vanishing=self.vanishing + other.vanishing,
            zero=self.zero + other.zero,
            miscounted=self.miscounted + other.miscounted,
            whole=self.whole and other.whole,
            error=max(self.error, other.error),
        )


def _is_sentinel(beyond: np.ndarray) -> bool:
    if not beyond.size or float(beyond.max()) > -_SENTINEL:
        return False
    nearest, furthest = float(beyond.max()), float(beyond.min())
    return furthest - nearest >= _ALIKE * furthest


def _ratio(difference: np.ndarray, reference: np.ndarray) -> float:
    wide, exact = difference.astype(np.float64), reference.astype(np.float64)
    whole = dot(exact, exact)
    return math.sqrt(dot(wide, wide) / whole) if whole else 0.0
