"""Dot products that no number of threads changes."""

from __future__ import annotations

import numpy as np

# From 10000 terms on OpenBLAS takes several threads, which mostly wait for each other here: on a
# busy machine that was measured to take 100 times as long as the product.
_TERMS = 1 << 13


def dot(left: np.ndarray, right: np.ndarray) -> float:
    """The dot product of two flat float64 arrays of equal length, summed in parts."""
    if left.size <= _TERMS:
        return float(left @ right)
    rows = left.size // _TERMS
    end = rows * _TERMS
    parts = np.matmul(left[:end].reshape(rows, 1, _TERMS), right[:end].reshape(rows, _TERMS, 1))
    return float(parts.sum() + left[end:] @ right[end:])
