"""Pairs of float32 arrays in blocks against the definition on whole arrays."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from topsideas.stats import acceleration, pairs
from topsideas.stats.criteria import Tolerance, error_ratio, has_stray_nan
from topsideas.stats.pairs import PairCounter

quick = settings(deadline=None, max_examples=100)
F = np.float32
special = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, 3.4e38, -3.4e38])
near = st.sampled_from([1.0, 1.01, 1.02, 1.03, 100.0, 101.0, 101.02, -100.0])
elements = near | st.floats(width=32) | special
sides = st.integers(0, 30).flatmap(lambda n: st.tuples(*[hnp.arrays(F, n, elements=elements)] * 2))
tame = st.integers(0, 30).flatmap(lambda n: st.tuples(*[hnp.arrays(F, n, elements=near)] * 2))
rules = st.builds(
    Tolerance,
    rtol=st.sampled_from([0.0, 1e-4, 1e-2, 1.0]),
    atol=st.sampled_from([0.0, 1e-35, 1e-2, 1.0]),
)


def _expected(low: np.ndarray, fp32: np.ndarray, rule: Tolerance) -> dict[str, Any]:
    with np.errstate(all="ignore"):
        left, right = low.astype(np.float64).ravel(), fp32.astype(np.float64).ravel()
        return {
            "squares": float(left @ left),
            "ref_squares": float(right @ right),
            "dot": float(left @ right),
            "nan": np.isnan(low).sum(),
            "ref_nan": np.isnan(fp32).sum(),
            "inf": np.isinf(low).sum(),
            "ref_inf": np.isinf(fp32).sum(),
            "stray_nan": has_stray_nan(low, fp32),
            "exceed": np.count_nonzero(error_ratio(low, fp32, rule) > 1),
        }


def _assert_counts(counter: PairCounter, low: np.ndarray, fp32: np.ndarray) -> None:
    found, expected = asdict(counter.tally(low, fp32)), _expected(low, fp32, counter._rule)
    finite = math.isfinite(expected["squares"] + expected["ref_squares"])
    found["stray_nan"] = found["stray_nan"] > 0
    for name in ("squares", "ref_squares", "dot"):
        left, right = found.pop(name), expected.pop(name)
        if finite:
            assert left == pytest.approx(right, rel=1e-12, abs=1e-12 * _scale(low, fp32))
        elif name != "dot":
            assert math.isfinite(left) == math.isfinite(right)
    assert found == expected


def _scale(low: np.ndarray, fp32: np.ndarray) -> float:
    return float(np.abs(low.astype(np.float64)).ravel() @ np.abs(fp32.astype(np.float64)).ravel())


@quick
@given(sides | tame, rules)
def test_blocks_add_up_to_the_whole(sides: tuple[np.ndarray, np.ndarray], rule: Tolerance) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "_BLOCK", 7)
        patch.setattr(pairs, "_TERMS", 3)
        patch.setattr(pairs, "fused", lambda: None)
        _assert_counts(PairCounter(rule), *sides)
        _assert_counts(PairCounter(rule), *(side.reshape(1, -1) for side in sides))


@quick
@given(sides | tame, rules)
def test_compiled_loops_count_the_same(
    sides: tuple[np.ndarray, np.ndarray], rule: Tolerance
) -> None:
    pytest.importorskip("numba")
    assert acceleration.fused() is not None
    _assert_counts(PairCounter(rule), *(np.tile(side, 300) for side in sides))


@pytest.mark.parametrize("scale", [1e-44, 1e-20, 1.0, 1e4, 1e30, 3e38])
@pytest.mark.parametrize("rule", [Tolerance(), Tolerance(0.0, 0.0), Tolerance(0.5, 1e-3)])
def test_errors_around_the_tolerance_are_told_apart(scale: float, rule: Tolerance) -> None:
    """Far more elements within float32's own error of the limit than any model has."""
    rng = np.random.default_rng(0)
    fp32 = (rng.uniform(-1, 1, 70_000) * scale).astype(F)
    allowed = rule.atol + rule.rtol * np.abs(fp32.astype(np.float64))
    steps = rng.integers(-3, 4, fp32.size) * 2.0**-23 * (np.abs(fp32) + allowed)
    with np.errstate(over="ignore"):
        low = (fp32 + allowed + steps).astype(F)
    _assert_counts(PairCounter(rule), low, fp32)


@pytest.mark.parametrize("scale", [1e-44, 1e-37, 1e-20, 1.0, 1e30, 3e38])
@pytest.mark.parametrize("rule", [Tolerance(), Tolerance(1e-2, 1e-29), Tolerance(1e-2, 0.0)])
def test_one_element_at_the_tolerance_is_told_apart(scale: float, rule: Tolerance) -> None:
    """Alone in its block: nothing else makes anybody look twice."""
    rng = np.random.default_rng(0)
    counter = PairCounter(rule)
    fp32 = (rng.uniform(-1, 1, 500) * scale).astype(F)
    allowed = rule.atol + rule.rtol * np.abs(fp32.astype(np.float64))
    steps = rng.integers(-8, 9, fp32.size) * 2.0**-24 * allowed
    low = (fp32 + allowed + steps).astype(F)
    expected = error_ratio(low, fp32, rule) > 1
    if scale > 1e-40:  # below, steps vanish
        assert 0 < np.count_nonzero(expected) < fp32.size
    found = [counter.tally(low[i : i + 1], fp32[i : i + 1]).exceed for i in range(fp32.size)]
    assert found == expected.astype(int).tolist()
