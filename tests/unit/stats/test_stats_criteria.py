"""Margins and comparisons against what they mean, element by element and in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from topsideas.errors import UsageError
from topsideas.stats.criteria import (
    Cosine,
    Tolerance,
    abs_error,
    compare,
    cosine,
    error_ratio,
    margin,
    norm_ratio,
)

quick = settings(deadline=None, max_examples=80)

# Near zero, near each other, huge, and no numbers at all.
values = st.sampled_from([0.0, -0.0, 1.0, 1.01, 0.99, 100.0, 101.0, 1e-30, 3e38]) | st.floats(
    width=32
)
shapes = hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=5)
bounds = st.sampled_from([0.0, 1e-5, 1e-2, 0.5, 2.0])


def _pairs(dtype: type) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    elements = {"elements": values} if dtype is np.float32 else {}
    return shapes.flatmap(lambda shape: st.tuples(*[hnp.arrays(dtype, shape, **elements)] * 2))


float_pairs = _pairs(np.float32)


def _ratio(out: float, ref: float, rule: Tolerance) -> float:
    """The share of the allowance that one element uses."""
    if out == ref or (math.isnan(out) and math.isnan(ref)):
        return 0.0
    if not (math.isfinite(out) and math.isfinite(ref)):
        return math.inf
    error, allowed = abs(out - ref), rule.atol + rule.rtol * abs(ref)
    return error / allowed if allowed else math.inf


def _ratios(out: np.ndarray, ref: np.ndarray, rule: Tolerance) -> list[float]:
    pairs = zip(out.ravel().tolist(), ref.ravel().tolist(), strict=True)
    return [_ratio(o, r, rule) for o, r in pairs]


@quick
@given(float_pairs, bounds, bounds)
def test_margin_is_the_worst_share_of_the_allowance(
    pair: tuple[np.ndarray, np.ndarray], rtol: float, atol: float
) -> None:
    rule = Tolerance(rtol, atol)
    expected = _ratios(*pair, rule)
    assert margin(*pair, rule) == pytest.approx(max(expected, default=0.0), rel=1e-12)
    assert error_ratio(*pair, rule).ravel().tolist() == pytest.approx(expected, rel=1e-12)


@quick
@given(float_pairs, bounds, bounds)
def test_a_margin_up_to_one_is_what_numpy_allclose_accepts(
    pair: tuple[np.ndarray, np.ndarray], rtol: float, atol: float
) -> None:
    with np.errstate(all="ignore"):
        out, ref = (a.astype(np.float64) for a in pair)
        accepted = np.allclose(out, ref, rtol=rtol, atol=atol, equal_nan=True)
    assert (margin(*pair, Tolerance(rtol, atol)) <= 1) == accepted


@quick
@given(float_pairs, bounds, st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 0.9]))
def test_ntol_sets_the_worst_elements_aside(
    pair: tuple[np.ndarray, np.ndarray], tolerance: float, ntol: float
) -> None:
    rule = Tolerance(tolerance, tolerance, ntol)
    ratios = _ratios(*pair, rule)
    allowed = math.floor(ntol * len(ratios) + 1e-9)
    if bool((np.isnan(pair[0]) & ~np.isnan(pair[1])).any()):
        assert margin(*pair, rule) == math.inf
        return
    passes = sum(r > 1 for r in ratios) <= allowed
    assert (margin(*pair, rule) <= 1) == passes
    if ratios:
        ranked = sorted(ratios, reverse=True)
        assert margin(*pair, rule) == pytest.approx(ranked[allowed], rel=1e-12)


@pytest.mark.parametrize(
    ("ntol", "wrong", "passes"),
    [(0.0, 1, False), (0.01, 1, True), (0.01, 2, False), (0.29, 29, True), (0.29, 30, False)],
)
def test_ntol_counts_whole_elements(ntol: float, wrong: int, passes: bool) -> None:
    ref = np.ones(100, np.float32)
    out = ref.copy()
    out[:wrong] = 2
    assert (margin(out, ref, Tolerance(ntol=ntol)) <= 1) == passes


@quick
@given(
    float_pairs,
    st.sampled_from([Tolerance(), Tolerance(10.0, 10.0), Cosine(0.5), Cosine(1.0)]),
    st.data(),
)
def test_nan_where_a_number_belongs_never_passes(
    pair: tuple[np.ndarray, np.ndarray], rule: Tolerance | Cosine, data: st.DataObject
) -> None:
    out, ref = pair
    assume(out.size)
    spot = data.draw(st.integers(0, out.size - 1))
    out.reshape(-1)[spot] = math.nan
    ref.reshape(-1)[spot] = 1.0
    assert margin(out, ref, rule) == math.inf


def test_nan_is_no_miss_that_ntol_allows_but_infinity_is() -> None:
    ref = np.ones(4, np.float32)
    out = np.array([math.nan, 1, 1, 1], np.float32)
    assert margin(out, ref, Tolerance(ntol=0.25)) == math.inf
    out[0] = math.inf
    assert margin(out, ref, Tolerance(ntol=0.25)) == 0
    assert margin(out, ref, Tolerance(ntol=0.2)) == math.inf


@quick
@given(float_pairs, st.sampled_from([Tolerance(), Tolerance(0, 0), Cosine(0.9)]))
def test_margin_is_a_number(pair: tuple[np.ndarray, np.ndarray], rule: Tolerance | Cosine) -> None:
    found = margin(*pair, rule)
    assert found >= 0 or (isinstance(rule, Cosine) and math.isclose(found, 0, abs_tol=1e-3))


@quick
@given(float_pairs, st.sampled_from([Tolerance(), Tolerance(0, 0), Cosine(0.9), Cosine(1.0)]))
def test_equal_outputs_pass_every_rule(
    pair: tuple[np.ndarray, np.ndarray], rule: Tolerance | Cosine
) -> None:
    assert margin(pair[0], pair[0].copy(), rule) <= 1


@pytest.mark.parametrize("rule", [Tolerance(10, 10), Cosine(0.1)], ids=["tolerance", "cosine"])
@pytest.mark.parametrize(
    ("out", "ref", "passes"),
    [
        (np.array([1, 2]), np.array([1, 2]), True),
        (np.array([1, 3]), np.array([1, 2]), False),
        (np.array([2**62, 0]), np.array([2**62 + 1, 0]), False),
        (np.array([True]), np.array([False]), False),
        (np.array(["a", "b"], object), np.array(["a", "b"], object), True),
        (np.array(["a", "b"], object), np.array(["a", "c"], object), False),
        (np.array([1 + 1j]), np.array([1 + 2j]), False),
        (np.array(["1"]), np.array([1]), False),
        (np.zeros(3), np.zeros(4), False),
        (np.zeros((2, 2)), np.zeros(4), False),
        (np.zeros((0, 3)), np.zeros((0, 3)), True),
        ([np.ones(2)], [np.ones(2)], True),
        ([np.ones(2)], [np.ones(2), np.ones(2)], False),
        ([np.array([1])], [np.array([2])], False),
        ([], [], True),
        (np.ones(2), [np.ones(2)], False),
        (None, None, True),
        (None, np.ones(1), False),
        (np.ones(1), None, False),
    ],
)
def test_what_must_be_equal_is_equal_or_fails(
    out: Any, ref: Any, passes: bool, rule: Tolerance | Cosine
) -> None:
    expected = pytest.approx(0.0) if passes else math.inf
    assert margin(out, ref, rule) == expected


def _products(out: np.ndarray, ref: np.ndarray) -> tuple[float, float, float]:
    x, y = ([float(v) for v in a.ravel()] for a in (out, ref))
    pairs = list(zip(x, y, strict=True))
    try:
        return (
            math.fsum(a * b for a, b in pairs),
            math.fsum(a * a for a in x),
            math.fsum(b * b for b in y),
        )
    except (ValueError, OverflowError):  # infinities of both signs
        return math.nan, math.nan, math.nan


small = hnp.arrays(np.float32, 6, elements=st.floats(-1000, 1000, width=32))
specials = hnp.arrays(np.float32, 3, elements=values)


@quick
@given(small, small)
def test_cosine_and_norm_ratio_are_those_of_the_definition(
    out: np.ndarray, ref: np.ndarray
) -> None:
    dot, left, right = _products(out, ref)
    if left > 0 and right > 0:
        found = cosine(out, ref)
        assert found == pytest.approx(dot / math.sqrt(left * right), abs=1e-12)
        assert found is not None
        assert -1 <= found <= 1
    else:
        assert cosine(out, ref) is None
    expected = math.sqrt(left / right) if right > 0 else None
    assert norm_ratio(out, ref) == (None if expected is None else pytest.approx(expected))


@quick
@given(specials, specials)
def test_cosine_is_undefined_for_zero_and_for_what_is_not_finite(
    out: np.ndarray, ref: np.ndarray
) -> None:
    defined = all(np.isfinite(a).all() and a.any() for a in (out, ref))
    assert (cosine(out, ref) is not None) == defined


@pytest.mark.parametrize(
    ("out", "ref", "similarity"),
    [
        ([1.0, 0.0], [2.0, 0.0], 1.0),
        ([1.0, 0.0], [0.0, 1.0], 0.0),
        ([1.0, 0.0], [-1.0, 0.0], -1.0),
        ([1e-200, 0.0], [1e-300, 0.0], None),
        ([], [], None),
    ],
)
def test_cosine_of_known_vectors(
    out: list[float], ref: list[float], similarity: float | None
) -> None:
    assert cosine(np.array(out), np.array(ref)) == similarity


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.999, 1.0])
@quick
@given(small, small)
def test_the_cosine_margin_is_one_at_the_threshold(
    threshold: float, out: np.ndarray, ref: np.ndarray
) -> None:
    similarity = cosine(out, ref)
    assume(similarity is not None and abs(similarity - threshold) > 1e-9)
    assert (margin(out, ref, Cosine(threshold)) <= 1) == (similarity >= threshold)


def test_parallel_vectors_pass_a_cosine_of_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        x = rng.standard_normal(37).astype(np.float32)
        assert margin(x * np.float32(2), x, Cosine(1.0)) <= 1


@pytest.mark.parametrize("ref", [[0.0, 0.0], [math.inf, 1.0]])
def test_where_cosine_is_undefined_only_equal_passes(ref: list[float]) -> None:
    reference = np.array(ref, np.float32)
    assert margin(reference, reference, Cosine(0.9)) == 0
    assert margin(reference + np.float32([0, 1]), reference, Cosine(0.9)) == math.inf


@quick
@given(float_pairs, bounds)
def test_a_comparison_counts_element_by_element(
    pair: tuple[np.ndarray, np.ndarray], tolerance: float
) -> None:
    rule = Tolerance(tolerance, tolerance)
    out, ref = pair
    found = compare(out, ref, rule)
    xs, ys = out.ravel().tolist(), ref.ravel().tolist()
    assert found.margin == margin(out, ref, rule)
    assert found.element_count == len(xs)
    assert found.exceed_tol_count == sum(r > 1 for r in _ratios(out, ref, rule))
    assert found.nan_count == sum(map(math.isnan, xs))
    assert found.inf_count == sum(map(math.isinf, xs))
    errors = [_error(x, y) for x, y in zip(xs, ys, strict=True)]
    assert found.max_abs_err == _finite(max(errors, default=0.0, key=_nan_first))
    relative = [e / abs(y) for e, y in zip(errors, ys, strict=True) if y != 0]
    worst = _finite(max(relative, default=math.nan, key=_nan_first))
    assert found.max_rel_err == (None if worst is None else pytest.approx(worst))


def _error(x: float, y: float) -> float:
    return 0.0 if x == y or (math.isnan(x) and math.isnan(y)) else abs(x - y)


def _nan_first(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def test_abs_error_is_zero_where_both_are_the_same() -> None:
    x = np.array([math.nan, math.inf, -math.inf, 1.0, math.inf], np.float32)
    y = np.array([math.nan, math.inf, math.inf, 3.0, 1.0], np.float32)
    assert abs_error(x, y).tolist() == [0.0, 0.0, math.inf, 2.0, math.inf]


@pytest.mark.parametrize(
    "out", [np.zeros(3, np.float32), np.array(["a", "b"], object)], ids=["shape", "strings"]
)
def test_a_comparison_of_what_cannot_be_compared_has_no_figures(out: np.ndarray) -> None:
    found = compare(out, np.zeros(2, np.float32), Tolerance())
    assert found.margin == math.inf
    assert found.cos_sim_value is None
    assert found.norm_rel is None
    assert found.max_abs_err is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint8, bool])
def test_every_dtype_is_compared_in_float64(dtype: type) -> None:
    x = np.array([0, 1, 1], dtype)
    found = compare(x, x, Tolerance(0, 0))
    assert (found.margin, found.cos_sim_value, found.norm_rel) == (0, pytest.approx(1.0), 1.0)
    assert found.max_abs_err == 0


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Tolerance(rtol=-1), "rtol=-1"),
        (lambda: Tolerance(atol=math.nan), "atol=nan"),
        (lambda: Tolerance(atol=math.inf), "atol=inf"),
        (lambda: Tolerance(ntol=1.0), "ntol=1.0"),
        (lambda: Tolerance(ntol=-0.1), "ntol=-0.1"),
        (lambda: Cosine(0.0), "cos_sim=0.0"),
        (lambda: Cosine(1.5), "cos_sim=1.5"),
        (lambda: Cosine(math.nan), "cos_sim=nan"),
    ],
)
def test_rules_that_make_no_sense_are_refused(make: Callable[[], object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        make()
