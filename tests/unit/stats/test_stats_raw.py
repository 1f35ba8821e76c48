"""RAW's sums against the same figures computed on the whole tensors at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from topsideas.stats.criteria import Cosine, Tolerance, compare
from topsideas.stats.raw import RawSums

quick = settings(deadline=None, max_examples=60)
values = st.sampled_from([0.0, 1.0, 1.02, -3.0]) | st.floats(width=32)
pairs = st.integers(0, 5).flatmap(
    lambda n: st.tuples(*[hnp.arrays(np.float32, n, elements=values)] * 2)
)


@quick
@given(st.lists(pairs, min_size=1, max_size=3), st.sampled_from([0.0, 0.2]))
def test_parts_add_up_to_the_whole(
    parts: list[tuple[np.ndarray, np.ndarray]], ntol: float
) -> None:
    rule = Tolerance(1e-2, 1e-2, ntol)
    sums = RawSums(rule)
    for low, fp32 in parts:
        sums.add(low, fp32)
    low, fp32 = (np.concatenate(side) for side in zip(*parts, strict=True))
    whole, found = compare(low, fp32, rule), sums.fields("fp16")
    assert found["fp16_element_count"] == found["fp32_element_count"] == low.size
    assert found["fp16_nan_count"] == np.isnan(low).sum()
    assert found["fp16_inf_count"] == np.isinf(low).sum()
    assert found["fp32_nan_count"] == np.isnan(fp32).sum()
    assert found["fp32_inf_count"] == np.isinf(fp32).sum()
    assert found["exceed_tol_count"] == whole.exceed_tol_count
    assert found["numpy_allclose"] == ("pass" if whole.margin <= 1 else "fail")
    for name in ("cos_sim_value", "norm_rel"):
        expected = getattr(whole, name)
        assert found[name] == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("threshold", [0.9, 1.0])
def test_equal_tensors_pass_every_cosine(threshold: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        sums, x = RawSums(Cosine(threshold)), rng.standard_normal(37).astype(np.float32)
        sums.add(x, x)
        assert sums.fields("fp16")["numpy_allclose"] == "pass"


def test_a_low_cosine_fails_and_is_told() -> None:
    sums = RawSums(Cosine(0.9))
    sums.add(np.array([1, 1], np.float32), np.array([1, 0], np.float32))
    found = sums.fields("fp16")
    assert found["numpy_allclose"] == "fail"
    assert found["cos_sim_value"] == pytest.approx(math.sqrt(0.5))


@pytest.mark.parametrize(
    ("low", "fp32"),
    [
        (np.ones(2, np.float32), None),
        (None, np.ones(2, np.float32)),
        (np.ones(2, np.float32), np.ones(3, np.float32)),
    ],
    ids=["low run only", "fp32 run only", "shapes"],
)
@pytest.mark.parametrize("rule", [Tolerance(), Cosine(0.5)], ids=["tolerance", "cosine"])
def test_what_has_no_mate_fails(
    low: np.ndarray | None, fp32: np.ndarray | None, rule: Tolerance | Cosine
) -> None:
    sums = RawSums(rule)
    sums.add(low, fp32)
    found = sums.fields("fp16")
    assert found["numpy_allclose"] == "fail"
    assert found["cos_sim_value"] is None
    assert found["norm_rel"] is None
    assert found["fp16_element_count"] == (low.size if low is not None else 0)
    assert found["fp32_element_count"] == (fp32.size if fp32 is not None else 0)


def test_integers_and_strings_must_be_equal() -> None:
    for low, fp32, answer in (
        (np.array([1, 2]), np.array([1, 2]), "pass"),
        (np.array([1, 2]), np.array([1, 3]), "fail"),
        (np.array(["a"], object), np.array(["a"], object), "pass"),
        (np.array(["a"], object), np.array(["b"], object), "fail"),
    ):
        for rule in (Tolerance(10, 10), Cosine(0.1)):
            sums = RawSums(rule)
            sums.add(low, fp32)
            assert sums.fields("fp16")["numpy_allclose"] == answer
