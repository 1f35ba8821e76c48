from __future__ import annotations

import json
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topsideas.plan import PrecisionPlan
from topsideas.precision import BF16, FP16, PRECISIONS, Accumulation, Numerics, Overflow, Precision
from topsideas.rounding import low_dtype
from topsideas.verdict import Verdict

IDS = st.frozensets(st.integers(0, 2**31), max_size=8)
MARGINS = st.none() | st.floats(min_value=0, allow_nan=False)


@pytest.mark.parametrize("precision", [FP16, BF16], ids=lambda p: p.name)
def test_a_format_says_what_its_numpy_type_says(precision: Precision) -> None:
    info = ml_dtypes.finfo(low_dtype(precision))
    assert precision.max == float(info.max)
    assert precision.smallest_normal == float(info.smallest_normal)
    assert PRECISIONS[precision.name] is precision


def test_every_field_of_the_numerics_is_in_their_json() -> None:
    texts = {
        json.dumps(numerics.to_json(), sort_keys=True)
        for numerics in (
            Numerics(),
            Numerics(BF16),
            Numerics(overflow=Overflow.SATURATE),
            Numerics(accumulation=Accumulation.LOW),
        )
    }
    assert len(texts) == 4


@given(IDS, IDS)
def test_a_plan_splits_the_candidates(kept: frozenset[int], candidates: frozenset[int]) -> None:
    plan = PrecisionPlan(kept)
    assert plan.low(candidates) | (kept & candidates) == candidates
    assert not plan.low(candidates) & kept
    assert plan.ids == sorted(kept)


@given(IDS, IDS)
def test_plans_share_a_digest_only_if_they_are_the_same(
    left: frozenset[int], right: frozenset[int]
) -> None:
    one, other = PrecisionPlan(left), PrecisionPlan.of([*right, *right])
    assert (one.digest == other.digest) == (left == right)


@given(st.booleans(), MARGINS, st.none() | st.integers(0), st.none() | st.text(), st.text())
def test_a_verdict_survives_json(
    passed: bool, margin: float | None, sample: int | None, output: str | None, note: str
) -> None:
    verdict = Verdict(passed, margin, sample, output, note)
    text = json.dumps(verdict.to_json(), allow_nan=False)
    again = Verdict.from_json(json.loads(text))
    if note == "" or margin is None or math.isfinite(margin):
        assert again == verdict
    else:  # the note of a crash takes the place of an infinite margin
        assert (again.passed, again.note, again.margin) == (passed, note, None)


def test_low_dtypes_are_two_bytes_wide() -> None:
    assert [low_dtype(p).itemsize for p in PRECISIONS.values()] == [2, 2]
    assert low_dtype(FP16) == np.float16
