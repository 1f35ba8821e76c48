"""Magnitudes by binade, deviations and symptoms, against direct definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from topsideas.precision import BF16, FP16, Numerics, Precision, Subnormals
from topsideas.rounding import round_to
from topsideas.stats.deviation import Deviation
from topsideas.stats.magnitudes import Magnitudes, Spread
from topsideas.stats.symptoms import Symptoms

FLOATS = hnp.arrays(
    np.float32,
    st.integers(0, 200),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True),
)
NUMERICS = st.builds(
    Numerics,
    precision=st.sampled_from([FP16, BF16]),
    subnormals=st.sampled_from(list(Subnormals)),
)


def spread(numerics: Numerics, *arrays: np.ndarray) -> Spread | None:
    magnitudes = Magnitudes(numerics)
    for array in arrays:
        magnitudes.add(array)
    return magnitudes.spread()


@given(FLOATS, NUMERICS)
def test_shares_are_what_rounding_does(array: np.ndarray, numerics: Numerics) -> None:
    found = spread(numerics, array)
    if not array.size:
        assert found is None
        return
    assert found is not None
    finite = np.abs(array[np.isfinite(array)])
    stored, n = round_to(array, numerics), array.size
    assert found.over * n == pytest.approx((finite > numerics.precision.max).sum())
    vanished = np.isfinite(array) & (array != 0) & (stored == 0)
    assert found.vanishing * n == pytest.approx(vanished.sum())
    small = (finite > 0) & (finite < numerics.precision.smallest_normal)
    assert found.subnormal * n == pytest.approx(small.sum())
    assert found.zero * n == pytest.approx((array == 0).sum())
    assert found.broken * n == pytest.approx((~np.isfinite(array)).sum())


@given(FLOATS)
def test_extremes_are_exact_and_quantiles_within_a_factor_of_two(array: np.ndarray) -> None:
    found = spread(Numerics(), array)
    values = np.sort(np.abs(array[np.isfinite(array) & (array != 0)]))
    if found is None or not values.size:
        assert found is None or (found.most is None and found.middle is None)
        return
    assert (found.least, found.most) == (values[0], values[-1])
    for name, share in (("high", 0.99), ("middle", 0.5), ("low", 0.01)):
        exact = float(values[int(np.ceil(share * values.size)) - 1])
        bound = getattr(found, name)
        assert exact <= bound <= max(2 * exact, float(np.finfo(np.float32).tiny))


def test_arrays_add_up_and_what_is_no_float32_is_not_counted() -> None:
    rng = np.random.default_rng(0)
    array = (rng.standard_normal(200_000) * 1e5).astype(np.float32)
    parts = spread(Numerics(), array[:7], np.arange(5), array[7:])
    assert parts == spread(Numerics(), array)


@given(FLOATS, st.integers(0, 2**32 - 1))
def test_the_relative_error_is_the_ratio_of_norms(ref: np.ndarray, seed: int) -> None:
    noise = np.random.default_rng(seed).uniform(0.9, 1.1, ref.shape).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        out = ref * noise
    found = Deviation()
    found.add(out, ref)
    both = np.isfinite(out) & np.isfinite(ref)
    assert found.broken == np.count_nonzero(~np.isfinite(out) & np.isfinite(ref))
    exact = np.linalg.norm(ref[both].astype(np.float64))
    if exact and found.relative:
        wide = out[both].astype(np.float64) - ref[both].astype(np.float64)
        assert found.relative == pytest.approx(np.linalg.norm(wide) / exact)


def test_a_deviation_without_a_reference_is_undefined_and_not_zero() -> None:
    found = Deviation()
    assert found.relative is None
    found.add(np.ones(3, np.float32), np.zeros(3, np.float32))
    assert found.relative is None
    found = Deviation()
    found.add(np.array([np.nan, np.inf, 1], np.float32), np.ones(3, np.float32))
    assert (found.broken, found.nan, found.relative) == (2, True, 0.0)


@given(FLOATS, st.sampled_from([FP16, BF16]))
def test_symptoms_are_what_rounding_does(array: np.ndarray, precision: Precision) -> None:
    numerics = Numerics(precision)
    found = Symptoms.of(array, numerics)
    finite = array[np.isfinite(array)]
    inside = finite[np.abs(finite) <= precision.max]
    stored = round_to(inside, numerics)
    assert found.over == finite.size - inside.size
    assert found.vanishing == np.count_nonzero((stored == 0) & (inside != 0))
    whole = inside == np.rint(inside)
    assert found.miscounted == np.count_nonzero(whole & (stored != inside))


@pytest.mark.parametrize(
    ("values", "is_one"),
    [
        ([np.finfo(np.float32).min, 1.0], True),
        ([-1e9, -1e9, 0.5], True),
        ([-1e9, -7e4], False),
        ([1e9, 1.0], False),
        ([-7e4, 0.0], False),
    ],
)
def test_a_sentinel_is_one_far_negative_value(values: list[float], is_one: bool) -> None:
    assert Symptoms.of(np.array(values, np.float32), Numerics()).sentinel is is_one


def test_symptoms_of_turns_are_joined() -> None:
    parts = [np.array(v, np.float32) for v in ([1, 2049], [70000.0], [1e-9, 0.5])]
    joined = Symptoms()
    for part in parts:
        joined = joined.joined(Symptoms.of(part, Numerics()))
    whole = Symptoms.of(np.concatenate(parts), Numerics())
    assert (joined.elements, joined.over, joined.vanishing, joined.miscounted) == (5, 1, 1, 1)
    assert (joined.most, joined.least, joined.whole) == (whole.most, whole.least, whole.whole)
