"""CALC's counts against counting in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from topsideas.errors import UsageError
from topsideas.precision import BF16, FP16, Numerics, Overflow, Precision, Subnormals
from topsideas.rounding import round_to
from topsideas.stats import acceleration, calc
from topsideas.stats.calc import CalcCounts, Census, Thresholds, beyond

quick = settings(deadline=None, max_examples=60)
# Exact in every float type, so that counting in Python compares the same numbers.
levels = st.sampled_from([0.0, 2.0**-14, 0.5, 1.0, 64.0, 128.0, 2048.0, 65504.0])
dtypes = st.sampled_from(
    [np.float16, np.float32, np.float64, np.int8, np.int64, np.uint8, np.bool_]
)
arrays = dtypes.flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, min_side=0)))


def _add(counts: CalcCounts, census: Census, stored: np.ndarray, raw: np.ndarray | None) -> None:
    counts.add(census.tally(stored), 0 if raw is None else census.beyond(raw))


@quick
@given(st.lists(arrays, min_size=1, max_size=3), levels, levels)
def test_shares_are_those_of_the_definition(parts: list[np.ndarray], le: float, ge: float) -> None:
    counts, census = CalcCounts(), Census(Thresholds(le, ge, 65504.0))
    for part in parts:
        tally = census.tally(part)
        counts.add(tally, tally.beyond)
    magnitudes = [abs(x) for part in parts for x in part.ravel().tolist()]
    floats = [abs(x) for p in parts if p.dtype.kind == "f" for x in p.ravel().tolist()]
    expected = {
        "fp16_ge_ratio": _share(sum(m >= ge for m in magnitudes), len(magnitudes)),
        "fp16_le_ratio": _share(sum(m <= le for m in magnitudes), len(magnitudes)),
        "fp16_clip_ratio": _share(sum(65504 < m < math.inf for m in floats), len(magnitudes)),
        "fp16_check_nan": any(math.isnan(m) for m in magnitudes),
    }
    assert counts.fields("fp16") == expected


def _share(count: int, total: int) -> float | None:
    return count / total if total else None


def test_the_least_integer_is_large() -> None:
    counts, census = CalcCounts(), Census(Thresholds(le=1, ge=100, limit=65504))
    _add(counts, census, np.array([-128, 1], np.int8), None)
    assert counts.fields("x") == {
        "x_ge_ratio": 0.5,
        "x_le_ratio": 0.5,
        "x_clip_ratio": 0.0,
        "x_check_nan": False,
    }


def test_a_threshold_beyond_fp16_counts_infinities_only() -> None:
    counts, census = CalcCounts(), Census(Thresholds(le=1e5, ge=1e5, limit=65504))
    _add(counts, census, np.array([65504, math.inf, -math.inf, 0], np.float16), None)
    assert counts.fields("x")["x_ge_ratio"] == 0.5
    assert counts.fields("x")["x_le_ratio"] == 0.5


def test_strings_and_empty_tensors_are_only_counted() -> None:
    counts, census = CalcCounts(), Census(Thresholds(0, 0, 65504))
    assert counts.fields("x")["x_ge_ratio"] is None
    _add(counts, census, np.zeros((0, 3), np.float32), None)
    assert counts.fields("x")["x_ge_ratio"] is None
    _add(counts, census, np.array(["a", "b"], object), None)
    assert counts.fields("x")["x_ge_ratio"] == 0
    assert counts.fields("x")["x_check_nan"] is False


def test_what_was_computed_decides_what_is_clipped() -> None:
    counts, census = CalcCounts(), Census(Thresholds(0, 0, 65504))
    stored = np.array([math.inf, 1.0], np.float32)
    _add(counts, census, stored, np.array([7e4, 1.0], np.float32))
    assert counts.fields("x")["x_clip_ratio"] == 0.5
    _add(counts, census, stored, None)
    assert counts.fields("x")["x_clip_ratio"] == 0.25


special = st.sampled_from(
    [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, 1.0, -65504.0, 65504.0, 65505.0, 3.4e38]
)


@quick
@given(hnp.arrays(np.float32, st.integers(0, 40), elements=special), levels, levels)
def test_blocks_count_what_the_whole_counts(x: np.ndarray, le: float, ge: float) -> None:
    bounds = Thresholds(le, ge, 65504.0)
    whole = calc._tally(x, bounds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calc, "_BLOCK", 7)
        patch.setattr(calc, "fused", lambda: None)
        assert Census(bounds).tally(x) == whole
        assert Census(bounds).tally(x.reshape(1, -1)) == whole
        assert beyond(x, 65504.0) == whole.beyond


@quick
@given(hnp.arrays(np.float32, st.integers(0, 40), elements=special), levels, levels)
def test_compiled_loops_count_the_same(x: np.ndarray, le: float, ge: float) -> None:
    pytest.importorskip("numba")
    assert acceleration.fused() is not None
    bounds = Thresholds(le, ge, 65504.0)
    assert Census(bounds).tally(np.tile(x, 200)) == calc._tally(np.tile(x, 200), bounds)


def test_an_array_is_counted_once_while_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    census = Census(Thresholds(0, 0, 65504))
    x = np.array([7e4, 1.0], np.float32)
    assert census.tally(x).beyond == 1
    monkeypatch.setattr(calc, "beyond", lambda array, limit: pytest.fail("counted again"))
    assert census.beyond(x) == 1
    del x
    assert census._beyond == {}


@pytest.mark.parametrize(
    ("values", "count"),
    [([65504.0, -65504.0], 0), ([65505.0, -1e9, math.inf], 2), ([math.nan], 0), ([], 0)],
)
def test_beyond_the_limit(values: list[float], count: int) -> None:
    assert beyond(np.array(values, np.float32), 65504.0) == count


@pytest.mark.parametrize(("le", "ge"), [(-1, 0), (0, math.nan)])
def test_thresholds_that_make_no_sense_are_refused(le: float, ge: float) -> None:
    with pytest.raises(UsageError, match="_value_thres"):
        Thresholds(le, ge, 65504)


@quick
@given(
    hnp.arrays(np.float32, st.integers(1, 40), elements=special | st.floats(width=32)),
    st.sampled_from([FP16, BF16]),
    st.sampled_from(Overflow),
    st.sampled_from(Subnormals),
)
def test_what_was_beyond_the_limit_shows_in_what_is_stored(
    x: np.ndarray, precision: Precision, overflow: Overflow, subnormals: Subnormals
) -> None:
    stored = round_to(x, Numerics(precision, overflow, subnormals))
    if Census(Thresholds(0, 1, precision.max)).tally(stored).reach == 0:
        assert beyond(x, precision.max) == 0


def test_weights_are_counted_once_for_all_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    known: calc.Known = {}
    weight = np.array([7e4, 1.0], np.float32)
    assert Census(Thresholds(0, 0, 65504), known).beyond(weight) == 1
    monkeypatch.setattr(calc, "beyond", lambda array, limit: pytest.fail("counted again"))
    assert Census(Thresholds(0, 0, 65504), known).beyond(weight) == 1
