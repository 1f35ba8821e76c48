"""What accurate enough means: one output against its reference, and how far from the limit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from topsideas.errors import UsageError
from topsideas.stats.products import dot

# cos = 1 exactly is out of reach of float arithmetic; this is the least distance that is judged.
_COSINE_STEP = 2.0**-40


@dataclass(frozen=True, slots=True)
class Tolerance:
    """``|out - ref| <= atol + rtol * |ref|`` for all but a share ``ntol`` of the elements."""

    rtol: float = 1e-2
    atol: float = 1e-2
    ntol: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(
                    f"{name}={value!r}: expected a finite number that is not negative"
                )
        if not 0 <= self.ntol < 1:
            raise UsageError(
                f"ntol={self.ntol!r}: expected a share from 0 to below 1 (0.01 is 1 %)"
            )


@dataclass(frozen=True, slots=True)
class Cosine:
    """Cosine similarity of at least ``threshold``.

    Attributes:
        threshold: The least similarity.
        tolerance: What elements are counted against; it does not judge.
    """

    threshold: float
    tolerance: Tolerance = field(default_factory=Tolerance)

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise UsageError(f"cos_sim={self.threshold!r}: expected a number above 0 and up to 1")


Criterion = Tolerance | Cosine


@dataclass(frozen=True, slots=True)
class Comparison:
    """One output against its reference.

    Attributes:
        margin: How much of the allowance is used: up to 1 passes, infinite when a NaN, an
            infinity, a shape or a value that must be equal differs.
        element_count: Elements compared.
        exceed_tol_count: Elements beyond the element-wise tolerance.
        nan_count: NaN in the output.
        inf_count: Infinities in the output.
        cos_sim_value: None where undefined (a zero vector, or values that are not finite).
        norm_rel: ``‖out‖₂ / ‖ref‖₂``; None where undefined.
        max_abs_err: None where not finite.
        max_rel_err: Largest ``|out - ref| / |ref|`` over elements with a reference that is not
            zero; None where there is none or it is not finite.
    """

    margin: float
    element_count: int
    exceed_tol_count: int
    nan_count: int
    inf_count: int
    cos_sim_value: float | None
    norm_rel: float | None
    max_abs_err: float | None
    max_rel_err: float | None


def margin(out: Any, ref: Any, criterion: Criterion) -> float:
    """How much of the allowance ``out`` uses; above 1 fails, never NaN.

    Args:
        out: An array, or a list of arrays for a sequence output, or None.
        ref: The reference, of the same structure.
        criterion: The rule. Integers, booleans and strings must be equal under either rule, but
            for the share ``ntol``. NaN where the reference has none is no miss that a share
            could allow: it fails.
    """
    if isinstance(ref, list) or isinstance(out, list) or out is None or ref is None:
        return _structure_margin(out, ref, criterion)
    out, ref = np.asarray(out), np.asarray(ref)
    if out.shape != ref.shape:
        return math.inf
    if out.size == 0:
        return 0.0
    if isinstance(criterion, Cosine) and is_float(ref):
        return _cosine_margin(out, ref, criterion.threshold)
    rule = criterion if isinstance(criterion, Tolerance) else Tolerance()
    if has_stray_nan(out, ref):
        return math.inf
    return _allowed_maximum(error_ratio(out, ref, rule), rule.ntol)


def compare(out: np.ndarray, ref: np.ndarray, criterion: Criterion) -> Comparison:
    """All figures of one output against its reference; sums are in float64."""
    rule = criterion if isinstance(criterion, Tolerance) else criterion.tolerance
    out, ref = np.asarray(out), np.asarray(ref)
    numeric = out.shape == ref.shape and out.dtype.kind in "fiub" and ref.dtype.kind in "fiub"
    ratio = error_ratio(out, ref, rule) if out.shape == ref.shape else None
    return Comparison(
        margin=margin(out, ref, criterion),
        element_count=out.size,
        exceed_tol_count=out.size if ratio is None else int(np.count_nonzero(ratio > 1)),
        nan_count=int(np.isnan(out).sum()) if is_float(out) else 0,
        inf_count=int(np.isinf(out).sum()) if is_float(out) else 0,
        cos_sim_value=cosine(out, ref) if numeric else None,
        norm_rel=norm_ratio(out, ref) if numeric else None,
        max_abs_err=finite(_max(abs_error(out, ref))) if numeric else None,
        max_rel_err=finite(_max_relative(out, ref)) if numeric else None,
    )


def error_ratio(out: np.ndarray, ref: np.ndarray, rule: Tolerance) -> np.ndarray:
    """``|out - ref| / (atol + rtol |ref|)`` per element in float64; infinite where undefined.

    Equal elements (NaN counts as equal to NaN) give 0 even with a zero allowance. Elements of
    types other than float give 0 or infinity.
    """
    if not is_float(ref) or not is_float(out):
        return np.where(out == ref, 0.0, math.inf)
    with np.errstate(all="ignore"):
        wide = np.abs(ref.astype(np.float64))
        # Without asarray, arithmetic on arrays of no axes gives scalars.
        ratio = np.asarray(abs_error(out, ref) / (rule.atol + rule.rtol * wide))
    ratio[_equal(out, ref)] = 0.0
    ratio[np.isnan(ratio)] = math.inf
    return ratio


def has_stray_nan(out: np.ndarray, ref: np.ndarray) -> bool:
    """Whether ``out`` holds NaN where ``ref`` holds something else; both have one shape."""
    if not is_float(out):
        return False
    nan = np.isnan(out)
    return bool((nan & ~np.isnan(ref) if is_float(ref) else nan).any())


def abs_error(out: np.ndarray, ref: np.ndarray) -> np.ndarray:
    """``|out - ref|`` in float64; 0 where both are the same, NaN and infinity included."""
    with np.errstate(all="ignore"):
        error: np.ndarray = np.abs(out.astype(np.float64) - ref.astype(np.float64))
    return np.where(_equal(out, ref), 0.0, error)


def cosine(out: np.ndarray, ref: np.ndarray) -> float | None:
    """Cosine similarity in float64, or None where a vector is zero, empty or not finite."""
    return cosine_of(*_products(out, ref))


def norm_ratio(out: np.ndarray, ref: np.ndarray) -> float | None:
    """``‖out‖₂ / ‖ref‖₂`` in float64, or None where that is undefined."""
    _, left, right = _products(out, ref)
    return norm_ratio_of(left, right)


def cosine_of(dot: float, left: float, right: float) -> float | None:
    """Cosine similarity from ``x·y``, ``x·x`` and ``y·y``."""
    if not (math.isfinite(dot) and math.isfinite(left) and math.isfinite(right)):
        return None
    scale = math.sqrt(left) * math.sqrt(right)
    return max(-1.0, min(1.0, dot / scale)) if scale > 0 else None


def cosine_margin(similarity: float, threshold: float) -> float:
    """How much of the allowance a cosine similarity uses; up to 1 passes."""
    return (1.0 - similarity) / max(1.0 - threshold, _COSINE_STEP)


def norm_ratio_of(left: float, right: float) -> float | None:
    """``‖x‖₂ / ‖y‖₂`` from ``x·x`` and ``y·y``."""
    if not (right > 0 and math.isfinite(left) and math.isfinite(right)):
        return None
    return finite(math.sqrt(left) / math.sqrt(right))


def _products(out: np.ndarray, ref: np.ndarray) -> tuple[float, float, float]:
    with np.errstate(all="ignore"):
        x, y = out.astype(np.float64).ravel(), ref.astype(np.float64).ravel()
        return dot(x, y), dot(x, x), dot(y, y)


def _cosine_margin(out: np.ndarray, ref: np.ndarray, threshold: float) -> float:
    similarity = cosine(out, ref)
    if similarity is None:
        return 0.0 if bool(_equal(out, ref).all()) else math.inf
    return cosine_margin(similarity, threshold)


def _allowed_maximum(ratio: np.ndarray, ntol: float) -> float:
    """The largest ratio once the allowed share of worst elements is set aside."""
    aside = math.floor(ntol * ratio.size + 1e-9)
    if aside == 0:
        return float(ratio.max())
    return float(np.partition(ratio.ravel(), -1 - aside)[-1 - aside])


def _structure_margin(out: Any, ref: Any, criterion: Criterion) -> float:
    if out is None and ref is None:
        return 0.0
    if not isinstance(out, list) or not isinstance(ref, list) or len(out) != len(ref):
        return math.inf
    return max((margin(o, r, criterion) for o, r in zip(out, ref, strict=True)), default=0.0)


def _max_relative(out: np.ndarray, ref: np.ndarray) -> float:
    nonzero = ref != 0
    with np.errstate(all="ignore"):
        relative = abs_error(out, ref)[nonzero] / np.abs(ref.astype(np.float64)[nonzero])
    return _max(relative) if relative.size else math.nan


def _max(values: np.ndarray) -> float:
    return float(values.max()) if values.size else 0.0


def finite(value: float | None) -> float | None:
    """The value as strict JSON holds it: None where it is infinite or NaN."""
    return value if value is not None and math.isfinite(value) else None


def _equal(out: np.ndarray, ref: np.ndarray) -> np.ndarray:
    same = out == ref
    if is_float(out) and is_float(ref):
        same |= np.isnan(out) & np.isnan(ref)
    return np.asarray(same)


def is_float(array: np.ndarray) -> bool:
    """Whether the elements are floating-point numbers of any format."""
    # ml_dtypes' formats (bfloat16, float8) are of kind "V".
    return array.dtype.kind == "f" or array.dtype.name.startswith(("bfloat", "float"))
